"""The students' table and picture, from the cells that were measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from bench.report import Report
from dlib import plot
from toy_data.digits import digits_facts
from toy_data.shapes import shapes_facts
from toy_data.student_settings import SETTINGS

SCORES = ("ratio", "paired", "d", "none", "rms", "frechet", "right")
BARS = {"ratio": 1.1, "d": 0.5, "none": 0.035, "rms": 0.05}
TRAJECTORY = ("knowledge", "progressive", "CD", "LCM", "TCD", "sCD")
PICTURE = """Of every student on GMM5 the ratio, the distance d, the share in no mode and the RMS,
with two standard errors; dashed is what was asked of the best student of one call."""
NOTE = """Students at one budget: {points:.0f} processor seconds on points and {pictures:.0f} on
pictures (medians of what was measured on a core that other programs used too; what is fixed is
each setting's number of updates, so that a student is the same on every machine). The settings
are those of `toy_data/student_settings.py`; a hash of all that decides a
student stands in the JSON. Means over three seeds; the picture has two standard errors.

On GMM5 the schedule is VP, the student an MLP of width 96 and depth 2 that predicts v. *ratio*:
mean sliced Wasserstein distance of eight fixed pairs of 10 000 samples to exact ones, over the
sampling floor (.0319); *paired*: the same over the score of the exact flow on these pairs;
*d*: the distance of 20 000 samples to the exact flow's ends of the same noise, over the floor;
*none*: the share in no mode (exact: 1.1 %); *RMS*: to these ends. On pictures *ratio* is the
Fréchet distance over the mean of sixteen draws of its floor (1 is real pictures), *right*: the
share read as what was asked for. The guided student on points has its own score: the RMS to
the ends of the flow guided at ω = 2, in 8 calls.

{verdict}

Why students fall short. LCM, PCM and TCD learn their teacher's walk, and the perfect teacher's
fifty DDIM steps leave a d of .69 (chapter 14 measures it); TCD, which is not told where it
jumps, pays for every jump with one answer. Progressive distillation starts from 64 DDIM steps,
which leave .47, and its six rounds share the budget. CD stands at the edge of its bars. What
learns from single samples (CT, iCT, ECT, sCT) has the scatter of its target; iCT, sCD, sCT and
IMM have no average of it, which CT has. ECT and SCT begin with steps that end at
the data, whose answer is a mean: 2800 updates do not undo it, though the last stage alone
would narrow Gaussian data by 2 % only (C16.16). So SCT's recipe has to be compared with ECT,
and its target with CT on the ladder that both climb: *CT, SCT's target*. Short probes of wider
laws of noise and of more stages did not help ECT, and made sCD worse.

On pictures all students, those of CT, iCT and sCT too, start as the teacher, whose own Fréchet
distances over their floors are {digits:.1f} in 20 calls on digits, {slow:.1f} in 50 calls and
{once:.1f} in one on shapes. IMM destroys the student that it is
given: its groups of four rows hold different captions, and its target has no average. It is
left as it was set."""


def reported(cells: Iterable[dict]) -> Report:
    """The table: a row a method and world, in the settings' order."""
    order = list(SETTINGS)
    place = lambda cell: (order.index(f"{cell['world']}/{cell['method']}"), cell["seed"])
    cells, rows = sorted(cells, key=place), []
    for (world, method), group in grouped(cells).items():
        scores = {name: middle([cell.get(name) for cell in group]) for name in SCORES}
        far = scores["ratio"] if scores["ratio"] != "–" else scores["frechet"]
        shown = [far, *(scores[name] for name in ("d", "none", "rms", "right"))]
        rows.append([f"{world}: {method}", *shown])
    seconds = lambda *names: median([c["cpu s"] for c in cells if c["world"] in names] or [0.0])
    note = NOTE.format(
        points=seconds("gmm5"),
        pictures=seconds("digits", "shapes"),
        verdict=verdict(cells),
        **teachers(),
    )
    head = ["student", "ratio", "d", "none", "RMS", "right"]
    points = any(cell["world"] == "gmm5" for cell in cells)
    return Report("Students at one budget", note, head, rows, cells, PICTURE if points else None)


def teachers() -> dict[str, float]:
    """What the shipped teachers of pictures state: Fréchet distances over their floors."""
    digits, shapes = digits_facts()["scores"], shapes_facts()["scores"]
    walked = lambda name: shapes["omega 0"][name]["frechet"] / shapes["real"]["frechet"]
    return {
        "digits": digits["omega 0"]["frechet"] / digits["real"]["frechet"],
        "slow": walked("50 steps"),
        "once": walked("1 steps"),
    }


def grouped(cells: Iterable[dict]) -> dict[tuple[str, str], list[dict]]:
    """(world, method) ↦ its cells."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for cell in cells:
        groups.setdefault((cell["world"], cell["method"]), []).append(cell)
    return groups


def mean_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean of the seeds, and two standard errors; 0 of one seed.

    >>> mean, error = mean_error([1.0, 1.2, 1.4])  # 2 · 0.2/√3
    >>> round(mean, 3), round(error, 3)
    (1.2, 0.231)
    """
    found = torch.tensor(values, dtype=torch.float64)
    error = 2 * found.std().item() / len(values) ** 0.5 if len(values) > 1 else 0.0
    return found.mean().item(), error


def spread(values: Sequence[float | None]) -> str:
    """ "mean ± two standard errors", the mean alone of one seed, a dash where a score means
    nothing.
    """
    if None in values:
        return "–"
    mean, error = mean_error(values)
    return f"{mean:.3f} ± {error:.3f}" if len(values) > 1 else f"{mean:.3f}"


def middle(values: Sequence[float | None]) -> str:
    """The mean alone, as the table has it: with errors it would be wider than a page."""
    return "–" if None in values else f"{mean_error(values)[0]:.3g}"


def median(values: Sequence[float]) -> float:
    """Of a few numbers."""
    return torch.tensor(values, dtype=torch.float64).quantile(0.5).item()


def verdict(cells: Iterable[dict]) -> str:
    """What was asked of the students on GMM5, and whether it was reached: the student of one
    call with the least d, and SCT and its target against CT, on pictures too. Nothing where
    not measured.
    """
    found = {method: group for (w, method), group in grouped(cells).items() if w == "gmm5"}
    mean = lambda method, score: mean_error([c[score] for c in found[method]])
    lines, best = [], [name for name in TRAJECTORY if name in found]
    if best:
        first = min(best, key=lambda name: mean(name, "d")[0])
        said = []
        for score, bar in BARS.items():
            values = [cell[score] for cell in found[first]]
            value = mean_error(values)[0]
            reached = "reached" if value <= bar else "**missed**"
            said.append(f"{score} {spread(values)} (asked: {bar:g}; {reached})")
        lines.append(f"The best trajectory student of one call is {first}: {', '.join(said)}.")
    for name in ("CT, SCT's target", "SCT"):
        if not {name, "CT"} <= set(found):
            continue
        lines.append(_compared(name, found[name], found["CT"], "d"))
    for world in ("digits", "shapes"):
        of = {method: group for (w, method), group in grouped(cells).items() if w == world}
        if {"SCT", "CT"} <= set(of):
            lines.append(_compared(f"On {world} SCT", of["SCT"], of["CT"], "frechet"))
    return " ".join(lines)


def _compared(name: str, one: Sequence[dict], other: Sequence[dict], score: str) -> str:
    """Whether a student's score is below CT's by more than both errors: a sentence."""
    ours, plain = ([cell[score] for cell in group] for group in (one, other))
    (low, a), (high, b) = mean_error(ours), mean_error(plain)
    better = "clearly better" if low + a < high - b else "**not** clearly better"
    if min(len(ours), len(plain)) < 2:
        better = "not yet comparable, with one seed,"
    than = "than" if "better" in better else "to"
    said = {"d": "d", "frechet": "ratio"}[score]
    return f"{name} is {better} {than} CT: {said} {spread(ours)} against {spread(plain)}."


def draw(cells: Iterable[dict], folder: Path) -> Path:
    """Write students.png: every method on GMM5, a panel a score; whole or not at all."""
    found = {method: group for (w, method), group in grouped(cells).items() if w == "gmm5"}
    panels = {
        score: {
            method: mean_error([cell[score] for cell in group])
            for method, group in found.items()
            if score in group[0]
        }
        for score in BARS
    }
    figure = plot.scores(panels, BARS)
    path, part = folder / "students.png", folder / "students.png.part"
    try:
        figure.savefig(part, format="png", dpi=150, metadata={"Software": None})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
