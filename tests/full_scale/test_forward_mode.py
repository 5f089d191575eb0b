"""The derivative of continuous-time consistency on many processes, and what it costs."""

import forked
import pytest
import torch
from logged import losses

from dlib import Denoiser, flow
from dlib.forward_mode import tangent
from full_scale.cost.counting import META, cost
from full_scale.run.checks import check
from full_scale.run.settings import read

SCM = ["scm", "--tiny", "--micro", "2", "--steps", "2", "--hyper.rise", "1", "--show-every", "0"]


def test_many_processes_are_one(data, tmp_path):
    """A U-Net with attention under DDP, then under FSDP2, whose hooks forward mode passes."""
    words, names = [*SCM, "--dtype", "float32", "--data", str(data)], ("ddp", "fsdp")
    forked.alone(words, tmp_path / "one")
    runs = [([*words, "--parallel", name], tmp_path / name) for name in names]
    forked.training(*runs).finished()
    one = losses(tmp_path / "one")
    for two in (losses(tmp_path / name) for name in names):
        assert len(one) == len(two) == 2
        for a, b in zip(one, two, strict=True):
            for key in ("student/loss", "student/tangent", "student/gradient_norm"):
                assert a[key] == pytest.approx(b[key], rel=1e-4)
    assert one[0]["student/tangent"] > 1e-3


@pytest.mark.parametrize(
    "flags",
    [["--parallel", "fsdp"], ["--lora-rank", "4"], ["--lora-rank", "4", "--dtype", "bfloat16"]],
)
def test_half_precision_weights_are_refused(flags):
    words = ["scm", "--tiny", "--data", "d", "--micro", "2"]
    with pytest.raises(ValueError, match="takes the derivative of target .* --dtype float32"):
        check(read([*words, *flags]))
    check(read([*words, "--parallel", "fsdp", "--dtype", "float32"]))
    check(read([*words]))
    check(read(["lcm", "--tiny", "--data", "d", "--micro", "2", "--parallel", "fsdp"]))


def test_a_derivative_is_counted():
    """PyTorch makes a product three times: the value's, and each factor's derivative, also
    where a weight's is zero. Attention is written out, its two products of moving factors, in
    full precision under any autocast.
    """
    weight = torch.empty(6, 6, device=META)

    def linear(x, t, cond):
        found = x @ weight
        assert found.dtype == torch.float32
        return found

    def attending(x, t, cond):
        return torch.nn.functional.scaled_dot_product_attention(*(x[:, None],) * 3)[:, 0]

    def flops(net, *shape):
        x = torch.empty(shape, device=META)
        model = Denoiser(net, flow(), "v")
        level = flow().at(torch.full((shape[0],), 0.5, device=META), like=x)
        run = lambda: tangent(model, x, level, x, torch.ones_like(level.t), read=lambda p: p.raw)
        return cost(run, [x, weight], torch.bfloat16).flops

    once = 2 * 4 * 6 * 6
    assert flops(linear, 4, 6) == 3 * once
    assert flops(attending, 4, 5, 6) == (2 + 4) * 2 * 4 * 5 * 5 * 6
