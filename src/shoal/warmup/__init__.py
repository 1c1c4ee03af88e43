"""The warmup that ends by itself: burn-in, metrics from the draws of all chains, and a race for the sampler."""
