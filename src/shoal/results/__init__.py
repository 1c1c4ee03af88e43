"""What a run gives back, in memory and on disk."""
