"""Whether a run that ends by itself keeps its word: intervals, stops, cost, and adversaries that would fool it."""
