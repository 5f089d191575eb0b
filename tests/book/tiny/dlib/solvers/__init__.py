"""Solvers, tiny."""
