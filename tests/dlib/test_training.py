"""Training in a notebook: the loss falls to its floor, a broken one does not, averages are
averages, errors keep the weights.
"""

import math

import pytest
import torch
from truth import fit, F64, line, mutant, normals

import dlib
from dlib import Batch, Denoiser, Draw, Ema, Loss, Phase, denoising, exact, flow, vp
from dlib.losses import uniform_times, weights
from dlib.nets import MLP

FLOW, TIMES = flow(), uniform_times(0.02, 0.98)


def train(loss, steps):
    """Learn the velocity on `line()` with a small network: (history, its true loss, the floor:
    that of the exact velocity).
    """
    torch.manual_seed(0)
    net = MLP(1, width=32, depth=1)
    model = Denoiser(net, FLOW, "velocity")
    data = lambda step: Batch(line().sample(256, Draw(step))[0].float())
    phase = Phase(
        "net", lambda roles, batch, draw: loss(roles["net"], batch, draw, weights.velocity, TIMES)
    )
    history = fit(
        [phase],
        {"net": model},
        {"net": torch.optim.Adam(net.parameters(), 1e-2)},
        data,
        steps,
        Draw(0),
    )

    def score(model):
        fresh = ((data(10_000 + k), Draw(k)) for k in range(40))
        return (
            sum(
                denoising(model, batch, draw, weights.velocity, TIMES).value.item()
                for batch, draw in fresh
            )
            / 40
        )

    return history, score(model), score(exact(line(), FLOW))


# E‖ε − x₀‖² = 1 + E x₀²: the zero network's score
START = 1 + 0.5 * (1 + 0.09) + 0.2 * (0.16 + 0.04) + 0.3 * (2.56 + 0.25)


def test_the_loss_falls_to_near_its_floor():
    """400 steps take at least nine tenths of the way from the zero network to the truth, and
    never beyond it.
    """
    history, reached, floor = train(denoising, 400)
    assert set(history) == {"net/loss", "net/raw_mse"} and len(history["net/loss"]) == 400
    # one batch of 256: a standard error of 7%
    assert history["net/loss"][0] == pytest.approx(START, rel=0.3)
    assert floor < reached < floor + 0.1 * (START - floor)


def test_a_sign_flip_in_the_loss_is_caught():
    """Noised with −ε, the network learns a mirror image: its true loss rises above that of the
    zero network.
    """
    flipped = mutant(
        denoising,
        "level.alpha * x0 + level.sigma * noise",
        "level.alpha * x0 - level.sigma * noise",
    )
    assert train(flipped, 150)[1] > START


def linear():
    net = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.zeros_(net.weight)
    return net


def test_a_step_is_the_optimiser_s_step_and_draws_in_order():
    """One SGD step by hand; two phases, the second at every other step, on their own networks."""
    nets = {"a": linear(), "b": linear()}
    optims = {name: torch.optim.SGD(net.parameters(), 0.1) for name, net in nets.items()}
    roles = {
        name: Denoiser(lambda x, t, c, net=net: net(x), FLOW, "velocity")
        for name, net in nets.items()
    }
    order, seen = [], []

    def loss(role):
        def value(roles, batch, draw):
            order.append((role, draw.uniform(1).item()))
            prediction = roles[role](batch.x0, FLOW.at(0.5)).raw
            return Loss(
                (prediction - 1).square().mean(), {"size": prediction.detach().abs().mean()}
            )

        return value

    history = fit(
        [Phase("a", loss("a")), Phase("b", loss("b"), every=2)],
        roles,
        optims,
        lambda step: Batch(torch.ones(1, 2)),
        3,
        Draw(5),
        each=lambda step, metrics: seen.append((step, sorted(metrics))),
    )
    replay = Draw(5)
    assert order == [(role, replay.uniform(1).item()) for role in "abaab"]
    assert seen == [(0, ["a/size", "b/size"]), (1, ["a/size"]), (2, ["a/size", "b/size"])]
    # d/dW mean((W·1 − 1)²) = −1 at W = 0 for each entry: after one step every weight is 0.1, and
    # the output is 0.2
    assert history["a/size"][1] == pytest.approx(0.2) and history["b/size"] == pytest.approx(
        [0.0, 0.2]
    )


