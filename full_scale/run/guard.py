"""What watches a long run: numbers that are not finite, signals that end it, and signs that a
student collapses.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import threading
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlib import Batch, Denoiser
from dlib.lora import LowRank, adapters
from dlib.nets import Told
from full_scale.data.draws import step_draws


OVER = b"\0"
"""No signal's number: the thread that answers them ends."""


class Stop:
    """Raised flags: SIGTERM (the machine wants its processors back), SIGUSR1 (SLURM's warning
    before the time limit) and SIGINT (Ctrl-C). After Ctrl-C, another one or SIGTERM ends the
    process at once.

    Handlers of Python's run between its own instructions, so not while torch waits for another
    process: that may take for ever. A thread answers Ctrl-C meanwhile.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    ENDS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, speaks: bool):
        self.asked, self.speaks = "", speaks

    def __enter__(self) -> Stop:
        self.before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        heard, self.bell = os.pipe()
        os.set_blocking(self.bell, False)
        self.other_bell = signal.set_wakeup_fd(self.bell)
        self.thread = threading.Thread(target=self._answer, args=(heard,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *what: object) -> None:
        signal.set_wakeup_fd(self.other_bell)
        os.write(self.bell, OVER)  # its end would not be heard: a forked child may hold it too
        self.thread.join()
        os.close(self.bell)
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.asked = signal.Signals(number).name

    def _answer(self, heard: int) -> None:
        """Say what the first Ctrl-C does, and leave the second to the system, or end here if
        that one was faster.
        """
        interrupted = False
        with open(heard, "rb", buffering=0) as signals:
            while (byte := signals.read(1)) != OVER:
                number = byte[0]
                if interrupted and number in self.ENDS:
                    os.kill(os.getpid(), number)
                elif number == signal.SIGINT:
                    interrupted = True
                    for each in self.ENDS:  # signal.signal is for the main thread
                        ctypes.pythonapi.PyOS_setsig(int(each), None)
                    self._say("this step is finished and saved; a second Ctrl-C ends at once")

    def _say(self, text: str) -> None:
        if self.speaks:
            os.write(2, f"\nfull_scale.train: Ctrl-C: {text}\n".encode())


def gradient_norm(weights: Sequence[nn.Parameter], clip: float) -> Tensor:
    """The norm of all gradients over all processes, a number that nobody has read yet; scales
    them down to `clip` if it is larger, and clip is not 0.
    """
    norm = nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    if clip:
        nn.utils.clip_grads_with_norm_(weights, clip, norm)
    return norm


FOLLOWED = 0.5
"""A trained network's relative error on its own target is far below this where signal and
noise are equal; on the other it is above.
"""


@torch.no_grad()
def check_target(model: Denoiser, batch: Batch) -> None:
    """Raise ValueError if a network on data answers with v where its weights say ε, or the
    other way round.

    Seen where α = σ, on noise that depends on nothing. A network that follows neither, as
    random weights do, passes.
    """
    level, noise = (
        model.schedule.at_lam(0.0),
        step_draws(0, 0, range(len(batch.x0))).normal(batch.x0),
    )
    raw = model(level.alpha * batch.x0 + level.sigma * noise, level, batch.cond).raw
    targets = {"eps": noise, "v": level.alpha * noise - level.sigma * batch.x0}
    off = {
        name: ((raw - target).square().mean() / target.square().mean()).item()
        for name, target in targets.items()
    }
    best = min(off, key=off.get)
    if model.predicts in off and best != model.predicts and off[best] < FOLLOWED:
        names = {"eps": "epsilon", "v": "v_prediction"}
        raise ValueError(
            f"the scheduler's configuration says prediction_type {names[model.predicts]}, but "
            "on these data the network answers with "
            f"{names[best]} (relative error {off[best]:.2g} against "
            f"{off[model.predicts]:.2g}): put prediction_type right in the weights' "
            "scheduler/scheduler_config.json"
        )


class Rule(NamedTuple):
    """An alarm: `metric` leaves [low, high] times the median of its first values."""

    metric: str
    low: float
    high: float
    meaning: str


RULES = (
    Rule(
        "student/spread",
        0.3,
        3.0,
        "the student's samples lose their variety, or blow up: look at the pictures, lower --lr",
    ),
    Rule(
        "fake/loss",
        0.0,
        5.0,
        "the fake score no longer follows the student: raise its learning rate or its steps",
    ),
    Rule(
        "student/drift", 0.0, 50.0, "the student leaves its teacher fast: lower --lr, or --clip"
    ),
    Rule(
        "student/reward_spread",
        0.1,
        math.inf,
        "all samples of a prompt get the same reward, so nothing is learnt, or the reward is "
        "hacked: look at the pictures",
    ),
)
BOTH = 2.0
"""An alarm of preferences: `student/better` above so many times its distance from
`student/worse`, medians of the last values, as many as an alarm's first ones. Then the errors on
winners and losers rise together. Above 0 alone says nothing: with the exact tilt it is there too.
For one Gaussian the tilt reaches 2 where the rewards of a pair differ by 8 (rms), so that no
judge is in doubt.
"""
FAR = {"student/kl": 0.05, "student/anchor": 1.0}
"""Alarms of rewards: a distance from the reference above so much for each of a sample's values,
in the median of the last `RECENT`. It begins at 0, so that a run's own first values say nothing.
`kl` is in nats, `anchor` the square of the velocities' difference. On the captioned shapes
students whom the judge likes stay below .015 and .6. Where half of the pictures that were right
are wrong, or all of them, kl is .5 and anchor 4.
"""
RECENT = 5


class Alarms:
    """Compares metrics with what they were at first, or with a bound; a rule speaks once, until
    its metric is back inside. values: how many a sample has.
    """

    def __init__(self, values: int, first: int = 20):
        self.values, self.first = values, first
        self.start, self.loud = defaultdict(list), set()
        self.last = deque(maxlen=first)
        self.recent = {metric: deque(maxlen=RECENT) for metric in FAR}

    def __call__(self, metrics: Mapping[str, float]) -> list[str]:
        """The alarms that these metrics raise, in words."""
        found = self._of_pairs(metrics) if "student/better" in metrics else []
        for metric in FAR.keys() & metrics.keys():
            found += self._of_distance(metric, metrics[metric])
        for rule in RULES:
            value, start = metrics.get(rule.metric), self.start[rule.metric]
            if value is None:
                continue
            if len(start) < self.first:
                start.append(value)
                continue
            usual = median(start)
            if not usual:
                continue  # a micro-batch of one has no spread
            if self._begins(rule, not rule.low * usual <= value <= rule.high * usual):
                found.append(
                    f"{rule.metric} is {value:.3g}, at first it was {usual:.3g}: {rule.meaning}"
                )
        return found

    def _begins(self, rule: Rule | str, out: bool) -> bool:
        """Whether what the rule watches was inside until now, and is out."""
        new = out and rule not in self.loud
        (self.loud.add if out else self.loud.discard)(rule)
        return new

    def _of_pairs(self, metrics: Mapping[str, float]) -> list[str]:
        better, worse = metrics["student/better"], metrics["student/worse"]
        self.last.append((better, worse - better))
        far, apart = map(median, zip(*self.last))
        out = len(self.last) == self.first and far > BOTH * max(apart, 0.0)
        text = (
            f"student/better is {far:.3g}, and student/worse only {apart:.3g} above it: the "
            "student gets worse on both pictures of the pairs: raise hyper.beta, or lower --lr"
        )
        return [text] if self._begins("pairs", out) else []

    def _of_distance(self, metric: str, value: float) -> list[str]:
        (recent := self.recent[metric]).append(value)
        usual, bound = median(recent), FAR[metric] * self.values
        text = (
            f"{metric} is {usual:.3g}, more than {FAR[metric]:g} for each of a sample's "
            f"{self.values} values: the student is far from its reference, and the reward may be "
            "hacked: look at the pictures, raise hyper.kl, or stop here"
        )
        out = len(recent) == RECENT and usual > bound
        return [text] if self._begins(metric, out) else []

    def remember(self, log: Path) -> None:
        """What a resumed run measured before: its own start stays what its numbers are
        compared with.
        """
        for line in log.read_text().splitlines():
            self(json.loads(line))


@torch.no_grad()
def moved(student: nn.Module, teacher: nn.Module | None) -> tuple[Tensor, Tensor]:
    """(‖θ − θ₀‖², ‖θ₀‖²) on this process: of a twin its adapters' products, of a full student
    all that it trains.
    """
    if adapters(student):
        layers = [layer for layer in student.modules() if isinstance(layer, LowRank)]
        factors = [
            (layer.lora_A.flatten(1), layer.lora_B.flatten(1), layer.lora_scale)
            for layer in layers
        ]
        # ‖BA‖² without the product
        parts = [scale**2 * ((b.T @ b) * (a @ a.T)).sum() for a, b, scale in factors]
        return torch.stack(parts).sum(), torch.stack(
            [layer.weight.float().square().sum() for layer in layers]
        ).sum()
    start = _named(teacher)
    both = [
        (_local(p).float(), _local(start[name]).float())
        for name, p in _named(student).items()
        if name in start
    ]
    return torch.stack([(p - q).square().sum() for p, q in both]).sum(), torch.stack(
        [q.square().sum() for _, q in both]
    ).sum()


def _named(net: nn.Module) -> dict[str, Tensor]:
    """Weights by name; those of a network inside a `Told` by the names that it has without."""
    told = [name for name, part in net.named_modules() if isinstance(part, Told)]
    found = dict(net.named_parameters())
    for place in told:
        found = {n.replace(f"{place}.net.", f"{place}.", 1): p for n, p in found.items()}
    return found


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
