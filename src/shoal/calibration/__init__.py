"""Simulation-based calibration: whether model and sampler give back the parameters that data were made with."""