def test_a_loss_that_breaks_is_named_and_the_weights_are_kept():
    net = linear()
    before = []

    def loss(roles, batch, draw):
        before.append(net.weight.detach().clone())
        value = roles["net"](batch.x0, FLOW.at(0.5)).raw.square().sum() - net.weight.sum()
        return Loss(value * (math.nan if len(before) == 4 else 1.0), {})

    optims = {"net": torch.optim.Adam(net.parameters(), 0.1)}
    roles = {"net": Denoiser(lambda x, t, c: net(x), FLOW, "velocity")}
    with pytest.raises(
        FloatingPointError, match="the loss of 'net' is nan at step 3: lower the learning rate"
    ):
        fit(
            [Phase("net", loss)], roles, optims, lambda step: Batch(torch.ones(1, 2)), 10, Draw(0)
        )
    assert torch.equal(net.weight, before[-1]) and not torch.equal(before[-1], before[0])


def test_a_missing_optimiser_is_named():
    with pytest.raises(ValueError, match=r"no optimiser for \['net'\].*and there are \[\]"):
        fit([Phase("net", lambda *a: None)], {"net": linear()}, {}, lambda step: None, 1, Draw(0))


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_is_an_error(steps):
    net = linear()
    with pytest.raises(ValueError, match="steps"):
        fit(
            [Phase("net", lambda *a: None)],
            {"net": Denoiser(net, FLOW, "v")},
            {"net": None},
            lambda step: None,
            steps,
            Draw(0),
        )


def test_ema_closed_form():
    """Decays min(d, (1 + k)/(10 + k)) on a weight that counts 1, 2, 3 … from 0."""
    net = torch.nn.BatchNorm1d(1).double()
    net.weight.data.zero_()
    ema, mean = Ema(net, decay=0.25), 0.0
    for k in range(8):
        net.weight.data += 1
        net.running_mean += 2
        ema.update()
        decay = min(0.25, (1 + k) / (10 + k))
        mean = decay * mean + (1 - decay) * (k + 1)
        assert ema.net.weight.item() == pytest.approx(mean, rel=1e-14)
    assert ema.net.running_mean.item() == 16 and net.weight.item() == 8 and ema.count == 8
    assert not any(p.requires_grad for p in ema.net.parameters()) and all(
        p.requires_grad for p in net.parameters()
    )


def test_ema_is_updated_by_fit_after_the_step():
    net = linear()
    ema = Ema(net, decay=0.0)  # no memory: always equal to the live weights
    fit(
        [Phase("net", lambda roles, batch, draw: Loss((net.weight - 1).square().sum(), {}))],
        {"net": Denoiser(net, FLOW, "v")},
        {"net": torch.optim.SGD(net.parameters(), 0.1)},
        lambda step: Batch(torch.ones(1, 2)),
        3,
        Draw(0),
        ema=ema,
    )
    assert torch.equal(ema.net.weight, net.weight) and ema.count == 3


@pytest.mark.parametrize("decay", [1.0, -0.1, 1.5])
def test_ema_decay_is_checked(decay):
    with pytest.raises(ValueError, match="outside"):
        Ema(linear(), decay)


def test_draw_is_the_same_in_every_dtype_and_replays():
    values = [Draw(7).normal((5, 3), dtype) for dtype in (torch.float32, F64, torch.bfloat16)]
    assert torch.equal(values[0].double(), values[1]) and torch.equal(
        values[0].bfloat16(), values[2]
    )
    draw = Draw(7)
    draw.normal((5, 3))
    twin = draw.copy()
    for pick in (
        lambda d: d.uniform(4),
        lambda d: d.integers(10, 4),
        lambda d: d.choice(torch.tensor([0.2, 0.8]), 4),
        lambda d: d.normal((3,)),
    ):
        assert torch.equal(pick(draw), pick(twin))
    torch.manual_seed(1)
    first = Draw(7).uniform(3)
    torch.manual_seed(2)
    assert torch.equal(Draw(7).uniform(3), first), "the global generator has no say"


@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (4, 2, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16])
def test_a_shape_draws_what_a_tensor_of_that_shape_draws(shape, dtype):
    a, b = Draw(3), Draw(3)
    found = a.normal(shape, dtype)
    assert found.dtype == dtype and torch.equal(found, b.normal(torch.zeros(shape, dtype=dtype)))
    assert torch.equal(a.uniform(2), b.uniform(2)), "both leave the stream at the same place"
    assert Draw(3).normal(shape).dtype == torch.float32


