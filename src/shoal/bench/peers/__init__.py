"""Shoal beside its peers on the same machine: gradients per second, and the time from nothing to an answer."""
