"""A training run: settings, cast, engine, checkpoints. Touches `data`, `families`,
`launch`, `out`, `rewards` and `sources`.
"""
