"""What leaves the house: folders of pictures, model cards, LoRA files, scores; it opens no
run. Touches `families`, for their names and kinds, `rewards`, which score too, and `sources`.
"""
