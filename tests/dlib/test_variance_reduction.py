"""The variance-reduced target against sums over every batch that could have been drawn."""

from itertools import product
from math import comb

import pytest
import torch
from truth import F64, appendix_a, mutant, normals

from dlib import CLEAN, NoiseLevel, Batch, Draw, metrics, vp
from dlib.losses.variance_reduction import Bank, among, marks, reduced, variance_reduced_target


def with_memo(x0, cond):
    """A batch whose rows are each other's references."""
    return Batch(x0, cond, memo={"references": x0, "shared": among(marks(cond))})


LEVEL = vp().at_lam(torch.tensor(0.75, dtype=F64).log().item())  # α = .6, σ = .8
ATOMS = torch.tensor([[-1.0, 0.3], [0.4, -0.8], [1.3, 0.5]], dtype=F64)
CHANCE = torch.tensor([0.5, 0.2, 0.3], dtype=F64)
X = torch.tensor([[0.2, 0.1]], dtype=F64)


def posterior(atoms=ATOMS, chance=CHANCE, x=X, level=LEVEL):
    """p(x₀ = atom | x), by Bayes' rule as it is written."""
    square = (x - level.alpha * atoms).square().sum(1)
    joint = chance * torch.exp(-square / (2 * level.sigma**2))
    return joint / joint.sum()


def every_batch(n, own=True, twice=False, target=variance_reduced_target, others=None):
    """(probabilities, x̄₀) over all the batches of n atoms, of which the first made x (`own`),
    counted twice if so asked; the others are drawn by `others`.
    """
    places = torch.tensor(list(product(range(3), repeat=n)))
    free = CHANCE if others is None else others
    first = posterior() if own else free
    chance = first[places[:, 0]] * free[places[:, 1:]].prod(1)
    if twice:
        places = torch.cat([places[:, :1], places], 1)
    made = [target(X, LEVEL, ATOMS[batch]).x0[0] for batch in places]
    return chance, torch.stack(made)


def mean_and_variance(*given, **how):
    chance, made = every_batch(*given, **how)
    mean = chance @ made
    return mean, (chance @ (made - mean).square()).sum().item()


def is_unbiased(target=variance_reduced_target):
    truth = posterior() @ ATOMS
    return all(
        torch.allclose(mean_and_variance(n, target=target)[0], truth, rtol=0, atol=1e-12)
        for n in (1, 2, 3, 5)
    )


def test_with_the_own_sample_the_mean_is_the_posterior_mean_for_every_n():
    assert is_unbiased()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(weights @ clean)", "(weights @ clean / len(clean))"),  # the lecture's spare 1/n
        ("/ sigma**2", "/ sigma"),
        ("alpha**2 * clean", "alpha * clean"),
        ("clean.square().sum(1) / 2", "clean.square().sum(1)"),
        ("clean.square().sum(1)", "clean.square().mean(1)"),
        ("(alpha * inner", "(inner"),
        ("softmax(fit, 1)", "softmax(-fit, 1)"),
    ],
)
def test_slips_in_the_target_are_caught(old, new):
    assert not is_unbiased(mutant(variance_reduced_target, old, new))


def test_without_it_or_with_it_twice_the_mean_is_off():
    """Without it by O(1/n)."""
    truth = posterior() @ ATOMS
    off = lambda *given, **how: (mean_and_variance(*given, **how)[0] - truth).norm().item()
    assert off(1, own=False) > 0.1 and off(2, twice=True) > 0.01
    without = {n: off(n, own=False) for n in (2, 4, 6)}
    assert metrics.order(without) == pytest.approx(1, abs=0.05)


def test_the_variance_falls_with_every_reference_and_starts_at_the_posteriors():
    variances = [mean_and_variance(n)[1] for n in range(1, 7)]
    plain = posterior() @ ATOMS.square() - (posterior() @ ATOMS).square()
    assert variances[0] == pytest.approx(plain.sum().item(), rel=1e-12)
    assert all(after < before for before, after in zip(variances, variances[1:]))


