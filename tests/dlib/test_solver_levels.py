"""One step, many uses: floats or tensors as levels, any dtype, any shape, both singular ends,
gradients, no stalls.
"""

import pytest
import torch
from truth import F64, SCHEDULES, appendix_a, errors, exact_flow, normals, per_row

from dlib import SOLVERS, Denoiser, Draw, cosine, counted, exact, flow, sample, vp
from dlib.metrics import order
from dlib.schedule import NoiseLevel

EVERY_SOLVER = pytest.mark.parametrize("name", list(SOLVERS))
ROWS = torch.tensor(
    [
        [0.95, 0.9, 0.6, 0.97],
        [0.7, 0.85, 0.3, 0.5],
        [0.6, 0.5, 0.2, 0.1],
        [0.35, 0.1, 0.05, 0.02],
    ],
    dtype=F64,
)


def three_steps(model, x, walk, solver, noises):
    memory = None
    for a, b, noise in zip(walk, walk[1:], noises):
        x, memory = solver(model, x, a, b, memory, noise)
    return x


@EVERY_SOLVER
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
@pytest.mark.parametrize("dtype, tolerance", [(F64, 1e-11), (torch.float32, 2e-4)])
def test_tensor_levels_are_a_loop_over_float_levels(name, schedule, dtype, tolerance):
    """Four samples, each on its own three steps: at once with tensors (4, 1) and one by one
    with floats.
    """
    solver, model = SOLVERS[name], exact(appendix_a(), schedule)
    x, noises = (
        normals(4, 2).to(dtype),
        [normals(4, 2, seed=k).to(dtype) if solver.noisy else None for k in (1, 2, 3)],
    )
    together = three_steps(
        model, x, [schedule.at(t.to(dtype), like=x) for t in ROWS], solver, noises
    )
    for i in range(4):
        walk = [schedule.at(t[i].item()) for t in ROWS]
        alone = three_steps(
            model, x[i : i + 1], walk, solver, [n if n is None else n[i : i + 1] for n in noises]
        )
        assert together.dtype == dtype
        assert (together[i : i + 1] - alone).abs().max() < tolerance * alone.abs().max().clamp(
            min=1
        )


@EVERY_SOLVER
@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "velocity", "score"])
def test_pictures_take_tensor_levels(name, predicts):
    solver, schedule = SOLVERS[name], vp()
    model = Denoiser(lambda x, t, c: torch.tanh(x), schedule, predicts)
    x, noise = normals(3, 2, 4, 4), normals(3, 2, 4, 4, seed=1) if solver.noisy else None
    a, b = schedule.levels([0.7, 0.5])
    by_float, by_tensor = (
        solver(model, x, s, t, None, noise)[0]
        for s, t in ((a, b), (per_row(a, x), per_row(b, x)))
    )
    assert by_float.shape == x.shape and (by_float - by_tensor).abs().max() < 1e-12


@EVERY_SOLVER
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_dtype_in_is_dtype_out(name, dtype):
    x = sample(
        exact(appendix_a(), vp()),
        normals(4, 2).to(dtype),
        vp().levels([0.9, 0.6, 0.3, 0.2, 0.1]),
        SOLVERS[name],
        draw=Draw(0),
    )
    assert x.dtype == dtype


@EVERY_SOLVER
def test_half_precision_samples_come_back_in_float32(name):
    """x leaves the first step in float32 and stays there; a bf16 network is the business of
    autocast.
    """
    net = torch.nn.Linear(2, 2).bfloat16()
    model = Denoiser(lambda x, t, c: net(x.bfloat16()), vp(), "eps")
    x = sample(
        model,
        normals(4, 2).bfloat16(),
        vp().levels([0.9, 0.6, 0.3, 0.2, 0.1]),
        SOLVERS[name],
        draw=Draw(0),
    )
    assert x.dtype == torch.float32 and x.isfinite().all()


@EVERY_SOLVER
def test_calls_and_memory_are_what_the_decorator_says(name):
    solver, model = SOLVERS[name], counted(exact(appendix_a(), vp()))
    walk, x, memory = vp().levels([0.9, 0.7, 0.5, 0.3]), normals(3, 2), None
    start = x.clone()
    for i, (a, b) in enumerate(zip(walk, walk[1:])):
        x, memory = solver(model, x, a, b, memory, normals(3, 2) if solver.noisy else None)
        assert model.net.calls == (i + 1) * solver.calls
        assert (memory is None) == solver.memoryless
    assert torch.equal(start, normals(3, 2)), "a step must not write into its input"


