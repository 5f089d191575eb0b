"""The questions of assignment 13: a boundary, a loss and its gradient, skipped steps, phases,
and sampling with new noise.
"""

import numpy as np
import torch
from dlib import Draw

from book.questions import Case, Question, Verdict, q13_mistakes
from book.questions.judging import RIGHT, distance, malformed, recognise, wrong
from book.questions.problems import array, arrays, draw_problem, model_of, network_of, schedule_of

PRELUDE = """from book import check  # first: it also tells torch not to spin
import torch"""
ROWS, STEPS = 24, 12
PLACES = (0, 3, STEPS - 2)  # of the last one a skip of 5 would leave the grid
# (start, number of phases); 6 is itself an edge of 4
PHASES = ((0, 1), (0, 4), (5, 4), (6, 4), (2, 5), (7, 5), (11, 12))


def _levels(inputs: dict) -> list:
    schedule = schedule_of(inputs)
    return [schedule.at_lam(float(lam)) for lam in inputs["lams"]]


def _draw_path(seed: int) -> tuple[np.random.Generator, dict]:
    """A schedule with levels of unequal steps, and a batch of points."""
    rng = np.random.default_rng(seed)
    lams = np.cumsum(np.concatenate([[rng.uniform(-3, -2.5)], rng.uniform(0.2, 0.6, STEPS)]))
    inputs = {
        "beta": np.array([rng.uniform(0.05, 0.2), rng.uniform(15, 25)]),
        "lams": lams,
        "x": rng.normal(size=(ROWS, 2)),
    }
    return rng, inputs


# Q13.1: the boundary


