"""Sweeps: the pipeline over a grid of two params, and the figure that comes of it."""
