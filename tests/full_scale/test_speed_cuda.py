"""On a GPU only: fused AdamW, channels last, batches from pinned memory on a stream of their own,
and one reading of norms a step. See `test_speed.py` for what a CPU can hold of these.
"""

from __future__ import annotations

import pytest
import torch
from logged import losses

from full_scale import launch
from full_scale.train import open_engine

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture(scope="module")
def one():
    """This process, alone, on a GPU."""
    yield launch.start("cuda")
    launch.stop()


def test_a_run_with_batches_ahead_is_one_without_and_goes_on_bitwise(settings, one):
    """`--exact` runs: by the loop, by `advance` alone, and stopped in the middle."""
    flags = ["--device", "cuda", "--exact", "--ema", "0.9"]
    whole, parts = settings(*flags, out="whole"), settings(*flags, out="parts")
    engine, alone = open_engine(whole, one), open_engine(settings(*flags, out="alone"), one)
    engine.run(None)
    for _ in range(whole.steps):
        alone.advance()
    open_engine(settings(*flags, "--steps", "2", out="parts"), one).run(None)
    open_engine(parts, one).run(None)
    assert losses(whole.out) == losses(parts.out)
    own, other = (each.cast.trained["student"] for each in (engine, alone))
    assert all(torch.equal(a, b) for a, b in zip(own.leaves, other.leaves, strict=True))
    assert own.optim.param_groups[0]["fused"]
    kernels = [p for p in own.leaves if p.ndim == 4 and p.shape[-1] > 1]
    assert kernels
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_two_phases_read_their_norms_together(small, one):
    engine = open_engine(small("--method", "swiftbrush", "--device", "cuda"), one)
    read, reads = engine.trainer._read, []
    engine.trainer._read = lambda step: reads.append(len(engine.trainer.unread)) or read(step)
    engine.advance()
    assert reads == [2]