def test_the_error_falls_like_one_over_n():
    """A coin that is 1 with probability .3: the other references matter by how many are 1, so
    the mean over them is a binomial sum, and the order is that of the sum.
    """
    coin, chance = torch.tensor([[1.0], [-1.0]], dtype=F64), torch.tensor([0.3, 0.7], dtype=F64)
    x = torch.tensor([[0.2]], dtype=F64)
    made = posterior(coin, chance, x)
    truth = made @ coin[:, 0]

    def error(n):
        total = 0.0
        for own, heads in product((0, 1), range(n)):
            k = heads + (own == 0)
            batch = torch.cat([coin[:1].expand(k, 1), coin[1:].expand(n - k, 1)])
            p = comb(n - 1, heads) * 0.3**heads * 0.7 ** (n - 1 - heads)
            guess = variance_reduced_target(x, LEVEL, batch).x0
            total += made[own] * p * (guess[0, 0] - truth) ** 2
        return total.item()

    assert metrics.order({n: error(n) for n in (32, 64, 128)}) == pytest.approx(1, abs=0.03)


def test_the_cards_figures_at_one_point_of_the_three_modes():
    """Fixture A, α = 1, σ = .8, x = (.3, .1), two references: no bias. Without the own sample one
    is left, whose mean is the data's: a bias of −.342 in the first coordinate. And the
    variances of two and of one, over 200 000 draws.
    """
    level, n, data = NoiseLevel(0.0, 1.0, 0.8, 0.0), 200_000, appendix_a()
    x = torch.tensor([[0.3, 0.1]], dtype=F64).expand(n, 2)
    own, draw = data.posterior_sample(x, level, Draw(0)), Draw(1)
    one, two = (data.sample(n, draw)[0] for _ in range(2))

    def both(a, b):  # each row has its own two references, so by the formula
        far = torch.stack([(x - a).square().sum(1), (x - b).square().sum(1)], 1)
        w = torch.softmax(-far / (2 * level.sigma**2), 1)
        return w[:, :1] * a + w[:, 1:] * b

    truth = data.posterior_means(x[:1], level)[0][0]
    assert (both(own, one).mean(0) - truth).abs().max() < 5 * 0.0015
    assert (one.mean(0) - truth)[0] == pytest.approx(-0.342, abs=0.01)
    assert -0.2 < (both(one, two).mean(0) - truth)[0] < -0.05  # two others
    ours = torch.stack(
        [
            variance_reduced_target(x[:1], level, torch.stack([own[i], one[i]])).x0[0]
            for i in range(50)
        ]
    )
    assert torch.allclose(ours, both(own, one)[:50], rtol=0, atol=1e-12)
    assert both(own, one).var(0).sum() == pytest.approx(0.404, abs=0.006)
    assert own.var(0).sum() == pytest.approx(0.804, abs=0.008)


def test_many_references_give_the_exact_posterior_mean_on_any_shape():
    """20 000 references leave an error of a few hundredths at these levels."""
    data, schedule = appendix_a(), vp()
    clean = data.sample(20_000, Draw(0))[0]
    level = schedule.at(torch.linspace(0.3, 0.9, 50, dtype=F64), like=clean[:50])
    x = level.alpha * clean[:50] + level.sigma * normals(50, 2)
    found = variance_reduced_target(x, level, clean)
    truth, eps = data.posterior_means(x, level)
    assert metrics.rms(found.x0, truth) < 0.05
    score = (level.alpha * found.x0 - x) / level.sigma**2
    assert torch.allclose(score, -eps / level.sigma, rtol=0, atol=0.2)
    folded = variance_reduced_target(
        x.view(50, 1, 2),
        level._replace(alpha=level.alpha[:, None], sigma=level.sigma[:, None]),
        clean.view(-1, 1, 2),
    )
    assert torch.equal(folded.x0.view(50, 2), found.x0)


