"""The students' table and picture, from the cells that were measured."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from bench.report import Report
from dlib import plot
from toy_data.digits import digits_facts
from toy_data.shapes import shapes_facts
from toy_data.student_scores import picture_floor
from toy_data.student_settings import SETTINGS

SCORES = ("ratio", "paired", "d", "none", "rms", "frechet", "right")
TENTH = "knowledge, a tenth"  # which has a tenth of the budget on purpose
BARS = {"ratio": 1.1, "d": 0.5, "none": 0.035, "rms": 0.05}
TRAJECTORY = ("knowledge", "progressive", "CD", "LCM", "TCD", "sCD")
PICTURE = """Of every student on GMM5 the ratio, the distance d, the share in no mode and the RMS,
with two standard errors; dashed is what was asked of the best student of one call."""
NOTE = """Students at about one budget: {points:.0f} processor seconds on points and
{pictures:.0f} on pictures. These are medians; {least:.0f} to {most:.0f} were measured on points,
on a core that other programs used too, so budgets are equal within that and no better. What is
fixed is each setting's number of updates, so that a student is the same on every machine. The
settings are those of `toy_data/student_settings.py`; the JSON has a hash of all that is set and,
halfway through every round, what the loss says and how long its gradient is, so that a cell is
known to be of today's losses (`toy_data/student_prints.py`). Means over three seeds, ± two
standard errors.

On GMM5 the schedule is VP, the student an MLP of width 96 and depth 2 that predicts v. *ratio*:
mean sliced Wasserstein distance of eight fixed pairs of 10 000 samples to exact ones, over the
sampling floor (.0319); *paired*: the same over the score of the exact flow on these pairs;
*d*: the distance of 20 000 samples to the exact flow's ends of the same noise, over the floor;
*none*: the share in no mode (exact: 1.1 %); *RMS*: to these ends. On pictures *ratio* is the
Fréchet distance over the mean of sixteen draws of its floor (1 is real pictures), *right*: the
share read as what was asked for; a student that is told ω is told 0. The guided student on
points has its own score: the RMS to the ends of the flow guided at ω = 2, in 8 calls.

{verdict}

Why students fall short. CD needs its updates: with 2300, a fifth fewer, it missed three of the
four bars (d .52, none 3.7 %, RMS .051). LCM, PCM and TCD learn their teacher's walk, and the
perfect teacher's fifty DDIM steps leave a d of about .7 (chapter 14 measures it); TCD, which is
not told where it jumps, pays for every jump with one answer. Progressive distillation starts from
64 DDIM steps, which leave .47, and its six rounds share the budget. What learns from single
samples (CT, iCT, ECT, sCT) has the scatter of its target; iCT, sCT and IMM have no average of it,
which CT has. sCD has a perfect teacher; why it stays where it does is not known. ECT and SCT
begin with steps that end at the data, whose answer is a mean: 2800 updates do not undo it, though
the last stage alone would narrow Gaussian data by 2 % only (C16.16). So SCT's recipe, which on
points has half of ECT's batch, has to be compared with ECT, and its target with CT on the ladder
that both climb: *CT, SCT's target*. *knowledge, a tenth* has a sixteenth of the pairs, a seventh
of the updates and half the batch, and shows what all three are worth together. On shapes a
caption seldom comes twice, so SCT has few references there and is ECT. Short probes of wider laws
of noise and of more stages did not help ECT, and made sCD worse. IMM measures distances in the
unit of each jump: without it two of its three students on points had a d of 7 and 14, the third
diverged, and digits came out at 98.

On pictures all students, those of CT, iCT and sCT too, start as the teacher, whose own Fréchet
distances over their floors are {digits:.1f} in 20 calls on digits, {slow:.1f} in 50 calls and
{once:.1f} in one on shapes. A guided student has to learn what ω means from nothing, and a few
hundred updates are too few for it."""


def reported(cells: Iterable[dict]) -> Report:
    """The table: a row a method and world, in the settings' order."""
    order = list(SETTINGS)
    place = lambda cell: (order.index(f"{cell['world']}/{cell['method']}"), cell["seed"])
    cells, rows = sorted(cells, key=place), []
    for (world, method), group in grouped(cells).items():
        scores = {name: [cell.get(name) for cell in group] for name in SCORES}
        far = scores["frechet"] if None in scores["ratio"] else scores["ratio"]
        shares = {name: percent(scores[name]) for name in ("none", "right")}
        each = [far, scores["paired"], scores["d"], shares["none"], scores["rms"]]
        rows.append([f"{world}: {method}", *map(rounded, [*each, shares["right"]])])
    whole = [c for c in cells if c["method"] != TENTH]
    seconds = lambda *names: [c["cpu s"] for c in whole if c["world"] in names] or [0.0]
    note = NOTE.format(
        points=median(seconds("gmm5")),
        least=min(seconds("gmm5")),
        most=max(seconds("gmm5")),
        pictures=median(seconds("digits", "shapes")),
        verdict=verdict(cells),
        **teachers(),
    )
    head = ["student", "ratio", "paired", "d", "none %", "RMS", "right %"]
    points = any(cell["world"] == "gmm5" for cell in cells)
    return Report("Students at one budget", note, head, rows, cells, PICTURE if points else None)