def draw_boundary(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    low, sigma_d = rng.uniform(0.01, 0.1), rng.uniform(0.3, 0.8)
    kappa = np.concatenate([[low], low * np.exp(rng.uniform(0, 8, 20))])
    truth = q13_mistakes.scalings(kappa, low, sigma_d)
    inputs = {"kappa": kappa, "kappa_min": np.array(low), "sigma_d": np.array(sigma_d)}
    return Case(
        inputs, {"values": truth, "mistakes": q13_mistakes.of_boundary(kappa, low, sigma_d)}
    )


def run_boundary(answer, inputs, network) -> list:
    returned = answer(
        torch.tensor(inputs["kappa"]), float(inputs["kappa_min"]), float(inputs["sigma_d"])
    )
    return arrays(None) if returned is None else arrays(*returned)


def judge_boundary(case: Case, outputs: list, calls: float) -> Verdict:
    shape = case.inputs["kappa"].shape
    bad = malformed(outputs, ("c_skip", "c_out"), (shape, shape))
    if bad:
        return bad
    faults = []
    for name, value in zip(("c_skip", "c_out"), outputs):
        if distance(value, case.truth["values"][name]) > 1e-9:
            at_end = {"c_skip": 1.0, "c_out": 0.0}[name]
            hint = (
                f"at κ_min it is {value[0]:.3g}, wanted {at_end:g}"
                if abs(value[0] - at_end) > 1e-9
                else "right at κ_min, not beyond"
            )
            faults.append(f"{name}: {recognise(value, case.truth['mistakes'][name]) or hint}")
    return wrong(" · ".join(faults), 0.5 * (2 - len(faults))) if faults else RIGHT


# Q13.2: the loss and its gradient


def draw_loss(seed: int) -> Case:
    rng, inputs = _draw_path(seed)
    inputs |= {
        "inner": rng.normal(size=(3, 7)),
        "outer": rng.normal(size=(7, 2)),
        "place": np.array(rng.integers(STEPS - 1)),
    }
    made = {why: _with_gradient(answer, inputs) for why, answer in q13_mistakes.LOSSES.items()}
    value, gradient = made.pop("")
    mistakes = {why: found for why, (found, _) in made.items()}
    training = {why: found for why, (_, found) in made.items()}
    return Case(
        inputs, {"value": value, "gradient": gradient, "mistakes": mistakes, "training": training}
    )


def _with_gradient(answer, inputs: dict) -> tuple:
    """What an answer returns, and the gradient of its sum in the weights of the student (0 if
    autograd sees none of them).
    """
    inner, weights = (
        torch.tensor(inputs["inner"]),
        torch.tensor(inputs["outer"], requires_grad=True),
    )
    levels, place = _levels(inputs), int(inputs["place"])

    def f(x, level):
        return (
            torch.tanh(torch.cat([x, torch.full((len(x), 1), level.t, dtype=x.dtype)], 1) @ inner)
            @ weights
        )

    def step(x, a, b):
        eps = a.sigma * x / (0.36 * a.alpha**2 + a.sigma**2)  # the teacher of N(0, 0.6²)
        return b.alpha / a.alpha * (x - a.sigma * eps) + b.sigma * eps

    value = answer(f, step, torch.tensor(inputs["x"]), levels[place], levels[place + 1])
    if not (isinstance(value, torch.Tensor) and value.requires_grad):
        return value if value is None else array(value), np.zeros(weights.shape)
    return array(value), torch.autograd.grad(value.sum(), weights, materialize_grads=True)[
        0
    ].numpy()


def run_loss(answer, inputs, network) -> list:
    return arrays(*_with_gradient(answer, inputs))


def judge_loss(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs[:1], ("the loss",), ((ROWS,),))
    if bad:
        return bad
    off = distance(outputs[0], case.truth["value"])
    if off > 1e-9:
        why = (
            recognise(outputs[0], case.truth["mistakes"])
            or "compare f(x_a) at level a with f(x̂_b) at level b, where x̂_b is one step of "
            "the teacher"
        )
        return wrong(f"off by {off:.1e} (relative): {why}")
    if distance(outputs[1], case.truth["gradient"]) < 1e-9:
        return RIGHT
    why = (
        recognise(outputs[1], case.truth["training"])
        or "only the student's side, f at the noisier level, may pass a gradient on"
    )
    return wrong(
        f"the values are right, but not their gradient in the student's weights: {why}", 0.4
    )


# Q13.3: the guided, skipped step


def draw_skip(seed: int) -> Case:
    rng, inputs = _draw_path(seed)
    inputs |= {"eps": rng.normal(size=(2, ROWS, 2)), "omega": np.array(rng.uniform(1, 8))}
    truth = _skips(q13_mistakes.skip, inputs)
    return Case(
        inputs,
        {
            "values": truth,
            "mistakes": {
                why: np.stack(_skips(answer, inputs))
                for why, answer in q13_mistakes.SKIPS.items()
            },
        },
    )


def _skips(answer, inputs: dict) -> list:
    """The answer for every place, with a skip of 5; nan where it leaves the list of levels."""
    found = []
    for place in PLACES:
        try:
            found.append(
                answer(
                    torch.tensor(inputs["x"]),
                    *torch.tensor(inputs["eps"]),
                    _levels(inputs),
                    place,
                    5,
                    float(inputs["omega"]),
                )
            )
        except IndexError:
            found.append(torch.full((ROWS, 2), torch.nan))
    return arrays(*found)


def run_skip(answer, inputs, network) -> list:
    return _skips(answer, inputs)


def judge_skip(case: Case, outputs: list, calls: float) -> Verdict:
    truth = case.truth["values"]
    good = len(outputs) == len(truth) and all(value.shape == (ROWS, 2) for value in outputs)
    inside = good and all(
        distance(value, right) < 1e-9 for value, right in zip(outputs[:-1], truth)
    )
    if inside and distance(outputs[-1], truth[-1]) < 1e-9:
        return RIGHT
    if inside:
        return wrong(
            "right inside the grid. Two steps before its end a skip of 5 must stop at the last "
            "level, levels[-1]",
            0.5,
        )
    if good and any(np.isnan(value).all() for value in outputs[:-1]):
        return wrong(
            "i + k lies inside the list of levels here, but the answer left it: the step goes "
            "from levels[i] to levels[i + k], "
            "the noise first"
        )
    kept = len(truth) - bool(good and np.isnan(outputs[-1]).all())
    bad = malformed(outputs[:kept], [f"x̂ from level {i}" for i in PLACES], [(ROWS, 2)] * kept)
    if bad:
        return bad
    why = recognise(
        np.stack(outputs[:kept]),
        {why: found[:kept] for why, found in case.truth["mistakes"].items()},
    )
    return wrong(
        f"off by {distance(outputs[0], truth[0]):.1e} (relative): "
        f"{why or 'one DDIM step, α_b x₀ + σ_b ε, with x₀ and ε both of the guided ε'}"
    )


# Q13.4: edges and jumps


def draw_phase(seed: int) -> Case:
    rng, inputs = _draw_path(seed)
    inputs |= {"eps": rng.normal(size=(ROWS, 2))}
    mistakes = {
        why: np.stack(_jumps(answer, inputs)) for why, answer in q13_mistakes.JUMPS.items()
    }
    return Case(inputs, {"values": _jumps(q13_mistakes.phase_jump, inputs), "mistakes": mistakes})


def _jumps(answer, inputs: dict) -> list:
    return arrays(
        *(
            answer(torch.tensor(inputs["x"]), torch.tensor(inputs["eps"]), _levels(inputs), i, m)
            for i, m in PHASES
        )
    )


def run_phase(answer, inputs, network) -> list:
    return _jumps(answer, inputs)


def judge_phase(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(
        outputs, [f"x from place {i} of {m} phases" for i, m in PHASES], [(ROWS, 2)] * len(PHASES)
    )
    if bad:
        return bad
    truth = case.truth["values"]
    fails = [
        f"place {i}, {m} phase{'s' * (m > 1)}"
        for (i, m), value, right in zip(PHASES, outputs, truth)
        if distance(value, right) > 1e-9
    ]
    if not fails:
        return RIGHT
    why = recognise(np.stack(outputs), case.truth["mistakes"])
    hint = "write down by hand the edges of 12 steps and 4 phases: places 3, 6, 9 and 12"
    return wrong(f"wrong at {'; '.join(fails[:3])}{' …' * (len(fails) > 3)}: {why or hint}")


# Q13.5: sampling with new noise


def draw_sampling(seed: int) -> Case:
    rng, inputs, model = draw_problem(seed)
    lams = np.cumsum(np.concatenate([[-2.5], rng.uniform(0.5, 1.5, 3)]))
    draw, x = Draw(seed), torch.from_numpy(inputs["x"])
    inputs |= {
        "lams": lams,
        "noise": torch.stack([draw.normal(x) for _ in range(len(lams) - 1)]).numpy(),
    }
    levels, noise = _levels(inputs), torch.from_numpy(inputs["noise"])
    made = {
        why: array(answer(model, x, levels, noise))
        for why, answer in q13_mistakes.SAMPLERS.items()
    }
    return Case(inputs, {"value": made.pop(""), "mistakes": made}, network_of(model))


def run_sampling(answer, inputs, network) -> list:
    return arrays(
        answer(
            model_of(inputs, network),
            torch.tensor(inputs["x"]),
            _levels(inputs),
            torch.tensor(inputs["noise"]),
        )
    )


def judge_sampling(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs, ("the samples",), (case.inputs["x"].shape,))
    if bad:
        return bad
    off, wanted = distance(outputs[0], case.truth["value"]), len(case.inputs["lams"])
    if off < 1e-9:
        return (
            RIGHT
            if abs(calls - wanted) < 1e-9
            else wrong(
                f"right, but with {calls:g} network calls for {wanted} levels: one a level", 0.5
            )
        )
    why = recognise(outputs[0], case.truth["mistakes"])
    return wrong(
        f"off by {off:.1e} (relative): "
        f"{why or 'at each level: x₀ from one call, then α x₀ + σ z at the next one; after the last, x₀ itself'}"
    )


QUESTIONS = [
    Question("Q13.1", "boundary_scalings", 4, draw_boundary, run_boundary, judge_boundary),
    Question("Q13.2", "consistency_loss", 5, draw_loss, run_loss, judge_loss),
    Question("Q13.3", "skipped_step", 4, draw_skip, run_skip, judge_skip),
    Question("Q13.4", "phase_jump", 4, draw_phase, run_phase, judge_phase),
    Question("Q13.5", "consistency_sample", 3, draw_sampling, run_sampling, judge_sampling),
]