def test_a_condition_restricts_the_references_and_removes_the_bias():
    """The last two atoms are class 1. References of class 1 leave the mean exact; references of
    all classes move it towards the first atom.
    """
    within = torch.tensor([0.0, 0.4, 0.6], dtype=F64)
    truth = posterior(chance=within) @ ATOMS

    def mean(others):
        places = torch.tensor(list(product(range(3), repeat=3)))
        chance = posterior(chance=within)[places[:, 0]] * others[places[:, 1:]].prod(1)
        made = [variance_reduced_target(X, LEVEL, ATOMS[batch]).x0[0] for batch in places]
        return chance @ torch.stack(made)

    assert torch.allclose(mean(within), truth, rtol=0, atol=1e-12)
    assert (mean(CHANCE) - truth)[0] < -0.2
    label = torch.tensor([1, 0, 1, 1, 0])
    rows = ATOMS[torch.tensor([1, 0, 2, 1, 0])]
    x = LEVEL.alpha * rows + LEVEL.sigma * normals(5, 2)
    restricted = variance_reduced_target(x, LEVEL, rows, among(marks(label)))
    apart = variance_reduced_target(x[label == 1], LEVEL, rows[label == 1])
    assert torch.allclose(restricted.x0[label == 1], apart.x0, rtol=0, atol=1e-12)
    assert torch.equal(reduced(x, LEVEL, with_memo(rows, label)), restricted.x0)


def test_one_reference_is_the_plain_estimate_bit_for_bit():
    x0, level = normals(6, 3, 4, 4).float(), vp().at(0.3)
    x = level.alpha * x0 + level.sigma * normals(6, 3, 4, 4, seed=1).float()
    found = reduced(x, level, with_memo(x0, torch.arange(6)))
    assert torch.equal(found, x0) and found.dtype == x0.dtype
    assert torch.equal(variance_reduced_target(x[:1], level, x0[:1]).x0, x0[:1])


def test_the_effective_size_is_one_near_the_data_and_n_in_the_noise():
    x0 = normals(64, 32) / 2
    size = lambda kappa: (
        variance_reduced_target(
            x0 + kappa * normals(64, 32, seed=1), NoiseLevel(0.0, 1.0, kappa, 0.0), x0
        ).size
    )
    assert torch.allclose(size(0.01), torch.ones(64, dtype=F64), atol=1e-6)
    assert torch.allclose(size(1e4), torch.full((64,), 64.0, dtype=F64), rtol=1e-3)
    assert 2 < size(1.0).mean() < 5 and 40 < size(5.0).mean() < 54  # card: 3.1 and 47


def test_float32_and_autocast_lose_nothing_near_the_clean_end():
    """Neighbours one noise apart in 3072 values: ‖x‖²/σ² is 2e8, so float32 would leave errors
    of 16 in an exponent.
    """
    base, level = normals(1, 3072).float() / 2, NoiseLevel(0.0, 1.0, 0.002, 0.0)
    clean = base + 2e-5 * normals(8, 3072, seed=1).float()
    x = clean[:4] + level.sigma * normals(4, 3072, seed=2).float()
    far = (x.double()[:, None] - clean.double()).square().sum(2)
    truth = torch.softmax(-far / (2 * level.sigma**2), 1)
    assert truth.max() < 0.9  # several count

    def off(target):
        return (target(x, level, clean).weights - truth).abs().max()

    assert off(variance_reduced_target) < 1e-6
    with torch.autocast("cpu", torch.bfloat16):
        assert off(variance_reduced_target) < 1e-6
    half = "(noisy.float() @ clean.T.float()).double()"
    assert off(mutant(variance_reduced_target, "noisy @ clean.T", half)) > 1e-3


def test_marks_are_equal_for_equal_conditions_and_no_others():
    words = torch.tensor([[1, 4, 8], [4, 1, 8], [2, 2, 9], [1, 4, 8]])
    same = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]]).bool()
    for cond in (words, words.half(), words.float(), words.double(), words.bfloat16()):
        assert torch.equal(among(marks(cond)), same)
    one = {"text": normals(4, 2, 3).float(), "size": torch.tensor([7, 7, 7, 8])}
    swapped = {"size": one["size"], "text": one["text"]}
    assert torch.equal(marks(one), marks(swapped))
    two = {"text": one["text"][:1].expand(4, 2, 3), "size": one["size"]}
    assert torch.equal(among(marks(two))[3], torch.tensor([0, 0, 0, 1]).bool())
    assert torch.equal(among(marks(words[:2]), marks(words)), same[:2])


