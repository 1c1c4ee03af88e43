"""Watching a run from elsewhere: lines of metrics, events for TensorBoard, and what a directory says of its run."""
