"""What leaves the house: folders of pictures, model cards, LoRA files, scores. Opens no run."""
