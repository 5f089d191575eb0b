"""The paths that the home page animates, computed by `dlib`; the page only draws them.

    python -m book.play        # writes book/pages/assets/play-data.js

Noise is carried to GMM5 by two solvers with several step counts. Positions are stored as
16-bit integers, so the file stays small; the errors beside them are computed before rounding.
A test recomputes the file and compares.
"""

import base64
import json
import os
from pathlib import Path

import torch

import dlib
from dlib import Draw, exact, metrics, reference, solvers, vp, walk
from toy_data import gmm5

FILE = Path(__file__).parent / "pages" / "assets" / "play-data.js"
SOLVERS = {"DDIM, order 1": solvers.ddim, "DPM-Solver++(2M), order 2": solvers.dpm_solver_pp_2m}
STEPS = (4, 6, 8, 10, 12, 16, 20, 24)
POINTS, REACH = 150, 4.0  # 16-bit integers cover [−REACH, REACH]


def data() -> dict:
    """Everything the page draws: the modes, each start's mode, and for each solver and step
    count its error and paths.
    """
    mixture, schedule = gmm5(), vp()
    model = exact(mixture, schedule)
    x = Draw(8).normal((POINTS, 2), torch.float64)
    levels = {n: dlib.levels(schedule, n, t_min=1e-2) for n in STEPS}
    truth = reference(model, x, levels[4][0], levels[4][-1])
    runs = []
    for name, solver in SOLVERS.items():
        for n in STEPS:
            path = torch.stack([state.x for state in walk(model, x, levels[n], solver)])
            runs.append(
                {
                    "solver": name,
                    "steps": n,
                    "error": round(metrics.rms(path[-1], truth), 4),
                    "path": _pack(path),
                }
            )
    return {
        "points": POINTS,
        "reach": REACH,
        "means": mixture.means.tolist(),
        "stds": mixture.stds.tolist(),
        "modes": (truth[:, None] - mixture.means).norm(dim=2).argmin(1).tolist(),
        "runs": runs,
    }


def _pack(path: torch.Tensor) -> str:
    """(steps + 1, points, 2) as base64 of little-endian 16-bit integers."""
    whole = (path / REACH * 32767).round().clamp(-32767, 32767).short()
    return base64.b64encode(whole.numpy().astype("<i2").tobytes()).decode()


def text() -> str:
    """The file's content: a script that sets `window.playData`, so that it also loads from
    file://.
    """
    return (
        "// Made by `python -m book.play`; not to be edited.\nwindow.playData = "
        f"{json.dumps(data())};\n"
    )


if __name__ == "__main__":
    half = FILE.with_suffix(".half")
    half.write_text(text(), encoding="utf-8")
    os.replace(half, FILE)
    print(f"{FILE.name}: {FILE.stat().st_size // 1000} kB")
