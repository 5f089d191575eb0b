"""Each timing benchmark at a tiny size: it runs and compares like with like. No time is
asserted, and no ratio of times: what is asserted of the work is a count of operators, which
every machine agrees on (`test_bench_report.py` reads the ratios that are published).
"""

import math

import nbformat
import numpy as np
import pytest
import torch
from diffusers.training_utils import EMAModel
from nbclient.exceptions import CellExecutionError
from torch.utils._python_dispatch import TorchDispatchMode

import dlib
from bench import chapters, ema, gpu_loop, imports, loss_overhead, loss_rounds, parallel
from bench import step_overhead
from bench.timing import Times, interleave


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def test_interleave_takes_turns_and_excludes_the_preparation():
    now, order = [0.0], []

    def competitor(name, seconds):
        def work():
            order.append(name)
            now[0] += seconds

        def prepare():
            now[0] += 100
            return work

        return prepare

    times = interleave(
        {"a": competitor("a", 1), "b": competitor("b", 3)},
        3,
        unit=0.5,
        label="",
        clock=lambda: now[0],
    )
    assert order == list("ab") + list("abbaab")  # the warm-up, then the starter rotates
    assert times["a"].values.tolist() == [2, 2, 2] and times["b"].values.tolist() == [6, 6, 6]


def test_times_report_minimum_median_and_interquartile_range():
    assert Times(torch.arange(1.0, 6.0).numpy()).cells() == [1.0, 3.0, 2.0]


def test_step_overhead_competitors_do_the_same_work():
    start = dlib.Draw(0).normal((1, 4, 8, 8))
    rounds = step_overhead.rounds(start, lambda x, t: torch.tanh(0.7 * x + t / 1000))
    for method in ("DDIM", "DPM-Solver++ 2M", "DPM-Solver++ 3M (as released)", "UniPC-2"):
        ours, theirs = rounds[step_overhead.PAIRS[method]]()(), rounds[f"diffusers {method}"]()()
        assert (ours - theirs).abs().max() < 1e-4, method


def test_noise_that_is_given_is_the_noise_of_every_step_and_only_there():
    from diffusers.schedulers import scheduling_lcm

    before = scheduling_lcm.randn_tensor
    rounds = step_overhead.rounds(torch.zeros(1, 4, 8, 8), lambda x, t: torch.zeros_like(x))
    for ours in ("dlib lcm", "diffusers LCM"):
        given = [rounds[f"{ours}, noise given"]()() for _ in range(2)]
        assert torch.equal(*given)
    assert not torch.equal(rounds["diffusers LCM"]()(), rounds["diffusers LCM"]()())
    assert not torch.equal(rounds["dlib lcm"]()(), rounds["dlib lcm, noise given"]()())
    assert scheduling_lcm.randn_tensor is before


