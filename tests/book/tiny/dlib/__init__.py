"""A tiny library for the tests of Diffusion, Distilled's press."""
