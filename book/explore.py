"""The figures of the page *Explore*, computed by `dlib`; the page only draws them.

    python -m book.explore        # writes book/pages/assets/explore-*.js and explore-*.png

Positions are stored as 16-bit integers and errors as bytes, so that a figure's file stays
below 300 kB; the errors that are shown as numbers are computed before rounding. A test
recomputes the files and compares. So nothing here may hang on a last bit, which processors
round differently: rounds end at a tolerance, and errors below it count as none.
"""

import base64
import io
import json
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch

import dlib
from dlib import NULL, Draw, exact, guided, metrics, plot, reference, walk
from dlib.parallel import iterations, sweeps
from dlib.solvers import ancestral, ddim, dpm_solver_pp_2m, euler, unipc_3
from toy_data import gmm5

ASSETS = Path(__file__).parent / "pages" / "assets"
REACH = 20.0  # 16-bit integers cover [−REACH, REACH]
SCHEDULES = {
    "variance preserving": dlib.vp(),
    "straight paths (flow)": dlib.flow(),
    "variance exploding (EDM)": dlib.edm(),
}
SOLVERS = {
    "Euler in t": euler,
    "DDIM": ddim,
    "DPM-Solver++(2M)": dpm_solver_pp_2m,
    "UniPC-3": unipc_3,
}
STEPS = (4, 6, 9, 14, 22)
GUIDANCE = {"none": None, "ω = 0, the label alone": 0.0, "ω = 1": 1.0, "ω = 3": 3.0}
POINTS, CALLS, SHOWN = 15, 40, 5
DIGITS = 10  # rounds go on until every point is within 10^−DIGITS of the sequential path
DECADE = 24  # bytes a power of ten: 0 is settled, 240 an error of one


def paths() -> dict:
    """PF-ODE trajectories of GMM5 for every choice of schedule, solver, steps and guidance, in
    x/√(α²+σ²), and their errors.
    """
    mixture, runs = gmm5(), []
    z = Draw(4).normal((POINTS, 2), torch.float64)
    label = torch.arange(POINTS) % len(mixture.means)
    for (s, schedule), (g, omega) in product(
        enumerate(SCHEDULES.values()), enumerate(GUIDANCE.values())
    ):
        model = (
            exact(mixture, schedule)
            if omega is None
            else guided(exact(mixture, schedule), omega, torch.tensor(NULL))
        )
        cond = None if omega is None else label
        ends = {
            "t_max": 0.999 if schedule.name == "flow" else 1.0,
            "t_min": schedule.at_lam(4.5).t,
        }
        top, bottom = schedule.at(ends["t_max"]), schedule.at(ends["t_min"])
        start = z * _size(top)
        truth = reference(model, start, top, bottom, cond, rtol=1e-10)
        for (k, solver), n in product(enumerate(SOLVERS.values()), STEPS):
            levels = dlib.levels(schedule, n, "arctan", **ends)
            states = torch.stack(
                [
                    state.x / _size(state.level)
                    for state in walk(model, start, levels, solver, cond)
                ]
            )
            error = metrics.rms(states[-1] * _size(bottom), truth)
            runs.append(
                {
                    "at": [s, k, STEPS.index(n), g],
                    "error": float(f"{error:.3g}"),
                    "path": _pack(states),
                }
            )
    choices = {
        "schedule": list(SCHEDULES),
        "solver": list(SOLVERS),
        "network calls": list(STEPS),
        "guidance": list(GUIDANCE),
    }
    return {
        "points": POINTS,
        "reach": REACH,
        "choices": choices,
        "means": mixture.means.tolist(),
        "stds": mixture.stds.tolist(),
        "modes": label.tolist(),
        "runs": runs,
    }


def _size(level: dlib.NoiseLevel) -> float:
    return (level.alpha**2 + level.sigma**2) ** 0.5


