"""A request for pictures: what may be asked, the latents, steps shared by processes."""
