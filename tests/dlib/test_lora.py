"""Twins: the same function at first, one memory, and training that reaches the twin's own
adapters and nothing else.
"""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint
from truth import F64

from dlib import lora
from dlib.lora import adapters, load_adapters, merged, twin
from dlib.nets import MLP


class Conv(nn.Module):
    """A small picture network with every kind of layer that matters here; `checkpointed`
    repeats its middle in backward.
    """

    def __init__(self, **conv):
        super().__init__()
        self.enter, self.norm, self.middle = (
            nn.Conv2d(3, 8, 3, padding=1, **conv),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
        )
        self.mix, self.grouped, self.leave = (
            nn.Linear(8, 8),
            nn.Conv2d(8, 8, 1, groups=2),
            nn.Linear(8, 3, bias=False),
        )
        self.checkpointed = False

    def body(self, h):
        return self.grouped(
            self.mix(self.middle(h).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        ).mean((2, 3))

    def forward(self, x):
        h = self.norm(self.enter(x))
        return self.leave(
            checkpoint(self.body, h, use_reentrant=False) if self.checkpointed else self.body(h)
        )


def make(dtype=F64, **conv):
    torch.manual_seed(0)
    return Conv(**conv).to(dtype).eval()


def shake(net, seed=1):
    """Adapters that are not zero any more."""
    generator = torch.Generator().manual_seed(seed)
    for weight in adapters(net).values():
        weight.data.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return net


def train(net, x, steps=3):
    """Adam on everything that wants a gradient."""
    optim = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 0.1)
    for _ in range(steps):
        optim.zero_grad()
        net(x).square().sum().backward()
        optim.step()


X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(2), dtype=F64)


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16])
@pytest.mark.parametrize("targets", [None, ("mix",), ("enter", "middle"), ("mix", "leave")])
def test_a_new_twin_is_bitwise_its_base_and_shares_its_memory(dtype, targets):
    net = make(dtype)
    flags = {
        name: p.requires_grad_(name.startswith("enter")).requires_grad
        for name, p in net.named_parameters()
    }
    new = twin(net, 2, 4.0, targets)
    assert torch.equal(new(X.to(dtype)), net(X.to(dtype))) and new(X.to(dtype)).dtype == dtype
    base, own = dict(net.named_parameters()), dict(new.named_parameters())
    assert {name: p.requires_grad for name, p in base.items()} == flags, (
        "the base's flags are its own"
    )
    assert all(
        own[name].data_ptr() == p.data_ptr()
        and own[name] is not p
        and not own[name].requires_grad
        for name, p in base.items()
    )
    assert set(own) - set(base) == set(adapters(new)) and all(
        own[name].dtype == torch.promote_types(dtype, torch.float32) for name in adapters(new)
    )
    assert {name for name, p in own.items() if p.requires_grad} == set(adapters(new))
    # the grouped convolution is left alone
    wanted = targets or ("enter", "middle", "mix", "leave")
    assert set(adapters(new)) == {
        f"{name}.{part}" for name in wanted for part in ("lora_A", "lora_B")
    }


def test_training_one_twin_moves_neither_the_base_nor_the_other_twin():
    net = make()
    student, fake = shake(twin(net, 2)), shake(twin(net, 3, targets=("mix",)), 5)
    before, other = net(X), fake(X)
    weights = copy.deepcopy(net.state_dict())
    student.train()  # batch statistics are the student's own
    train(student, X)
    assert (student(X) - before).abs().max() > 0.1
    assert torch.equal(net(X), before) and torch.equal(fake(X), other)
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert not torch.equal(student.norm.running_mean, net.norm.running_mean)
    assert all(p.grad is None for p in net.parameters()) and all(
        p.grad is None for p in fake.parameters()
    )


def test_the_base_stays_shared_when_its_weights_are_loaded():
    """One memory: what is copied into the base's tensors is what its twins use."""
    net = make()
    student = twin(net, 2)
    net.load_state_dict(
        {name: value + 1 for name, value in net.state_dict().items() if "norm" not in name},
        strict=False,
    )
    assert torch.equal(student.mix.weight, net.mix.weight) and torch.equal(
        student.mix(torch.ones(1, 8, dtype=F64)), net.mix(torch.ones(1, 8, dtype=F64))
    )


@pytest.mark.parametrize("conv", [{}, {"padding_mode": "circular"}, {"dilation": 2}])
def test_the_adapter_is_the_low_rank_update(conv):
    """W x + (α/r) B A x, layer by layer: the convolution's update is that of a convolution
    with the product kernel.
    """
    new = shake(twin(make(**conv), 2, alpha=3.0))
    plain = merged(new)
    update = plain.enter.weight - new.enter.weight
    torch.testing.assert_close(
        update,
        1.5 * torch.einsum("orhw,rikl->oikl", new.enter.lora_B, new.enter.lora_A),
        rtol=0,
        atol=1e-15,
    )
    torch.testing.assert_close(
        plain.mix.weight,
        new.mix.weight + 1.5 * new.mix.lora_B @ new.mix.lora_A,
        rtol=0,
        atol=1e-15,
    )
    torch.testing.assert_close(plain(X), new(X), rtol=0, atol=1e-14)
    assert {name: value.shape for name, value in plain.state_dict().items()} == {
        name: value.shape for name, value in make(**conv).state_dict().items()
    }
    assert (
        not any(isinstance(layer, lora.LowRank) for layer in plain.modules())
        and type(plain.mix) is nn.Linear
    )
    assert (
        plain.mix.weight.data_ptr() != new.mix.weight.data_ptr()
        and plain.grouped.weight.data_ptr() != new.grouped.weight.data_ptr()
    )


