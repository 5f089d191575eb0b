"""Prepared data: shards on disk, the rows and draws of a step. Touches families, to encode."""
