"""Phased consistency in sixty updates on the captioned shapes: four calls of the student
against four guided ones of its teacher, which cost twice the evaluations.
"""

import torch

from dlib import Draw, guided, levels, sample
from dlib.recipes import pcm
from toy_data import distil, shape_batches, shapes_teacher
from toy_data.shape_captions import NULL_TOKENS, say, tokens
from toy_data.shape_reader import read, shows
from toy_data.shape_scores import asked, shapes_floor, shapes_frechet


def test_four_phases_beat_four_calls_of_the_guided_teacher():
    """A third of the Fréchet distance above the floor of real pictures is gone, and more
    captions are shown than by the teacher without guidance.
    """
    world, codes = shapes_teacher(), asked()
    text = tokens([say(tuple(code)) for code in codes.tolist()])
    made = pcm(world.schedule, NULL_TOKENS, omega=(2.0, 2.0))
    student = distil(made, world, world, shape_batches(32, seed=0, drop=0), 60, lr=3e-4)
    walk, noise = levels(world.schedule, 4, "pcm"), Draw(11).normal((len(codes), 3, 16, 16))
    with torch.no_grad():
        plain, steered, ours = (
            sample(model, noise, walk, cond=text)
            for model in (world, guided(world, 2.0, NULL_TOKENS), student)
        )
    far = lambda x: shapes_frechet(x, codes) - shapes_floor(codes)[0]
    told = lambda x: shows(read(x), codes).double().mean().item()
    assert far(ours) < 0.67 * far(steered) and told(ours) > told(plain)