def relaxation() -> dict:
    """Picard and parareal on GMM5: after each round until all have settled, how far every
    point is from the sequential path, and where a few samples are.
    """
    model = exact(gmm5(), dlib.vp())
    levels = dlib.levels(model.schedule, CALLS, t_min=1e-2)
    x, runs = Draw(6).normal((16, 2), torch.float64), []
    for name, solver, rounds, at in _rounds(model, x, levels):
        truth = torch.stack([state.x for state in walk(model, x, levels, solver, draw=Draw(7))])[
            at
        ]
        gap = (rounds - truth).square().mean((2, 3)).sqrt()
        last = int((gap.amax(1) <= 10**-DIGITS).nonzero()[0])
        rounds, gap = rounds[: last + 1], gap[: last + 1]
        runs.append(
            {
                "name": name,
                "rounds": last,
                "at": at,
                "errors": _bytes((gap.log10() + DIGITS) * DECADE),
                "path": _pack(rounds[:, :, :SHOWN]),
                "truth": _pack(truth[:, :SHOWN]),
            }
        )
    return {
        "reach": REACH,
        "digits": DIGITS,
        "decade": DECADE,
        "calls": CALLS,
        "samples": SHOWN,
        "runs": runs,
    }


def _rounds(model: dlib.Denoiser, x: torch.Tensor, levels: list) -> Iterator[tuple]:
    """(name, solver, points after each round (rounds + 1, stops, B, 2), the steps they stand
    at).
    """
    every, tol = list(range(CALLS + 1)), 10**-DIGITS
    for name, solver, window in (
        ("Picard", ddim, None),
        ("Picard, window of 10", ddim, 10),
        ("Picard, with noise", ancestral, None),
    ):
        found = sweeps(model, x, levels, solver, window, tol=tol, draw=Draw(7))
        yield name, solver, torch.stack([torch.stack(sweep.points) for sweep in found]), every
    for blocks in (5, 8):
        found = list(iterations(model, x, levels, blocks=blocks, tol=tol))
        yield (
            f"parareal, {blocks} blocks",
            ddim,
            torch.stack([torch.stack(each.starts) for each in found]),
            found[0].edges,
        )


def _pack(values: torch.Tensor) -> str:
    """Coordinates as base64 of little-endian 16-bit integers."""
    whole = (values / REACH * 32767).round().clamp(-32767, 32767).short()
    return base64.b64encode(whole.numpy().astype("<i2").tobytes()).decode()


def _bytes(values: torch.Tensor) -> str:
    return base64.b64encode(values.round().clamp(0, 255).byte().numpy().tobytes()).decode()


def stills() -> dict:
    """The pictures that stand where a script cannot run, and in print."""
    mixture, schedule = gmm5(), dlib.vp()
    model, levels = exact(mixture, schedule), dlib.levels(schedule, CALLS, t_min=1e-2)
    z = Draw(4).normal((60, 2), torch.float64)
    path = torch.stack([state.x for state in walk(model, z, levels, unipc_3)])
    _, _, rounds, _ = next(_rounds(model, z, levels))
    truth = torch.stack([state.x for state in walk(model, z, levels)])
    gap = (rounds - truth).square().mean((2, 3)).sqrt()
    return {
        "paths": plot.trajectories(path, mixture.modes_of(path[-1], 1e9)),
        "relaxation": plot.sweeps({"Picard": gap}),
    }


def scripts() -> dict[str, str]:
    """Each figure's data file: a script that fills `window.exploreData`, so that it also loads
    from file://.
    """
    made = {"paths": paths(), "relaxation": relaxation()}
    return {
        name: "// Made by `python -m book.explore`; not to be edited.\n(window.exploreData "
        f"??= {{}}).{name} = {json.dumps(data)};\n"
        for name, data in made.items()
    }


def main() -> None:
    """Write every file, each at once."""
    for name, text in scripts().items():
        _replace(ASSETS / f"explore-{name}.js", text.encode())
    for name, figure in stills().items():
        _replace(ASSETS / f"explore-{name}.png", _png(figure))


def _png(figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    return file.getvalue()


def _replace(path: Path, content: bytes) -> None:
    half = path.with_suffix(".half")
    half.write_bytes(content)
    os.replace(half, path)
    print(f"{path.name}: {len(content) // 1000} kB")


if __name__ == "__main__":
    main()
