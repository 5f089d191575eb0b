"""Denoiser → denoiser: guidance, freezing and counting."""

import pytest
import torch
from truth import F64, SCHEDULES, line, mutant, normals, per_row

from dlib import NULL, Denoiser, counted, denoiser, exact, frozen, guided, vp
from dlib.prediction import FACES
from toy_data.mixtures import labelled

WORD, EMPTY = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.0])


def words(batch):
    return WORD.expand(batch, 2).clone()


def reader(predicts="eps", schedule=vp()):
    """A nonlinear network that reads x, the time and a condition of shape (B, 2)."""
    return Denoiser(
        lambda x, t, c: torch.tanh(x + t[:, None].to(x) + c.to(x)), schedule, predicts
    )


@pytest.mark.parametrize("omega", [-1.0, 0.0, 0.7, 6.5])
@pytest.mark.parametrize("predicts", FACES)
def test_guided_combines_every_face(predicts, omega):
    x, level, model = normals(3, 2), vp().at(0.6), reader(predicts)
    with_c, without = model(x, level, words(3)), model(x, level, EMPTY.expand(3, 2))
    both = guided(model, omega, EMPTY)(x, level, words(3))
    for face in FACES:
        expected = (1 + omega) * getattr(with_c, face) - omega * getattr(without, face)
        assert (getattr(both, face) - expected).abs().max() < 1e-11 * expected.abs().max()


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("omega", [0.0, 2.0])
def test_guided_score_is_the_gradient_of_the_guidance_tilt(name, omega):
    schedule, mixture = SCHEDULES[name], labelled()
    level, label = schedule.at(0.5), torch.tensor([0, 1, 1, 0])
    x = normals(4, 2).requires_grad_()
    (score,) = torch.autograd.grad(mixture.log_guidance_tilt(x, level, label, omega).sum(), x)
    prediction = guided(exact(mixture, schedule), omega, torch.tensor(NULL))(
        x.detach(), level, label
    )
    assert (prediction.score - score).abs().max() < 1e-10 * score.abs().max()


def test_guided_takes_mappings_and_tensor_levels():
    def net(x, t, c):
        return torch.tanh(x + c["text"].mean(1)[:, None] + c["more"]["size"][:, None])

    model = Denoiser(net, vp(), "eps")
    cond = {"text": normals(3, 5), "more": {"size": normals(3)}}
    null = {"text": torch.zeros(5), "more": {"size": torch.tensor(0.3)}}
    empty = {
        "text": torch.zeros(3, 5, dtype=F64),
        "more": {"size": torch.full((3,), 0.3).double()},
    }
    x, level = normals(3, 2), vp().at(0.6)
    expected = 3 * model(x, level, cond).eps - 2 * model(x, level, empty).eps
    assert (guided(model, 2.0, null)(x, level, cond).eps - expected).abs().max() < 1e-12
    assert (
        guided(model, 2.0, null)(x, per_row(level, x), cond).eps - expected
    ).abs().max() < 1e-12


@pytest.mark.parametrize(
    "cond, null, message",
    [
        (None, EMPTY, "guided: no condition given"),
        (
            words(3),
            EMPTY[None],
            r"null has shape \(1, 2\), one sample's condition has \(2,\): pass null without a "
            r"batch axis",
        ),
        ({"text": words(3)}, {"image": EMPTY}, r"cond has keys \['text'\], null has \['image'\]"),
        ({"text": words(3)}, EMPTY, r"cond has keys \['text'\], null has Tensor"),
        (words(4), EMPTY, r"cond has batch \(4,\), x has batch 3"),
    ],
)
def test_guided_names_bad_conditions(cond, null, message):
    with pytest.raises(ValueError, match=message):
        guided(reader(), 1.0, null)(normals(3, 2), vp().at(0.5), cond)


@pytest.mark.parametrize(
    "old, new",
    [
        ("1.0 + omega", "omega"),
        ("torch.lerp(empty, conditional", "torch.lerp(conditional, empty"),
    ],
)
def test_wrong_guidance_is_caught(monkeypatch, old, new):
    monkeypatch.setitem(globals(), "guided", mutant(denoiser.guided, old, new))
    with pytest.raises(AssertionError):
        test_guided_combines_every_face("eps", 0.7)


def test_frozen_is_the_same_but_constant():
    net = torch.nn.Linear(2, 2).double()
    model = Denoiser(lambda x, t, c: net(x), vp(), "eps")
    x = normals(3, 2).requires_grad_()
    live, still = model(x, vp().at(0.5)), frozen(model)(x, vp().at(0.5))
    assert torch.equal(live.x0, still.x0)
    assert live.eps.requires_grad and not still.eps.requires_grad
    still.x0.sum().backward()
    assert net.weight.grad is None
    # only the linear part, through x itself
    assert torch.allclose(x.grad, torch.full_like(x, 1 / vp().at(0.5).alpha))


def test_counted_counts_calls_and_samples():
    model = counted(reader())
    guided_model = guided(model, 1.0, EMPTY)
    for _ in range(3):
        guided_model(normals(5, 2), vp().at(0.5), words(5))
    model(normals(4, 2), vp().at(0.5), words(4)).x0
    assert (model.net.calls, model.net.samples) == (4, 34)
    assert (counted(model).net.calls, model.net.calls) == (0, 4)


def test_exact_with_labels_is_the_conditional_mixture():
    mixture, schedule = line(), vp()
    label, x, level = torch.tensor([0, 1, NULL]), normals(3, 1), schedule.at(0.4)
    z = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(mixture.log_prob(z, level, label).sum(), z)
    assert (exact(mixture, schedule)(x, level, label).score - score).abs().max() < 1e-11


def test_guidance_may_differ_from_sample_to_sample():
    model, cond = exact(labelled(), vp()), torch.tensor([0, 1, 0])
    x, level, omega = normals(3, 2), vp().at(0.6), torch.tensor([0.0, 2.0, 5.0])
    together = guided(model, omega, torch.tensor(NULL))(x, level, cond).eps
    for i in range(3):
        alone = guided(model, omega[i].item(), torch.tensor(NULL))(
            x[i : i + 1], level, cond[i : i + 1]
        ).eps
        assert torch.allclose(together[i : i + 1], alone, atol=1e-14)