class Operators(TorchDispatchMode):
    """Counts the operators that torch is asked for: work that is the same on every machine."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.count += 1
        return operator(*args, **(kwargs or {}))

    @classmethod
    def of(cls, work) -> int:
        with cls() as mode:
            mode.count = 0
            work()
        return mode.count


@pytest.mark.parametrize(
    "method",
    ["DDIM", "DPM-Solver++ 2M", "DPM-Solver++ 3M (as released)", "UniPC-2", step_overhead.GIVEN],
)
def test_a_dlib_step_asks_less_of_torch_than_diffusers(method):
    start = torch.zeros(1, 4, 8, 8)
    rounds = step_overhead.rounds(start, lambda x, t: start)
    ours, theirs = (
        rounds[name]() for name in (step_overhead.PAIRS[method], f"diffusers {method}")
    )
    assert Operators.of(ours) < Operators.of(theirs) / 3


def test_step_overhead_has_a_row_for_each_competitor():
    report = step_overhead.run(repeats=1)
    assert len(report.rows) == 15 and all(row[1] > 0 and row[-1] > 0 for row in report.rows)


def test_ema_touches_sd15_tensors_in_one_call_where_the_peer_s_default_takes_three_each():
    net = ema.small_unet()
    weights = list(net.parameters())
    assert len(weights) == 686
    assert Operators.of(dlib.Ema(net, decay=0.999).update) == 1
    assert Operators.of(lambda: EMAModel(weights, decay=0.999).step(weights)) >= 3 * 686
    report = ema.run(repeats=1, updates=1)
    assert [row[0].split("(")[0] for row in report.rows] == [
        "dlib.Ema",
        *2 * ["diffusers EMAModel"],
    ]
    assert "686 tensors with 8.6 M" in " ".join(report.note.split())


@pytest.fixture
def tiny_model(tiny_unet):
    from full_scale.families.unet import UNetCall

    schedule = dlib.discrete(dlib.scaled_linear())
    return dlib.Denoiser(UNetCall(tiny_unet), schedule, "eps", clock=lambda t: 1000 * t - 1)


def worlds(unet, model):
    """Both worlds at tiny size, whose networks count."""

    def counting(model, net):
        counter = dlib.counted(model)
        counter.net.parameters = net.parameters
        return counter

    shapes = loss_rounds.of_shapes(4)
    student, teacher = (counting(m, m.net) for m in (shapes.student, shapes.teacher))
    told = shapes._replace(student=student, teacher=teacher)
    return [loss_rounds.of_latents(counting(model, unet), 4, width=8), told]


def asked(world, prepare):
    """(calls, samples, weights with a gradient) of one round."""
    nets = {id(net): net for net in (world.student.net, world.teacher.net)}.values()
    for net in nets:
        net.calls = net.samples = 0
    with torch.enable_grad():
        prepare()()
    calls, samples = (sum(getattr(net, n) for net in nets) for n in ("calls", "samples"))
    return calls, samples, sum(w.grad is not None for w in world.student.net.parameters())


def test_loss_overhead_competitors_make_the_same_calls(tiny_unet, tiny_model):
    """Calls, samples and gradients of each loss are those of its bare calls, and as many as it
    states; SCT's weights ask nobody.
    """
    both = worlds(tiny_unet, tiny_model)
    assert [len(world.losses) for world in both] == [9, 1]
    for world in both:
        work = loss_rounds.pairs(world)
        for name, (_, calls) in world.losses.items():
            ours, bare = (asked(world, part) for part in (work[name].own, work[name].other))
            assert ours == bare and ours[2] > 0, name
            assert ours[0] == 1 + sum(calls) and ours[1] == 4 * (ours[0] + calls.guided), name
    work = loss_rounds.pairs(both[0])
    weights, whole = work[loss_rounds.WEIGHTS], work[loss_rounds.SCT]
    assert weights.other is whole.own and asked(both[0], weights.own) == (0, 0, 0)


def test_what_sct_weighs_alone_is_what_it_weighs(tiny_model, monkeypatch):
    """The shapes and the memo of its loss's own call."""
    from dlib.losses import variance_reduction

    seen, true = [], variance_reduction.variance_reduced_target

    def watched(x, level, references, shared=None):
        seen.append((x.shape, level.sigma.shape, references, shared))
        return true(x, level, references, shared)

    for module in (variance_reduction, loss_rounds):
        monkeypatch.setattr(module, "variance_reduced_target", watched)
    pair = loss_rounds.pairs(loss_rounds.of_latents(tiny_model, 4, width=8))[loss_rounds.WEIGHTS]
    with torch.enable_grad():
        pair.own()(), pair.other()()
    alone, within = seen
    assert alone[:2] == within[:2] and all(a is b for a, b in zip(alone[2:], within[2:]))


def test_each_loss_is_timed_beside_its_own_bare_calls(tiny_unet, tiny_model):
    work = {
        name: pair
        for world in worlds(tiny_unet, tiny_model)
        for name, pair in loss_rounds.pairs(world).items()
        if name in ("knowledge", loss_rounds.WEIGHTS) or "IMM" in name or "guided" in name
    }
    with torch.enable_grad():
        rows = list(loss_overhead.measure(work, repeats=2))
    assert [row[:2] for row in rows] == [(name, pair.against) for name, pair in work.items()]
    assert len(rows) == 4 and all(len(own.values) == 2 for *_, own, _ in rows)
    assert all(own.low > 0 and other.low > 0 for *_, own, other in rows)


