"""Twins of Stable Diffusion's U-Net: equal to peft's adapters, right under checkpointing, and
free of the switching trap.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig

from dlib import Batch, Cast, Draw, Roles, perform
from dlib.lora import adapters, merged, twin
from dlib.recipes import swiftbrush
from full_scale.families import sd

QV, ATTENTION = ("to_q", "to_v"), ("to_k", "to_q", "to_v", "to_out.0")
RANK, ALPHA = 4, 6.0


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    return draw(2, 4, 16, 16), torch.tensor([10.0, 900.0]), draw(2, 16, 32)


def call(unet, inputs):
    x, time, text = inputs
    return unet(x, time, encoder_hidden_states=text).sample


def shake(unet, seed=1, size=0.1):
    generator = torch.Generator().manual_seed(seed)
    for weight in adapters(unet).values():
        weight.data.copy_(size * torch.randn(weight.shape, generator=generator))
    return unet


def with_peft(unet, student, fake=None, targets=QV):
    """A copy of the U-Net with one peft adapter or two, whose A and B are those of the twins."""
    net = copy.deepcopy(unet)
    for name, source in (("fake", fake), ("student", student)):
        if source is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns of the second adapter
            net.add_adapter(
                LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(targets)), name
            )
        own = dict(net.named_parameters())
        for key, weight in adapters(source).items():
            own[f"{key}.{name}.weight"].data.copy_(weight.data)
    net.set_adapter("student")
    return net


@pytest.mark.parametrize(
    "targets",
    [QV, ATTENTION, ("conv1", "conv_in", "to_q", "proj_in")],
    ids=["qv", "attention", "convolutions"],
)
def test_the_twin_is_pefts_adapter(eps_pipe, inputs, targets):
    base = call(eps_pipe.unet, inputs)
    new = twin(eps_pipe.unet, RANK, ALPHA, targets)
    assert torch.equal(call(new, inputs), base)
    shake(new)
    peft = with_peft(eps_pipe.unet, new, targets=targets)
    assert sum("lora_" in name for name, _ in peft.named_parameters()) == len(adapters(new)), (
        "the same layers are adapted"
    )
    ours = call(new, inputs)
    assert (ours - base).norm() > 0.01 * base.norm()
    torch.testing.assert_close(ours, call(peft, inputs), rtol=1e-6, atol=1e-6)
    new, exact = copy.deepcopy(new).double(), [value.double() for value in inputs]
    torch.testing.assert_close(call(merged(new), exact), call(new, exact), rtol=1e-10, atol=1e-10)
    assert torch.equal(call(eps_pipe.unet, inputs), base)


def flat_gradients(named):
    return torch.cat(
        [
            (p.grad if p.grad is not None else torch.zeros_like(p)).flatten()
            for _, p in sorted(named)
        ]
    )


def gradient_of_twin(unet, inputs, checkpointing, between=None):
    """d‖output‖²/d(adapters) of the student twin, when something happens between its forward
    and its backward pass.
    """
    student = shake(twin(unet, RANK, ALPHA, QV))
    if checkpointing:
        student.enable_gradient_checkpointing()
        student.train()
    value = call(student, inputs).square().sum()
    if between is not None:
        between()
    value.backward()
    assert all(
        (p.grad is None) == ("lora_" not in name) for name, p in student.named_parameters()
    )
    return flat_gradients((name, p) for name, p in adapters(student).items())


def test_checkpointing_gives_the_plain_gradient(eps_pipe, inputs):
    plain = gradient_of_twin(eps_pipe.unet, inputs, checkpointing=False)
    fake = shake(twin(eps_pipe.unet, RANK, ALPHA, QV), seed=5)
    between = lambda: call(fake, inputs).sum().backward()
    torch.testing.assert_close(
        gradient_of_twin(eps_pipe.unet, inputs, True, between),
        plain,
        rtol=1e-6,
        atol=1e-6 * plain.abs().max(),
    )
    torch.testing.assert_close(
        gradient_of_twin(eps_pipe.unet, inputs, False, between), plain, rtol=0, atol=0
    )
    assert not eps_pipe.unet.is_gradient_checkpointing, (
        "checkpointing one twin does not checkpoint the base"
    )


def gradient_of_switching(unet, inputs, checkpointing, trainable):
    """The same gradient with peft's adapters in one network, switched to `fake` before the
    backward pass.
    """
    student, fake = (shake(twin(unet, RANK, ALPHA, QV), seed) for seed in (1, 5))
    net = with_peft(unet, student, fake)
    if checkpointing:
        net.enable_gradient_checkpointing()
        net.train()
    value = call(net, inputs).square().sum()
    net.set_adapter("fake")
    if trainable:  # as scripts do whose optimiser holds both
        for name, p in net.named_parameters():
            p.requires_grad_("lora_" in name)
    value.backward()
    return flat_gradients((name, p) for name, p in net.named_parameters() if ".student." in name)


def test_the_trap_that_twins_avoid(eps_pipe, inputs):
    """Switching before the backward pass is silent: gradient exactly 0, or under checkpointing
    another network's.
    """
    right = gradient_of_twin(eps_pipe.unet, inputs, checkpointing=False)
    assert not gradient_of_switching(
        eps_pipe.unet, inputs, checkpointing=False, trainable=False
    ).any()
    assert not gradient_of_switching(
        eps_pipe.unet, inputs, checkpointing=True, trainable=False
    ).any()
    torch.testing.assert_close(
        gradient_of_switching(eps_pipe.unet, inputs, False, True),
        right,
        rtol=1e-5,
        atol=1e-5 * right.abs().max(),
    )
    wrong = gradient_of_switching(eps_pipe.unet, inputs, checkpointing=True, trainable=True)
    assert (wrong - right).norm() > 0.5 * right.norm(), (
        "the repeated forward pass used the fake's adapters"
    )


def test_swiftbrush_on_the_unet_of_either_kind(pipe):
    """One base, three roles: G exactly 0 before the fake has moved, not after; the teacher's
    output bit-identical.
    """
    teacher = sd.denoiser(pipe.unet, pipe.scheduler.config)
    text = sd.StableDiffusion(pipe).encode(["a cat", "a bowl", ""])["text"]
    roles = {"teacher": teacher} | {
        role: replace(teacher, net=twin(teacher.net, RANK, ALPHA, QV))
        for role in ("student", "fake")
    }
    for role in ("student", "fake"):
        roles[role].net.unet.enable_gradient_checkpointing()
        roles[role].net.train()
    optims = {
        role: torch.optim.AdamW(adapters(roles[role].net).values(), 1e-3)
        for role in ("student", "fake")
    }
    x, level, cond = torch.randn(2, 4, 16, 16), teacher.schedule.at(0.5), {"text": text[:2]}
    with torch.no_grad():
        before = teacher(x, level, cond).raw
    recipe = swiftbrush(teacher.schedule, {"text": text[2]})
    history = perform(
        recipe,
        Cast(Roles(roles)),
        optims,
        lambda step: Batch(torch.empty(2, 4, 16, 16), cond),
        3,
        Draw(0),
    )
    with torch.no_grad():
        assert torch.equal(teacher(x, level, cond).raw, before)
        assert not torch.equal(roles["student"](x, level, cond).raw, before)
    assert history["student/gradient"][0] == 0.0 and min(history["student/gradient"][1:]) > 1e-6
    assert all(p.grad is None for p in teacher.net.parameters())
