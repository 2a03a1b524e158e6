"""Loops over the samples of a system of equations; numba compiles them for each text."""
