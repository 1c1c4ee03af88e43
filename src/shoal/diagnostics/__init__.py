"""What draws say about themselves: diagnostics, findings, and the verdict."""
