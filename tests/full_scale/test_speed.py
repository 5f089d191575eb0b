"""What makes a run fast changes none of its numbers; and what is measured of it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import methods
import pytest
import torch
from logged import losses
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from torch.utils._python_dispatch import TorchDispatchMode

from dlib import Batch, NoiseSchedule
from full_scale.cost.needs import needs
from full_scale.run import speed
from full_scale.run.checks import check
from full_scale.run.settings import role_of
from full_scale.train import open_engine

methods.register()


def weights(engine):
    """Of every trained role, as they are now."""
    nets = engine.cast.trained.items()
    return {role: [p.detach().clone() for p in net.leaves] for role, net in nets}


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_line_says_how_fast_its_steps_were(small, processes, monkeypatch):
    """A second a step by a clock that the test turns: the mean over a line's steps, and its
    rows; memory that this process really has. In TensorBoard as well.
    """
    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    s = small("--steps", "5", "--log-every", "2", "--save-every", "5")
    engine = open_engine(s, processes)
    forward = engine.trainer.advance

    def slow(*given):
        now[0] += 1.0 + engine.step % 2  # 1 s, 2 s, 1 s, …
        return forward(*given)

    engine.trainer.advance = slow
    engine.run(None)
    lines = [json.loads(line) for line in (s.out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4]
    assert [line["speed/s_per_step"] for line in lines] == [1.0, 1.5, 1.5]
    assert [line["speed/rows_per_s"] for line in lines] == [8.0, 8 / 1.5, 8 / 1.5]
    assert all(0.1 < line["speed/peak_GB"] < 100 for line in lines)
    board = EventAccumulator(str(s.out / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("speed/s_per_step")][1] == (2, 1.5)


class Reads(TorchDispatchMode):
    """Counts the numbers that the host reads out of tensors."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def fused(monkeypatch):
    """A CPU takes a GPU's way: one kernel that can be told to do nothing."""
    monkeypatch.setattr(speed, "FUSED", ("cpu",))


def test_the_host_reads_norms_once_a_step(small, processes, fused, monkeypatch):
    """Two phases, and the norms of both at the end; no walk through the networks."""
    engine = open_engine(small("--method", "swiftbrush", "--ema", "0.9"), processes)
    engine.advance()
    batches, read, reads = engine.micro_batches(1), engine.trainer._read, []
    engine.trainer._read = lambda step: reads.append(len(engine.trainer.unread)) or read(step)
    engine.micro_batches = lambda step: batches
    walk = lambda *given, **named: pytest.fail("a walk through a network")
    with monkeypatch.context() as patch, Reads() as numbers:
        for net in engine.cast.trained.values():
            patch.setattr(net.inner, "named_parameters", walk)
        patch.setattr(NoiseSchedule, "_check_time", lambda *given: None)  # reads on CPUs alone
        metrics = engine.advance()
    assert reads == [2] and numbers.count == 0
    assert metrics["fake/gradient_norm"] > 0 and metrics["student/gradient_norm"] > 0


def test_a_bad_gradient_changes_no_weight_though_it_is_read_late(small, more, processes, fused):
    """DMD2's fake score and its heads read a broken picture; the student, which does not, has
    moved before. The norm of the fake is read after the heads'.
    """
    s = small("--method", "dmd2", "--data", str(more), "--drop", "0", "--batch", "4")
    engine = open_engine(s, processes)
    ((batch, draw),) = engine.micro_batches(0)
    x0 = batch.x0.clone()
    x0[2, 0] = torch.inf
    engine.micro_batches = lambda step: [(Batch(x0, batch.cond), draw)]
    before, row = weights(engine), engine.trainer.places(0)[0][2][1]
    with pytest.raises(
        FloatingPointError, match=f"'fake' is not finite.*comes from row {row} of"
    ):
        engine.advance()
    after = weights(engine)
    assert [r for r in after if not same(before[r], after[r])] == ["student"]


