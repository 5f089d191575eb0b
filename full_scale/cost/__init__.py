"""What a run will need, counted on the meta device: it starts nothing. Touches the settings and
the cast of `run`, the shape and the draws of `data`, `families`, the size of `rewards`, and
`launch`.
"""
