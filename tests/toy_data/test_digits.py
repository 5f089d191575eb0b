import pytest
import torch

from dlib import NULL
from toy_data.digits import digit_batches, digits, digits_split


def rows(x):
    return {tuple(row.flatten().tolist()) for row in x}


def test_digits_are_scikit_learn_s_on_minus_one_to_one():
    x0, labels = digits()
    assert x0.shape == (1797, 1, 8, 8) and x0.dtype == torch.float32
    assert (
        labels.shape == (1797,)
        and labels.dtype == torch.int64
        and labels.unique().tolist() == list(range(10))
    )
    assert x0.min() == -1 and x0.max() == 1
    grey = (x0 + 1) * 8
    assert torch.equal(grey, grey.round())  # 17 grey values, scaled and nothing else
    assert grey[0, 0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0] and labels[:12].tolist() == [
        *range(10),
        0,
        1,
    ]


def test_the_caller_owns_what_digits_returns():
    digits()[0].zero_()
    assert digits()[0].min() == -1


def test_the_split_is_disjoint_complete_and_stratified():
    (train, train_labels), (held, held_labels) = digits_split()
    assert (len(train), len(held)) == (1501, 296)
    assert not rows(train) & rows(held)
    assert rows(train) | rows(held) == rows(digits()[0])
    share = torch.bincount(held_labels) / torch.bincount(torch.cat([train_labels, held_labels]))
    assert bool(((share - 1 / 6).abs() < 0.01).all())


def test_batches_depend_on_seed_and_step_alone():
    data = digit_batches(16, seed=3)
    later = data(1000)
    data(1001)
    torch.manual_seed(5)
    again = digit_batches(16, seed=3)(1000)
    assert torch.equal(later.x0, again.x0) and torch.equal(later.cond, again.cond)
    assert not torch.equal(later.x0, data(1001).x0)
    assert not torch.equal(later.x0, digit_batches(16, seed=4)(1000).x0)


def test_batches_are_training_pictures_with_their_own_labels():
    (train, labels), (held, _) = digits_split()
    known = {tuple(x.flatten().tolist()): int(label) for x, label in zip(train, labels)}
    batch = digit_batches(256, seed=0, drop=0.0)(0)
    assert [known[tuple(x.flatten().tolist())] for x in batch.x0] == batch.cond.tolist()
    assert not rows(batch.x0) & rows(held)


@pytest.mark.parametrize("drop", [0.0, 0.15, 1.0])
def test_the_stated_share_of_labels_is_dropped(drop):
    data, n = digit_batches(500, seed=0, drop=drop), 20
    dropped = sum(int((data(step).cond == NULL).sum()) for step in range(n))
    # 4 standard deviations: 6e-5 false alarms
    assert abs(dropped - n * 500 * drop) <= 4 * (n * 500 * drop * (1 - drop)) ** 0.5
    assert bool((data(0).cond >= NULL).all())
