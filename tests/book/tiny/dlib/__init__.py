"""A tiny library."""