def test_the_empty_condition_stands_for_all_the_data():
    every = [[1, 0, 1], [1, 1, 1], [1, 0, 1]]
    assert among(marks(torch.tensor([2, -1, 2]), -1)).int().tolist() == every
    assert among(marks(torch.tensor([0, -1, 0]), -1)).int().tolist() == every
    cond = {"text": torch.tensor([[1.0, 2.0], [0.0, 0.5], [1.0, 2.0]]).bfloat16()}
    null = {"text": torch.tensor([0.0, 0.5])}  # in another dtype than the data's
    assert among(marks(cond, null)).int().tolist() == every


def test_a_bank_keeps_the_last_of_each_class_and_is_a_value():
    x0 = torch.arange(8.0)[:, None]
    empty = Bank.empty(2, 3, x0)
    first = empty.add(x0[:5], torch.tensor([1, 0, 1, 1, 1]))  # four of class 1, room for three
    assert not empty.count.any() and first.count.tolist() == [1, 4]
    assert sorted(first.x0[1, :, 0].tolist()) == [2, 3, 4]
    second = first.add(x0[5:], torch.tensor([1, 0, 1]))
    assert sorted(second.x0[1, :, 0].tolist()) == [4, 5, 7]
    assert second.x0[0, :, 0].tolist()[:2] == [1, 6]
    assert second.shared(torch.tensor([0, 1])).int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 1],
    ]


@pytest.mark.parametrize(
    ("references", "shared", "says"),
    [
        (normals(3, 5), None, "the shape of x's rows"),
        (normals(0, 2), None, "clean samples"),
        (normals(3, 2), torch.ones(3, 2).bool(), r"wanted \(2, 3\) of bool"),
        (normals(3, 2), torch.ones(2, 3), "of bool"),
        (normals(3, 2), torch.tensor([[1, 1, 1], [0, 0, 0]]).bool(), "no reference at all"),
    ],
)
def test_bad_input(references, shared, says):
    with pytest.raises(ValueError, match=says):
        variance_reduced_target(normals(2, 2), LEVEL, references, shared)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: reduced(X2, LEVEL, Batch(X2)), "memo has .., wanted references and shared"),
        (lambda: variance_reduced_target(X2, CLEAN, X2), "at σ = 0 nothing is hidden"),
        (
            lambda: variance_reduced_target(X2, vp().at(torch.zeros(2), like=X2), X2),
            "at σ = 0 nothing is hidden",
        ),
        (lambda: marks(None), "no tensors"),
        (lambda: marks({"a": torch.ones(4, 2), "b": torch.ones(1)}), r"cond\['b'\]\": \(1,\)"),
        (lambda: among(torch.ones(2, 2), torch.ones(2)), r"shapes \(2, 2\) and \(2,\)"),
        (lambda: Bank.empty(2, 0, X2), "size = 0 and classes = 2, wanted at least 1 place"),
        (lambda: Bank.empty(0, 2, X2), "classes = 0"),
        (
            lambda: BANK.add(torch.ones(2, 1), torch.tensor([0, 1])),
            r"\(2, 1\) .* wanted \(B, 2\)",
        ),
        (lambda: BANK.add(X2, torch.tensor([0])), r"labels \(1,\)"),
        (lambda: BANK.shared(torch.tensor([[0], [1]])), r"labels have shape \(2, 1\)"),
        (lambda: BANK.add(X2, torch.tensor([[0], [1]])), r"labels \(2, 1\)"),
        (lambda: BANK.add(X2, torch.tensor([0, -1])), r"labels \[-1\] .* 0 … 1, .*NULL = −1"),
        (lambda: BANK.add(X2, torch.tensor([2, 1])), r"labels \[2\] are none of the 2 classes"),
        (lambda: BANK.shared(torch.tensor([-1])), r"labels \[-1\] .*leave such rows out"),
        (lambda: BANK.shared(torch.tensor([1, 5])), r"labels \[5\] are none"),
    ],
)
def test_bad_input_is_told_what_is_wanted(call, says):
    with pytest.raises(ValueError, match=says):
        call()


X2 = normals(2, 2)
BANK = Bank.empty(2, 3, X2)