def test_the_next_batch_is_made_ahead_with_the_same_numbers(small, processes):
    """In another thread, which reads a step while the one before computes; bitwise what the
    loop would have read. Nothing is read beyond the end, and no thread is left.
    """
    before, s = set(threading.enumerate()), small("--steps", "3", "--drop", "0.5")
    engine, seen, made = open_engine(s, processes), [], []
    plain, forward = engine.micro_batches, engine.trainer.advance
    engine.micro_batches = lambda step: made.append((step, threading.get_ident())) or plain(step)

    def look(micro, step):
        late = time.monotonic() + 60
        while len(made) < min(step + 2, 3) and time.monotonic() < late:
            time.sleep(1e-3)  # the next one comes without being asked for
        seen.append(([step for step, _ in made], [(b, draw.copy()) for b, draw in micro]))
        return forward(micro, step)

    engine.trainer.advance = look
    engine.run(None)
    assert [steps for steps, _ in seen] == [[0, 1], [0, 1, 2], [0, 1, 2]]
    assert len(made) == 3 and threading.get_ident() not in {thread for _, thread in made}
    assert {t.name for t in set(threading.enumerate()) - before if "rows" in t.name} == set()
    for step, (_, micro) in enumerate(seen):
        for (a, draw), (b, own) in zip(micro, plain(step), strict=True):
            assert same(speed.tensors_of(a), speed.tensors_of(b))
            assert torch.equal(draw.uniform(4), own.uniform(4))


def test_what_goes_wrong_ahead_is_raised_at_its_own_step(small, processes):
    """The disk of step 2 fails while step 1 computes: step 1 is whole, and no thread is left.
    Ctrl-C in the loop ends it as well.
    """
    for error in (OSError("the disk"), KeyboardInterrupt()):
        engine = open_engine(small(out=type(error).__name__), processes)
        plain, forward = engine.micro_batches, engine.trainer.advance

        def broken(step):
            if step == 2 and isinstance(error, OSError):
                raise error
            return plain(step)

        def struck(micro, step):
            if step == 2:
                raise error
            return forward(micro, step)

        engine.micro_batches, engine.trainer.advance = broken, struck
        with pytest.raises(type(error)):
            engine.run(None)
        assert engine.step == 2 and engine.ahead is None
        assert not [t for t in threading.enumerate() if "rows" in t.name]


def test_fused_kernels_are_the_plain_ones_and_a_checkpoint_does_not_choose(
    small, processes, monkeypatch
):
    """Five steps on the same gradients: weights below 4 are rounded five times, by 2⁻²³ each."""
    own, found = role_of(small("--weight-decay", "0.1"), "student"), []
    random = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(6, 1000, generator=random).clamp(-3.9, 3.9)
    for kinds in ((), ("cpu",)):
        monkeypatch.setattr(speed, "FUSED", kinds)
        weight = torch.nn.Parameter(start.clone())
        optim = speed.optimiser([weight], own)
        speed.set_rate(optim, 1e-2)
        for weight.grad in gradients:
            optim.step()
        found.append(weight.detach())
    plain, by_fused = found
    assert (plain - by_fused).abs().max() < 5 * 2**-22 < (plain - start).abs().median()
    for step, kinds in enumerate(((), ("cpu",), ()), 1):  # each from the other's checkpoint
        monkeypatch.setattr(speed, "FUSED", kinds)
        engine = open_engine(small("--steps", str(step)), processes)
        assert engine.step == step - 1
        engine.run(None)
        (group,) = engine.cast.trained["student"].optim.param_groups
        assert bool(group["fused"]) == bool(kinds)


TORCHAO = Path(sys.prefix) / "torchao"  # where the Makefile installs it


@pytest.fixture
def torchao(monkeypatch):
    """The package, for one test: diffusers would load it in every process."""
    if not TORCHAO.is_dir():
        reason = "no torchao: `make test` installs it"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    monkeypatch.syspath_prepend(TORCHAO)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        del sys.modules[name]


def test_moments_of_eight_bits_go_on_bitwise_and_are_counted(
    small, processes, torchao, monkeypatch
):
    """Moments are codes and scales after a stop as before it; plain AdamW would be refused."""
    flags = ["--optimizer", "adamw8bit", "--lr", "1e-3", "--steps"]
    whole, parts = small(*flags, "4", out="whole"), small(*flags, "4", out="parts")
    unbroken = open_engine(whole, processes)
    unbroken.run(None)
    open_engine(small(*flags, "2", out="parts"), processes).run(None)
    engine = open_engine(parts, processes)
    engine.run(None)
    assert losses(whole.out) == losses(parts.out) and len(losses(whole.out)) == 4
    nets = [one.cast.trained["student"] for one in (unbroken, engine)]
    assert same(*(net.leaves for net in nets))
    one, two = ([net.optim.state[leaf] for leaf in net.leaves] for net in nets)
    taken = 0
    for a, b in zip(one, two, strict=True):
        for name in ("exp_avg", "exp_avg_sq"):
            small_one = not hasattr(a[name], "codes")
            held = [(m,) if small_one else (m.codes, m.scale) for m in (a[name], b[name])]
            assert same(*held)
            taken += sum(value.nbytes for value in held[0])
    assert (
        needs(whole).memory["ddp"]["optimiser"]
        == taken
        < 0.3 * 8 * sum(leaf.numel() for leaf in nets[0].leaves)
    )
    files = sum(path.stat().st_size for path in (whole.out / "step-00000004").iterdir())
    assert 0.8 * files < unbroken.checkpoints.needed < files
    with pytest.raises(ValueError, match="optimizer: 'adamw8bit' → 'adamw'"):
        open_engine(small(out="whole"), processes)


