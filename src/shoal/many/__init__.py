"""Many posteriors of one model at once: the data sets are one more batch axis of one compiled program."""
