"""Prepared data: shards on disk, the rows and draws of a step. Touches `families`, whose
encoders it calls, `out`, for digests, and `sources`.
"""
