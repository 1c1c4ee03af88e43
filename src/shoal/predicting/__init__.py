"""Data that are not seen yet, drawn from posterior or prior: what models are held against."""
