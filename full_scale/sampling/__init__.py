"""A request for pictures: what may be asked, the latents, steps shared by processes. Touches
`families`, the draws of `data`, the folders of `out`, `launch` and `sources`.
"""