@EVERY_SOLVER
def test_gradients_flow_through_sampling(name):
    """d(sum of the sample)/d(a weight) against a central difference in float64."""
    x, walk = normals(4, 2), vp().levels([0.9, 0.6, 0.3, 0.2, 0.1])

    def value(scale):
        return sample(
            Denoiser(lambda x, t, c: torch.tanh(scale * x), vp(), "eps"),
            x,
            walk,
            SOLVERS[name],
            draw=Draw(0),
        ).sum()

    scale = torch.tensor(0.8, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(scale), scale)
    difference = (value(scale.detach() + 1e-5) - value(scale.detach() - 1e-5)) / 2e-5
    assert slope.item() == pytest.approx(difference.item(), rel=1e-7)


FROM_NOISE = {
    "euler",
    "ddim",
    "ancestral",
    "dpm_solver_1",
    "dpm_solver_pp_2s",
    "dpm_solver_pp_2m",
    "dpm_solver_pp_3m",
    "dpm_solver_pp_3m_released",
    "unipc_1",
    "unipc_2",
    "unipc_3",
    "sde_dpm_solver_pp_2m",
    "sde_dpm_solver_pp_3m",
    "stochastic_iterative",
    "lcm",
    "tcd",
}


@EVERY_SOLVER
@pytest.mark.parametrize("schedule", [flow(), cosine()], ids=["flow", "cosine"])
def test_start_from_alpha_zero(name, schedule):
    """λ = −∞ at t = 1: the data forms step off it with a v-network; the ε forms say where to
    start.
    """
    run = lambda: sample(
        exact(appendix_a(), schedule),
        normals(4, 2),
        schedule.levels([1.0, 0.8, 0.5, 0.3, 0.1]),
        SOLVERS[name],
        draw=Draw(0),
    )
    if name in FROM_NOISE:
        assert run().isfinite().all()
    else:
        with pytest.raises(
            ValueError,
            match=rf"{name}: step 1 of 4 starts at t = 1 with alpha = 0.*start at t_max=0.999",
        ):
            run()


@pytest.mark.parametrize("name", ["ddim", "dpm_solver_pp_2m", "dpm_solver_pp_3m"])
def test_an_eps_network_cannot_start_from_alpha_zero(name):
    model = Denoiser(lambda x, t, c: x, flow(), "eps")
    with pytest.raises(
        ValueError, match="predicts eps does not determine .* at t = 1, where alpha = 0"
    ):
        sample(model, normals(4, 2), flow().levels([1.0, 0.8, 0.5, 0.3]), SOLVERS[name])


def test_2m_is_second_order_from_exactly_one():
    """Flow, uniform t from exactly 1 to 0.02; slope 2.03–2.13 for N = 20 … 320. Truth: 2M has
    no say in it, x(1) = ε and DOP853 starts at 1 − 1e-9, where x has moved by 1e-9 times the
    velocity."""
    model, x = exact(appendix_a(), flow()), normals(32, 2)
    velocity = model(x, flow().at(1.0)).velocity
    truth = exact_flow(model, x - 1e-9 * velocity, 1 - 1e-9, 0.02)
    for name in ("dpm_solver_pp_2m", "ddim"):
        curve = errors(model, x, truth, SOLVERS[name], (80, 160, 320), "time", t_min=0.02)
        assert order(curve) == pytest.approx(SOLVERS[name].order, abs=0.15)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@EVERY_SOLVER
@pytest.mark.parametrize("as_tensors", [False, True])
def test_a_step_never_waits_for_the_gpu(name, as_tensors):
    solver = SOLVERS[name]
    for schedule in SCHEDULES.values():
        model = Denoiser(lambda x, t, c: torch.tanh(x * t[:, None]), schedule, "v")
        x, noise = (
            normals(4, 2).cuda().float(),
            normals(4, 2).cuda().float() if solver.noisy else None,
        )
        walk = schedule.levels([0.9, 0.7, 0.5, 0.3])
        if as_tensors:
            walk = [
                NoiseLevel(*(field.cuda() for field in per_row(level, x.cpu()))) for level in walk
            ]
        three_steps(model, x, walk, solver, [noise] * 3)  # tables reach the device once
        torch.cuda.set_sync_debug_mode("error")
        try:
            three_steps(model, x, walk, solver, [noise] * 3)
        finally:
            torch.cuda.set_sync_debug_mode("default")
