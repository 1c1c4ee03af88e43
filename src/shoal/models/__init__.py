"""What is sampled, as a user writes it: parameters on their supports, log densities, data."""
