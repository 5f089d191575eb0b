"""The chapters' training loop: it trains what a role trains, and its rates fall."""

import torch

from dlib import Batch, Denoiser, Draw, Loss, Phase, Recipe, cosine, twin
from dlib.nets import MLP
from toy_data import distil, learn


def denoiser(net):
    return Denoiser(net, cosine(), "v")


def constant(role):
    """A phase whose gradient never changes: the sum of the role's outputs at one point."""

    def loss(roles, batch, draw):
        net = roles[role].net
        value = net(batch.x0, torch.full((len(batch.x0),), 0.5), None).sum()
        return Loss(value, {"loss": value.detach()})

    return Phase(role, loss)


def data(step):
    return Batch(torch.ones(4, 2))


def test_it_trains_the_adapters_of_a_twin_and_nothing_of_its_base():
    torch.manual_seed(0)
    base = MLP(2, width=16, depth=1)
    torch.nn.init.normal_(base.leave.weight)
    fake, before = twin(base, rank=2), {name: weight.clone() for name, weight in base.state_dict().items()}
    history = learn(Recipe((constant("fake"),), ("fake",)), {"fake": denoiser(fake)}, data, 5, {"fake": 1e-2})
    assert history["fake/loss"][-1] < history["fake/loss"][0] and len(history["fake/loss"]) == 5
    assert all(torch.equal(weight, before[name]) for name, weight in base.state_dict().items())


def test_the_rates_fall_along_a_cosine_to_zero_and_adam_has_no_momentum():
    """A constant gradient moves a weight by the rate: steps of rate (1 + cos πk/n)/2, n(n + 1)/2n of them in all."""
    net = torch.nn.Linear(1, 1, bias=False)
    model = Denoiser(lambda x, t, cond: net(x), cosine(), "v")
    model.net.inner = net
    places = []
    phase = Phase("student", lambda roles, batch, draw: (places.append(net.weight.item()), Loss(net.weight.sum(), {}))[1])
    learn(Recipe((phase,), ("student",)), {"student": model}, lambda step: Batch(torch.ones(1, 1)), 8, {"student": 0.1})
    moved = -torch.tensor(places).diff()
    torch.testing.assert_close(moved, 0.05 * (1 + torch.cos(torch.pi * torch.arange(7) / 8)), rtol=1e-3, atol=1e-6)


def test_a_seed_repeats_and_another_does_not():
    def run(seed):
        torch.manual_seed(0)
        model, seen = denoiser(MLP(2, width=8, depth=1)), []
        phase = Phase("student", lambda roles, batch, draw: (seen.append(draw.uniform(1).item()), constant("student").loss(roles, batch, draw))[1])
        learn(Recipe((phase,), ("student",)), {"student": model}, data, 3, {"student": 1e-3}, seed)
        return seen

    assert run(1) == run(1) != run(2)
    assert run(0) == [Draw(0).uniform(3)[i].item() for i in range(3)]


class Times(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, x, t, cond):
        return self.weight * x


def test_distil_trains_a_copy_against_its_average_and_leaves_the_start_alone():
    """A constant gradient moves the copy by the rate; the target is the average by its formula, or the copy itself for decay 0."""

    def path(decay):
        start, seen = denoiser(Times(0.5).requires_grad_(False)), []

        def loss(roles, batch, draw):
            mine, other = roles["student"].net.weight, roles["target"].net.weight
            seen.append((mine.item(), other.item()))
            assert roles["teacher"] is start and not other.requires_grad
            return Loss(mine.sum(), {})

        student = distil(Recipe((Phase("student", loss),), ("student", "teacher", "target")), start, start, data, 4, lr=0.1, decay=decay)
        assert start.net.weight.item() == 0.5 and student.net is not start.net
        assert not student(torch.ones(1, 1), cosine().at(0.5)).x0.requires_grad
        return seen

    student, target = torch.tensor(path(0.95)).T
    torch.testing.assert_close(student.diff(), -0.05 * (1 + torch.cos(torch.pi * torch.arange(3) / 4)), rtol=1e-3, atol=1e-6)
    expected = [0.5]
    for count, weight in enumerate(student[1:].tolist()):
        keep = min(0.95, (1 + count) / (10 + count))
        expected.append(keep * expected[-1] + (1 - keep) * weight)
    torch.testing.assert_close(target, torch.tensor(expected))
    same = torch.tensor(path(0.0)).T
    torch.testing.assert_close(same[0], same[1])