@pytest.mark.parametrize(
    "like, dtype, message",
    [
        (5, None, r"got 5, wanted a tensor or a shape, .*normal\(\(256, 2\)\)"),
        ((2, 2.0), None, "wanted a tensor or a shape"),
        ("ab", None, "wanted a tensor or a shape"),
        (torch.empty(2, 3), F64, r"leave dtype out, or pass a shape: normal\(\(2, 3\), torch.f"),
    ],
)
def test_a_draw_of_no_shape_is_refused(like, dtype, message):
    with pytest.raises(ValueError, match=message):
        Draw(0).normal(like, dtype)


def test_draw_distributions():
    """Five standard errors on 20 000 values each: false alarms below 1e-5."""
    draw, n = Draw(11), 20000
    z, u, i, k = (
        draw.normal((n,)),
        draw.uniform(n),
        draw.integers(4, n),
        draw.choice(torch.tensor([0.1, 0.0, 0.9]), n),
    )
    assert abs(z.mean()) < 5 / n**0.5 and abs(z.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs(u.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5 and 0 <= u.min() and u.max() < 1
    assert (
        torch.bincount(i, minlength=4).float().div(n).sub(0.25).abs().max()
        < 5 * (0.1875 / n) ** 0.5
        and i.max() == 3
    )
    assert (k != 1).all() and abs((k == 0).double().mean() - 0.1) < 5 * (0.09 / n) ** 0.5


def test_mlp():
    torch.manual_seed(0)
    net = MLP(dim=4, width=16, depth=2, classes=3)
    x, t = normals(5, 1, 2, 2).float(), torch.linspace(0, 1, 5)
    assert (net(x, t) == 0).all() and net(x, t).shape == x.shape, "the last layer starts at zero"
    torch.nn.init.normal_(net.leave.weight)
    label = torch.tensor([0, 1, 2, -1, 0])
    out = net(x, t, label)
    assert torch.allclose(out[3], net(x[3:4], t[3:4], torch.tensor([-1]))[0], atol=1e-6), (
        "samples do not see each other"
    )
    for other in (0, 1, 2):
        assert not torch.allclose(out[3], net(x[3:4], t[3:4], torch.tensor([other]))[0]), (
            "∅ has its own embedding"
        )
    assert not torch.allclose(net(x, t, label), net(x, t.flip(0), label))
    assert net.double()(x.double(), t.double(), label).dtype == F64
    with pytest.raises(ValueError, match="built with classes=0: pass classes=…"):
        MLP(4)(x, t, label)


@pytest.mark.parametrize("label", [3, 7, -2])
def test_mlp_refuses_a_label_that_it_does_not_know(label):
    """Were labels taken modulo the number of rows, 3 would be ∅ and 7 would be another class,
    in silence.
    """
    with pytest.raises((ValueError, IndexError)):
        MLP(4, classes=3)(torch.zeros(5, 4), torch.zeros(5), torch.full((5,), label))


def test_a_draw_for_each_step_makes_steps_repeatable_by_themselves():
    seen = []

    def loss(roles, batch, draw):
        seen.append(draw.uniform(2))
        return denoising(roles["net"], batch, draw, weights.v, uniform_times())

    net = MLP(2, width=8)
    phases, roles, optims = (
        [Phase("net", loss)],
        {"net": Denoiser(net, vp(), "v")},
        {"net": torch.optim.SGD(net.parameters(), 0.0)},
    )
    fit(
        phases,
        roles,
        optims,
        lambda step: Batch(torch.zeros(2, 2)),
        3,
        lambda step: Draw(step % 2),
    )
    assert (seen[0] == seen[2]).all() and (seen[0] != seen[1]).any()


def test_train_is_adam_with_a_falling_rate_and_one_stream_of_draws():
    """Three steps by hand; at the last the rate is a quarter of the first, ½(1 + cos ⅔π)."""
    ours, theirs = linear(), linear()
    data = lambda step: Batch(normals(8, 2, seed=step).float())

    def loss(net, batch, draw):
        return Loss((net(batch.x0) - draw.normal(batch.x0)).square().mean(), {})

    dlib.train(ours, lambda batch, draw: loss(ours, batch, draw), data, 3, lr=0.1, seed=5)
    optim, draw = torch.optim.Adam(theirs.parameters(), 0.1), Draw(5)
    for step, share in enumerate((1.0, 0.75, 0.25)):
        optim.param_groups[0]["lr"] = 0.1 * share
        optim.zero_grad()
        loss(theirs, data(step), draw).value.backward()
        optim.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
