"""Hamiltonian dynamics of an ensemble: metrics, integrators, acceptance."""