def test_without_the_package_eight_bits_say_what_to_install(small, processes, monkeypatch):
    speed._eight_bit.cache_clear()
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ValueError, match="--optimizer adamw8bit: .* pip install 'torchao>=0.18"):
        open_engine(small("--optimizer", "adamw8bit"), processes)


def outputs(engine):
    """What everybody answers on a step's rows."""
    batch, draw = engine.micro_batches(0)[0]
    level = engine.cast.roles["student"].schedule.at(0.5)
    noisy = 0.6 * batch.x0 + 0.8 * draw.normal(batch.x0)
    with torch.no_grad():
        roles = [*engine.cast.roles.values(), engine.cast.output]
        return torch.stack([role(noisy, level, batch.cond).raw for role in roles])


def test_channels_last_are_the_same_networks_and_checkpoints(settings, processes, monkeypatch):
    """Everybody's convolutions, an average's too; the checkpoint opens in the usual order."""
    flags = ["--ema", "0.9", "--steps", "1", "--batch", "2", "--micro", "2"]
    plain = outputs(open_engine(settings(*flags, out="plain"), processes))
    monkeypatch.setattr(speed, "CHANNELS_LAST", ("cpu",))
    engine = open_engine(settings(*flags), processes)
    assert (outputs(engine) - plain).norm() < 1e-5 * plain.norm()
    engine.run(None)
    nets = [role.net for role in engine.cast.roles.values()] + [engine.cast.averages["ema"].net]
    kernels = [[p for p in net.parameters() if p.ndim == 4 and p.shape[-1] > 1] for net in nets]
    for p in sum(kernels, []):
        assert p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous()
    assert all(kernels)
    monkeypatch.setattr(speed, "CHANNELS_LAST", ())
    again = open_engine(settings(*flags), processes)
    assert again.step == 1 and all(
        p.is_contiguous() for p in again.cast.trained["student"].leaves
    )
    for role, own in weights(again).items():
        assert same(own, weights(engine)[role])


def test_compiled_networks_are_the_same_under_the_same_names(small, processes, monkeypatch):
    """A step with a network that is compiled; its checkpoint goes on without torch.compile."""
    monkeypatch.setattr(speed, "BACKEND", "aot_eager")
    graphs, flags = torch._dynamo.utils.counters, ["--micro", "8", "--steps"]
    plain, own = small(*flags, "1", out="plain"), small(*flags, "1", "--compile", out="own")
    plain_engine, engine = (open_engine(s, processes) for s in (plain, own))
    graphs.clear()
    plain_engine.run(None)
    assert not graphs["aot_autograd"]["ok"]
    engine.run(None)
    assert graphs["aot_autograd"]["ok"] >= 1
    for a, b in zip(losses(plain.out), losses(own.out), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-7)
    names = [one.cast.trained["student"].weights.keys() for one in (plain_engine, engine)]
    assert names[0] == names[1]
    again = open_engine(small(*flags, "2", out="own"), processes)
    assert again.step == 1 and same(weights(again)["student"], weights(engine)["student"])


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--method", "scm"], "the derivative of target is taken in forward mode"),
        (["--method", "pcm_adversarial"], "the heads .* through hooks"),
        (["--parallel", "fsdp"], "--parallel fsdp puts hooks"),
    ],
)
def test_what_cannot_be_compiled_is_refused(flags, why, small):
    check(small(*flags))
    with pytest.raises(ValueError, match=f"--compile with .*{why}.*: leave --compile out"):
        check(small(*flags, "--compile"))


def test_kernels_are_chosen_in_one_place():
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    for exact, slopes, tf32 in ((0, 0, True), (1, 0, False), (0, 1, False), (1, 1, False)):
        speed.choose_kernels(bool(exact), bool(slopes))
        assert cuda.allow_tf32 == cudnn.allow_tf32 == tf32
        assert cudnn.benchmark != cudnn.deterministic == bool(exact)