def teachers() -> dict[str, float]:
    """The Fréchet distances that the shipped teachers of pictures state, over the students' own
    floors.
    """
    digits, shapes = (facts()["scores"]["omega 0"] for facts in (digits_facts, shapes_facts))
    walked = lambda name: shapes[name]["frechet"] / picture_floor("shapes")[0]
    return {
        "digits": digits["frechet"] / picture_floor("digits")[0],
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


def percent(shares: Sequence[float | None]) -> list[float | None]:
    """Of a hundred."""
    return [None if share is None else 100 * share for share in shares]


def rounded(values: Sequence[float | None]) -> str:
    """As `spread`, to the first digit of the error, as a table has room for; ± 0 where the seeds
    agree in every digit that a cell keeps.

    >>> rounded([1.0, 1.2, 1.4]), rounded([2.0, 2.0, 2.0]), rounded([0.5]), rounded([None])
    ('1.2 ± 0.2', '2 ± 0', '0.5', '–')
    """
    if None in values:
        return "–"
    mean, error = mean_error(values)
    if not error:
        return f"{mean:.3g} ± 0" if len(values) > 1 else f"{mean:.3g}"
    digits = max(0, -math.floor(math.log10(float(f"{error:.0e}"))))
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def median(values: Sequence[float]) -> float:
    """Of a few numbers."""
    return torch.tensor(values, dtype=torch.float64).quantile(0.5).item()


def verdict(cells: Iterable[dict]) -> str:
    """What was asked of the students on GMM5, and whether the student of one call with the
    least d reached it, and CD; SCT and its target against CT and ECT, on pictures too; what a
    guided student of pictures makes of its ω. Nothing where not measured.
    """
    groups = grouped(cells)
    of = lambda world: {method: group for (w, method), group in groups.items() if w == world}
    points, lines = of("gmm5"), []
    best = [name for name in TRAJECTORY if name in points]
    if best:
        first = min(best, key=lambda name: mean_error([c["d"] for c in points[name]])[0])
        lines.append(
            f"The best trajectory student of one call is {first}: {_bars(points[first])}."
        )
        if first != "CD" and "CD" in points:
            lines.append(f"CD: {_bars(points['CD'])}.")
    pairs = [("CT, SCT's target", "CT"), ("SCT", "CT"), ("SCT", "ECT")]
    lines += _compared("", points, "d", pairs)
    for world in ("digits", "shapes"):
        lines += _compared(f"On {world} ", of(world), "frechet", pairs)
        if "guided" in of(world):
            lines.append(_hears(world, of(world)["guided"]))
    return " ".join(lines)


def _bars(group: Sequence[dict]) -> str:
    """Each score of a student, what was asked, and whether it is reached."""
    said = []
    for score, bar in BARS.items():
        values = [cell[score] for cell in group]
        reached = "reached" if mean_error(values)[0] <= bar else "**missed**"
        said.append(f"{score} {spread(values)} (asked: {bar:g}; {reached})")
    return ", ".join(said)


def _compared(
    where: str, found: Mapping[str, Sequence[dict]], score: str, pairs: Iterable[tuple[str, str]]
) -> list[str]:
    """Of each pair whether the first student's score is below the second's by more than both
    errors: sentences.
    """
    lines = []
    for name, other in pairs:
        if not {name, other} <= set(found):
            continue
        ours, plain = ([cell[score] for cell in found[method]] for method in (name, other))
        (low, a), (high, b) = mean_error(ours), mean_error(plain)
        better = "clearly better" if low + a < high - b else "**not** clearly better"
        better = "clearly worse" if low - a > high + b else better
        if min(len(ours), len(plain)) < 2:
            better = "not yet comparable, with one seed,"
        than = "to" if "comparable" in better else "than"
        said = {"d": "d", "frechet": "ratio"}[score]
        lines.append(
            f"{where}{name} is {better} {than} {other}: {said} {spread(ours)} against "
            f"{spread(plain)}."
        )
    return lines


def _hears(world: str, group: Sequence[dict]) -> str:
    """A guided student of pictures beside its guided teacher, at both ω."""
    mean = lambda name: mean_error([cell[name] for cell in group])[0]
    two = lambda who, score: (mean(f"{who}{score}"), mean(f"{who}{score} at 4"))
    said = []
    for who in ("", "teacher "):
        (far, farther), (right, more) = two(who, "frechet"), two(who, "right")
        said.append(f"ratio {far:.2f} and {farther:.2f}, {right:.1%} and {more:.1%} right")
    return (
        f"On {world} the guided student, told ω = 0 and ω = 4, has {said[0]}; its guided teacher "
        f"in as many steps {said[1]}."
    )


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
