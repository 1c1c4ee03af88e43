"""What a run leaves on disk so that it goes on after its process has ended."""