def test_gradients_are_finite_differences():
    net = shake(twin(make(), 2))
    net(X).square().sum().backward()
    for name in ("enter.lora_A", "middle.lora_B", "mix.lora_A", "leave.lora_B"):
        weight, h = adapters(net)[name], 1e-6
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.view(-1)[0] += sign * h
                ends.append(net(X).square().sum())
                weight.view(-1)[0] -= sign * h
        assert weight.grad.view(-1)[0].item() == pytest.approx(
            ((ends[0] - ends[1]) / (2 * h)).item(), rel=1e-7
        )


def test_rank_and_alpha():
    """By default α = r; the scale is α/r whatever the rank."""
    assert twin(make(), 4).mix.lora_scale == 1.0 and twin(make(), 4, 2.0).mix.lora_scale == 0.5
    new = twin(make(), 4)
    assert new.mix.lora_A.shape == (4, 8) and new.mix.lora_B.shape == (8, 4)
    assert new.enter.lora_A.shape == (4, 3, 3, 3) and new.enter.lora_B.shape == (8, 4, 1, 1)
    assert 0 < new.mix.lora_A.abs().max() <= 8**-0.5 and not new.mix.lora_B.any()


def gradients(net):
    net.zero_grad()
    net(X).square().sum().backward()
    return {name: weight.grad.clone() for name, weight in adapters(net).items()}


def test_checkpointing_repeats_the_twin_s_own_forward_pass():
    """Two twins in one graph, and the other one run in between: gradients equal those without
    checkpointing.
    """
    student, fake = shake(twin(make(), 2)), shake(twin(make(), 2), 5)
    plain = gradients(student)
    for net in (student, fake):
        net.checkpointed = True
    y = student(X)
    fake(X).square().sum().backward()  # a second network between forward and backward
    student.zero_grad()
    y.square().sum().backward()
    assert all(
        torch.equal(weight.grad, plain[name]) for name, weight in adapters(student).items()
    )


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_wrappers_change_neither_names_nor_gradients(group):
    net = shake(twin(make(), 2))
    plain = gradients(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = nn.parallel.DistributedDataParallel(net)
    assert (
        list(adapters(wrapped)) == list(adapters(net))
        and adapters(wrapped)["mix.lora_A"] is net.mix.lora_A
    )
    found = gradients(wrapped)
    assert found.keys() == plain.keys() and all(
        torch.allclose(found[name], plain[name], rtol=1e-12) for name in plain
    )
    assert list(adapters(torch.compile(net))) == list(adapters(net))


def test_adapters_round_trip_alone(tmp_path):
    net = make()
    old, new = shake(twin(net, 2)), twin(net, 2)
    torch.save(
        {name: weight.detach() for name, weight in adapters(old).items()},
        tmp_path / "adapters.pt",
    )
    saved = torch.load(tmp_path / "adapters.pt", weights_only=True)
    load_adapters(new, saved)
    assert torch.equal(new(X), old(X))
    again = copy.deepcopy(new)
    new.load_state_dict(old.state_dict())
    assert (
        torch.equal(again(X), old(X)) and again.mix.weight.data_ptr() != net.mix.weight.data_ptr()
    )
    saved["mix.lora_C"] = saved.pop("mix.lora_A")
    with pytest.raises(
        ValueError, match=r"\['mix.lora_A', 'mix.lora_C'\] \(2 in all\) are not in both"
    ):
        load_adapters(new, saved)
    with pytest.raises(
        ValueError, match=r"enter.lora_A has shape \(3, 3, 3, 3\), the saved one \(2, 3, 3, 3\)"
    ):
        load_adapters(
            twin(net, 3), {name: weight.detach() for name, weight in adapters(old).items()}
        )
    assert torch.equal(new(X), old(X)), "a load that fails changes nothing"


def test_the_mlp_of_the_toys_has_twins():
    torch.manual_seed(0)
    net = MLP(2, width=16, depth=1, classes=3)
    nn.init.normal_(net.leave.weight)
    x, t, label = torch.randn(5, 2), torch.rand(5), torch.tensor([0, 1, 2, -1, 0])
    student = twin(net, 2)
    assert torch.equal(student(x, t, label), net(x, t, label))
    torch.testing.assert_close(
        merged(shake(student))(x, t, label), student(x, t, label), rtol=1e-5, atol=1e-5
    )
    assert (student(x, t, label) - net(x, t, label)).abs().max() > 0.1


def test_subclasses_whose_weights_are_used_without_a_call_are_left_alone():
    """`nn.MultiheadAttention` reads `out_proj.weight`: an adapter there would never be used."""
    net = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "after": nn.Linear(4, 4)})
    assert set(adapters(twin(net, 1))) == {"after.lora_A", "after.lora_B"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rank": 0}, "rank = 0, wanted at least 1"),
        (
            {"rank": 2, "targets": ("to_q",)},
            r"no linear layer or convolution is called \['to_q'\]; this network has 4 that can "
            r"be adapted, among "
            r"them \['enter', 'middle', 'mix', 'leave'\]",
        ),
        ({"rank": 2, "targets": ("mix", "ix")}, r"called \['ix'\]"),
        ({"rank": 2, "targets": ("mix", "grouped")}, r"called \['grouped'\]"),
        ({"rank": 2, "targets": "mix"}, r"one string, wanted several names: \('mix',\)"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        twin(make(), **arguments)


def test_a_twin_of_a_twin_and_of_nothing_are_errors():
    with pytest.raises(ValueError, match="is a twin already"):
        twin(twin(make(), 2), 2)
    twin(merged(twin(make(), 2)), 2)
    with pytest.raises(ValueError, match="called anything; this network has 0"):
        twin(nn.LayerNorm(3), 2)
