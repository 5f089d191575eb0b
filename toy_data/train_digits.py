"""Train the digits classifier and the digits teacher, and write them beside this file with
what they scored.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 python -m toy_data.train_digits

From scratch, and deterministic by SEED on one machine and torch version. The held-out loss of
the averaged weights falls for about 16 000 steps, is flat from there on and would then rise:
the training stops where it is flat. The pictures are used as they are: a shifted copy is no
digit of this data set, where every digit fills the frame.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from tqdm import tqdm

from dlib import Batch, Cast, Denoiser, Draw, Ema, Loss, Part, Phase, Recipe, Roles
from dlib import denoising, perform
from dlib.losses import uniform_times
from dlib.losses.weights import v
from toy_data import weights
from toy_data.digit_scores import denoising_loss, teacher_scores
from toy_data.digits import (
    CLASSIFIER,
    TEACHER,
    Classifier,
    digit_batches,
    digits_split,
    new_teacher,
)

SEED = 0
BATCH = 128
CLASSIFIER_STEPS, TEACHER_STEPS = 1_500, 16_000


def train_classifier(steps: int, seed: int) -> Classifier:
    """Cross-entropy on the training pictures."""
    net = seeded(Classifier, seed)
    optim = _adamw(net)
    phase = Phase(
        "classifier", lambda roles, batch, draw: cross_entropy(roles["classifier"], batch)
    )
    recipe = Recipe((phase,), {"classifier": Part("copy")})
    with tqdm(total=steps, desc="classifier") as bar:
        perform(
            recipe,
            Cast(Roles(classifier=net)),
            {"classifier": optim},
            digit_batches(BATCH, seed, drop=0.0),
            steps,
            Draw(seed),
            each=lambda step, metrics: bar.update(),
        )
    return net.eval().requires_grad_(False)


def cross_entropy(net: nn.Module, batch: Batch) -> Loss:
    """Mean −log p(label | picture), in nats."""
    value = nn.functional.cross_entropy(net(batch.x0), batch.cond)
    return Loss(value, {"loss": value.detach()})


def train_teacher(steps: int, seed: int) -> Denoiser:
    """The denoising loss on v with a warm-up and a cosine to zero. Returns the averaged
    weights, frozen.
    """
    live = seeded(new_teacher, seed)
    ema, optim = Ema(live.net), _adamw(live.net)
    mean = replace(live, net=ema.net)
    rate = torch.optim.lr_scheduler.LambdaLR(optim, lambda step: warm_cosine(step, steps))
    phase = Phase(
        "teacher",
        lambda roles, batch, draw: denoising(roles["teacher"], batch, draw, v, uniform_times()),
    )
    with tqdm(total=steps, desc="teacher") as bar:

        def each(step: int, metrics: dict) -> None:
            rate.step()
            bar.update()
            if step % 1000 == 999:
                bar.write(
                    f"step {step + 1}: held-out loss "
                    f"{denoising_loss(mean, digits_split()[1], noises=20):.3f}"
                )

        recipe = Recipe((phase,), {"teacher": Part("copy")})
        cast = Cast(Roles(teacher=live), {"ema": ("teacher", ema)})
        batches = digit_batches(BATCH, seed)
        perform(recipe, cast, {"teacher": optim}, batches, steps, Draw(seed), each)
    ema.net.eval()
    return mean


def warm_cosine(step: int, steps: int) -> float:
    """Factor on the learning rate: up over the first 1/32 of the steps, then half a cosine
    down to 0.
    """
    return min(1.0, (step + 1) * 32 / steps) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _adamw(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)


def seeded(build: Callable, seed: int):
    """What `build` returns under torch's random state `seed`, which is put back."""
    with torch.random.fork_rng(devices=[]):  # leave the caller's random state alone
        torch.manual_seed(seed)
        return build()


def main() -> None:
    torch.set_num_threads(1)
    start = time.perf_counter()
    classifier = train_classifier(CLASSIFIER_STEPS, SEED)
    teacher = train_teacher(TEACHER_STEPS, SEED)
    scores = teacher_scores(teacher, classifier)
    paths = (
        weights.write(
            "digits_classifier",
            classifier,
            {
                "architecture": CLASSIFIER,
                "steps": CLASSIFIER_STEPS,
                "seed": SEED,
                "scores": {"accuracy": scores["real"]["accuracy"]},
            },
        ),
        weights.write(
            "digits_teacher",
            teacher.net,
            {"architecture": TEACHER, "steps": TEACHER_STEPS, "seed": SEED, "scores": scores},
        ),
    )
    print(json.dumps(scores, indent=1))
    for path in paths:
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
