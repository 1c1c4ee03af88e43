"""A model looked at before a run: its density, gradient, supports and rounding, and how fast gradients are."""