def test_a_clock_that_wavers_does_not_move_the_ratio_of_a_loss():
    """Both members of a pair are slowed alike; one pair of ten is disturbed on one side."""
    speed = 100 * np.linspace(1.0, 2.0, 10)
    own = np.where(np.arange(10) == 3, 3.0, 1.02)
    found, error = loss_overhead.ratio(Times(own * speed), Times(speed))
    assert found == pytest.approx(1.02)
    assert error == pytest.approx(math.sqrt(math.pi / 2) * 1.98 * 0.3 / math.sqrt(10))


def test_parallel_samplers_find_the_sequential_sample_in_fewer_rounds():
    rows = parallel.run(steps=(25,), pictures=(25,)).rows
    assert len(rows) == 15
    for problem, solver, n, sampler, depth, work, error, _ in rows:
        assert error < 2e-2 and (sampler != "sequential" or depth == work == n)
        assert sampler in ("sequential", "parareal") or depth < n


def test_imports_are_timed_in_fresh_interpreters(monkeypatch):
    monkeypatch.setattr(imports, "CASES", {"import dlib": imports.CASES["import dlib"]})
    rows = imports.run(repeats=1).rows
    assert [row[0] for row in rows] == ["import torch", "import dlib"]
    assert all(row[1] > 0 for row in rows)


def notebook(folder, name, *cells):
    node = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# A title"), *map(nbformat.v4.new_code_cell, cells)]
    )
    nbformat.write(node, folder / name)
    return folder / name


def test_chapters_are_executed_in_memory(tmp_path):
    path = notebook(
        tmp_path, "08_some.ipynb", "import dlib", "assert dlib.vp().at(0.5).alpha > 0"
    )
    before = path.read_bytes()
    report = chapters.run(tmp_path)
    assert [row[:2] for row in report.rows] == [["08_some", 2]] and report.rows[0][2] > 0
    assert path.read_bytes() == before


def test_a_broken_chapter_is_an_error(tmp_path):
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        chapters.execute(notebook(tmp_path, "09_broken.ipynb", "1 / 0"))


def test_no_chapters_is_a_polite_skip(tmp_path, capsys):
    assert chapters.run(tmp_path) is None
    assert "skipped" in capsys.readouterr().out


@pytest.fixture(scope="module")
def tiny_unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


def test_gpu_loop_eager_loops_agree_on_a_tiny_unet(tiny_unet):
    job = gpu_loop.Job(tiny_unet, batch=2, steps=16, method="DPM-Solver++ 2M")
    walked, sampled, theirs = gpu_loop.last(job.walk()), job.sample(), job.peer(tiny_unet)()()
    assert torch.equal(walked, sampled)
    assert (sampled - theirs).abs().max() < 1e-4 * sampled.abs().max()


def test_gpu_loop_keeps_the_row_of_a_loop_that_fails(tiny_unet, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no graph here\nand a long story")

    monkeypatch.setattr(gpu_loop, "graphed", refuse)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    rows = gpu_loop.compare(gpu_loop.Job(tiny_unet, 1, 4, "DDIM"), tiny_unet, repeats=1)
    assert [row[3] for row in rows] == [
        gpu_loop.EAGER,
        "diffusers, compiled U-Net",
        "dlib, eager",
        "dlib, one CUDA graph",
    ]
    assert all(len(row) == len(gpu_loop.COLUMNS) for row in rows)
    assert rows[-1][4] == "failed: no graph here" and rows[0][-1] == 1.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_loop_captures_and_never_waits(tiny_unet):
    from copy import deepcopy

    job = gpu_loop.Job(deepcopy(tiny_unet).cuda(), batch=1, steps=4, method="DPM-Solver++ 2M")
    assert gpu_loop.synchronises(job) == "none"
    assert torch.allclose(gpu_loop.graphed(job)()(), job.sample(), rtol=1e-3, atol=1e-3)
