"""Every student of Part III at one budget, three seeds each, on GMM5 and on small pictures.

    python -m bench students --only CD --world gmm5

A cell is (method, world, seed). Each finished cell is kept at once in bench/results/
students.json, so that a run may be stopped anywhere and goes on where it stopped. A cell is
measured again when its setting has changed, whose `identity` it is stored under, or what its
losses compute, whose `fingerprint` it keeps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.report import RESULTS, Report, machine, write
from bench.students_report import SCORES, draw, reported
from dlib._util import require
from toy_data.student_prints import alike, fingerprint
from toy_data.student_scores import student_scores
from toy_data.student_settings import SETTINGS, Setting
from toy_data.student_training import SHIPPED, ship, trained

SEEDS, TINY = 3, 2
WORLDS = ("gmm5", "labelled", "digits", "shapes")


def run(
    folder: Path = RESULTS,
    only: Sequence[str] = (),
    worlds: Sequence[str] = WORLDS,
    seeds: int = SEEDS,
    tiny: bool = False,
    shipping: bool = False,
) -> Report | None:
    """Measure every cell that is missing or stale, the seeds one after the other; None if there
    was none.

    only, worlds: methods and worlds; all by default. tiny: two updates a student. shipping:
    write the students of seed 0 on points into toy_data. ValueError for an unknown name.
    """
    settings, cells = chosen(only, worlds, tiny), load(folder / "students.json")
    prints = {s.name: fingerprint(s) for s in settings}
    wanted = [(s, seed) for seed in range(seeds) for s in settings]
    fresh = lambda s, cell: cell is not None and alike(cell["fingerprint"], prints[s.name])
    todo = [(s, seed) for s, seed in wanted if not fresh(s, cells.get(key(s, seed)))]
    report = None
    for count, (setting, seed) in enumerate(todo, 1):
        cell = measured(setting, seed, tiny, shipping and not seed)
        cell |= {"fingerprint": prints[setting.name]}
        cells = load(folder / "students.json") | {key(setting, seed): cell}
        report = reported(cells.values())
        write(report, "students", folder)
        if report.picture:
            draw(cells.values(), folder)
        print(f"[{count}/{len(todo)}] {setting.name}, seed {seed}: {said(cell)}", flush=True)
    if not todo:
        print(
            f"students: all {len(wanted)} cells are there, set and computed as they would be now"
        )
    return report


def chosen(only: Sequence[str], worlds: Sequence[str], tiny: bool) -> list[Setting]:
    """The settings of these methods (all if there is none) in these worlds."""
    methods = list(dict.fromkeys(s.method for s in SETTINGS.values()))
    for names, known, what in ((only, methods, "method"), (worlds, WORLDS, "world")):
        unknown = [name for name in names if name not in known]
        require(not unknown, f"students: no {what} {unknown}; there are {', '.join(known)}")
    found = [s for s in SETTINGS.values() if s.world in worlds and (not only or s.method in only)]
    return [s.shorter(TINY) for s in found] if tiny else found


def measured(setting: Setting, seed: int, tiny: bool = False, shipping: bool = False) -> dict:
    """One cell: train the student, score it; processor seconds of the training."""
    start = time.process_time()
    student = trained(setting, seed)
    seconds = time.process_time() - start
    scores = student_scores(student, setting, n=200 if tiny else 10_000)
    scores = {name: float(f"{value:.4g}") for name, value in scores.items()}
    if shipping and setting in SHIPPED.values():
        ship(setting, student, scores)
    facts = dict(method=setting.method, world=setting.world, seed=seed, calls=setting.calls)
    stamp = dict(identity=setting.identity, machine=machine())
    return facts | {"cpu s": round(seconds, 1)} | scores | stamp


def key(setting: Setting, seed: int) -> tuple[str, str, int, str]:
    """What a cell is stored under."""
    return setting.world, setting.method, seed, setting.identity


def load(path: Path) -> dict[tuple, dict]:
    """The cells of a result that fit a setting that there is or a tiny one, by `key`."""
    if not path.exists():
        return {}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    every = [s for whole in SETTINGS.values() for s in (whole, whole.shorter(TINY))]
    current = {s.identity for s in every}
    named = {(c["world"], c["method"], c["seed"], c["identity"]): c for c in cells}
    return {name: cell for name, cell in named.items() if cell["identity"] in current}


def said(cell: dict) -> str:
    """One cell in a line of progress."""
    return ", ".join(f"{k} {cell[k]:.3g}" for k in (*SCORES, "cpu s") if k in cell)


def main(arguments: Sequence[str]) -> int:
    """`python -m bench students …`."""
    parser = argparse.ArgumentParser(prog="python -m bench students", description=__doc__)
    parser.add_argument("--only", nargs="+", default=(), help="these methods")
    parser.add_argument("--world", nargs="+", default=WORLDS, help=f"of {', '.join(WORLDS)}")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many (default: 3)")
    parser.add_argument("--tiny", action="store_true", help="two updates each, kept nowhere")
    parser.add_argument(
        "--ship", action="store_true", help="write the students of seed 0 on points to toy_data"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    how = dict(only=given.only, worlds=given.world, seeds=given.seeds)
    try:
        if given.tiny:
            with tempfile.TemporaryDirectory() as folder:
                report = run(Path(folder), tiny=True, **how)
        else:
            report = run(shipping=given.ship, **how)
    except ValueError as error:
        parser.error(str(error))
    if report is not None:
        print(report.table())
    return 0
