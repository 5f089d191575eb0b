"""The reference solution: against closed forms, against itself at another tolerance, there and
back.
"""

import math

import pytest
import torch
from truth import MIXTURES, SCHEDULES, appendix_a, gaussian, line, normals

from dlib import NULL, Denoiser, exact, flow, guided, reference, vp
from dlib.nets import MLP
from toy_data.mixtures import labelled

ENDS = {"vp": (1.0, 0.01), "cosine": (0.99, 0.01), "flow": (0.99, 0.01), "edm": (0.9, 0.1)}


@pytest.mark.parametrize("name", list(ENDS))
def test_gaussian_data_has_a_closed_form(name):
    """x_b = x_a √(V_b/V_a) with V = α²c² + σ², in both directions."""
    schedule, c = SCHEDULES[name], 0.7
    a, b = schedule.levels(ENDS[name])
    ratio = math.sqrt((b.alpha**2 * c**2 + b.sigma**2) / (a.alpha**2 * c**2 + a.sigma**2))
    model, x = exact(gaussian(c), schedule), normals(6, 2)
    assert (reference(model, x, a, b) / (ratio * x) - 1).abs().max() < 1e-10
    assert (reference(model, ratio * x, b, a) / x - 1).abs().max() < 1e-10


@pytest.mark.parametrize("mixture", list(MIXTURES))
def test_two_tolerances_agree(mixture):
    model, x = exact(MIXTURES[mixture](), vp()), normals(16, 2)
    a, b = vp().levels([1.0, 0.01])
    assert (reference(model, x, a, b) - reference(model, x, a, b, rtol=2e-13)).abs().max() < 1e-10


def test_there_and_back():
    model, x = exact(appendix_a(), vp()), normals(16, 2)
    a, b = vp().levels([1.0, 0.01])
    assert (reference(model, reference(model, x, a, b), b, a) - x).abs().max() < 1e-9


def test_all_schedules_share_one_ode_in_kappa():
    """The path in (x/α, σ/α) does not depend on the schedule."""
    kappa, ends = (20.0, 0.05), []
    y = 20 * normals(8, 2)
    for name in ("vp", "flow", "edm", "cosine"):
        schedule = SCHEDULES[name]
        a, b = (schedule.at_lam(-math.log(k)) for k in kappa)
        ends.append(reference(exact(appendix_a(), schedule), a.alpha * y, a, b) / b.alpha)
    assert max((end - ends[0]).abs().max().item() for end in ends[1:]) < 1e-9


def test_on_a_line_every_point_keeps_its_quantile():
    """Paths of the ODE cannot cross."""
    mixture, (a, b) = line(), vp().levels([1.0, 0.01])
    x = a.sigma * normals(50, 1)
    assert (
        mixture.cdf(reference(exact(mixture, vp()), x, a, b), b) - mixture.cdf(x, a)
    ).abs().max() < 1e-9


def test_a_condition_is_handed_on():
    model = guided(exact(labelled(), vp()), 2.0, torch.tensor(NULL))
    a, b = vp().levels([1.0, 0.01])
    x = normals(1, 2).expand(2, 2).contiguous()
    left, right = reference(model, x, a, b, cond=torch.tensor([0, 1]))
    assert left[0] < 0 < right[0]


def test_a_network_with_weights_can_be_solved_too():
    model = Denoiser(MLP(2, width=8, depth=1).double(), vp(), "v")
    a, b = vp().levels([1.0, 0.1])
    assert not reference(model, normals(3, 2), a, b, rtol=1e-6).requires_grad


def test_bad_input():
    model, x = exact(appendix_a(), flow()), normals(2, 2)
    with pytest.raises(
        ValueError, match=r"x is torch.float32; an error of 1e-10 needs x.double\(\)"
    ):
        reference(model, x.float(), flow().at(0.9), flow().at(0.1))
    for ends in ((1.0, 0.1), (0.9, 0.0)):
        with pytest.raises(
            ValueError, match="both must be finite: use t_max=0.999 or t_min=1e-3"
        ):
            reference(model, x, *flow().levels(ends))
