"""How good a sampler of captioned shapes is: four numbers, each with what real pictures score.

accuracy: the share of pictures that show what their caption says. frechet: distance to the
pictures of the same captions. off, ink: root mean squares of the distance to the nearest
scene, and of the colours' distance to the inks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlib import Batch, Denoiser, Draw, denoising, guided, levels, metrics, sample
from dlib._util import require
from dlib.losses import uniform_times
from dlib.losses.weights import v
from toy_data.shape_captions import NULL_TOKENS, draw_codes, say, tokens
from toy_data.shape_reader import read, shows
from toy_data.shapes import SIDE, pictures

N = 512
OMEGAS, STEPS = (0.0, 1.0, 2.0, 4.0), (1, 2, 4, 8, 50)


def asked(n: int = N, seed: int = 1_000_000, held_out: bool = False) -> Tensor:
    """The codes (n, 7) of the captions that are asked for in a score."""
    return draw_codes(n, Draw(seed), held_out)


def draw_shapes(
    model: Denoiser,
    codes: Tensor,
    omega: float,
    steps: int,
    seed: int = 0,
    spacing: str = "sd_trailing",
) -> Tensor:
    """One picture for each code: DDIM with guidance ω. (n, 3, 16, 16)."""
    text = tokens([say(tuple(code)) for code in codes.tolist()])
    model = guided(model, omega, NULL_TOKENS) if omega else model
    walk, draw = levels(model.schedule, steps, spacing), Draw(seed)
    with torch.no_grad():
        return torch.cat(
            [
                sample(model, draw.normal((len(part), 3, SIDE, SIDE)), walk, cond=part)
                for part in text.split(64)
            ]
        )


def features(x: Tensor) -> Tensor:
    """What the Fréchet distance is taken on: mean colour and mean size of the slope in each of
    4×4 patches. (n, 64).
    """
    slope = (x[..., 1:, :-1] - x[..., :-1, :-1]).square() + (
        x[..., :-1, 1:] - x[..., :-1, :-1]
    ).square()
    slope = torch.nn.functional.pad(slope.sum(1, keepdim=True).sqrt(), (0, 1, 0, 1))
    return torch.nn.functional.avg_pool2d(torch.cat([x, slope], 1), 4).flatten(1)


def shapes_frechet(x: Tensor, codes: Tensor) -> float:
    """Fréchet distance of x, drawn for these codes, to N real pictures of the same captions,
    on `features`.

    At this one N only: the distance is biased by about 1/N. Compare it with `shapes_floor`.
    """
    require(
        len(x) == len(codes) == N,
        f"shapes_frechet: {len(x)} pictures for {len(codes)} codes, wanted {N}: draw one for "
        "each of asked()",
    )
    return metrics.frechet(features(x), features(pictures(codes, Draw(2_000_000))))


def shapes_floor(codes: Tensor) -> tuple[float, float]:
    """(mean, standard deviation) of `shapes_frechet` over five sets of real pictures of the
    same captions: quick, within about .005 of the mean of many. The bench takes sixteen.
    """
    values = torch.tensor(
        [shapes_frechet(pictures(codes, Draw(3_000_000 + k)), codes) for k in range(5)],
        dtype=torch.float64,
    )
    return values.mean().item(), values.std().item()


def scores(x: Tensor, codes: Tensor) -> dict[str, float]:
    """The four numbers of pictures x drawn for the N codes.

    >>> codes = asked()
    >>> real = scores(pictures(codes, Draw(0)), codes)
    >>> real["accuracy"], round(real["frechet"], 1)
    (1.0, 0.1)
    """
    seen = read(x)
    return {
        "accuracy": shows(seen, codes).double().mean().item(),
        "frechet": shapes_frechet(x, codes),
        "off": seen.off.square().mean().sqrt().item(),
        "ink": seen.ink.square().mean().sqrt().item(),
    }


def variety(model: Denoiser, omega: float = 0.0, steps: int = 1) -> float:
    """How much the pictures of one caption differ, relative to real ones: 1 for a fair
    sampler, 0 for one picture a caption.

    The variance over 32 noises of each value of a picture, summed over its values and over 16
    captions.
    """
    codes = asked(16).repeat_interleave(32, 0)
    within = lambda x: x.unflatten(0, (16, 32)).var(1).sum().item()
    return within(draw_shapes(model, codes, omega, steps)) / within(
        pictures(codes, Draw(2_000_000))
    )


@torch.no_grad()
def denoising_loss(model: Denoiser, codes: Tensor, noises: int = 4) -> float:
    """The training loss (weight v, t uniform) on real pictures of these captions, with fixed
    draws.
    """
    codes = codes.repeat_interleave(noises, 0)
    text = tokens([say(tuple(code)) for code in codes.tolist()])
    batch = Batch(pictures(codes, Draw(4_000_000)), text)
    return denoising(
        model, batch, Draw(5_000_000), v, uniform_times(model.schedule.t_min)
    ).value.item()


def teacher_scores(teacher: Denoiser) -> dict:
    """Everything the shipped teacher states about itself, from fixed seeds: about two minutes
    on one core.
    """
    codes, pairs, held = asked(), asked()[asked()[:, 0] > 0], asked(held_out=True)
    floor, spread = shapes_floor(codes)
    accuracy = {
        name: shows(read(draw_shapes(teacher, some, 2.0, 25)), some).double().mean().item()
        for name, some in (("pairs", pairs), ("pairs never shown together", held))
    }
    return {
        "sampler": "ddim, grid sd_trailing",
        "n": N,
        "loss": denoising_loss(teacher, codes),
        "loss held out": denoising_loss(teacher, held),
        "accuracy at omega 2, 25 steps": accuracy,
        "real": scores(pictures(codes, Draw(3_000_000)), codes)
        | {"frechet": floor, "frechet_std": spread},
        **{
            f"omega {omega:g}": {
                f"{n} steps": scores(draw_shapes(teacher, codes, omega, n), codes) for n in STEPS
            }
            for omega in OMEGAS
        },
    }
