"""What operations make on the meta device is remembered where that is safe, and nowhere else."""

import pytest
import torch

from full_scale.cost import rules
from full_scale.cost.counting import Counter

aten, META = torch.ops.aten, "meta"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(rules, "_known", {})


def empty(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device=META)


def face(found):
    each = found if isinstance(found, tuple) else (found,)
    return [None if x is None else (x.shape, x.stride(), x.dtype, x.device.type) for x in each]


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.mm.default, (empty(2, 3), empty(3, 4))),
        (aten.clone.default, (empty(4, 3).t(),)),
        (aten.native_group_norm.default, (empty(2, 4, 9), None, None, 2, 4, 9, 2, 1e-5)),
        (
            aten.convolution_backward.default,
            (empty(2, 5, 8, 8), empty(2, 3, 8, 8), empty(5, 3, 3, 3), [5], [1, 1], [1, 1], [1, 1])
            + (False, [0, 0], 1, [True, True, False]),
        ),
    ],
    ids=["mm", "clone", "group norm", "convolution's gradient"],
)
def test_the_second_time_is_like_the_first_in_a_storage_of_its_own(func, args):
    (first, flops), (second, again) = (rules.made(func, args, {}) for _ in range(2))
    assert face(first) == face(second) == face(func(*args)) and flops == again
    assert (flops > 0) == (func in (aten.mm.default, aten.convolution_backward.default))
    (known,) = rules._known.values()
    assert known is not None and len(known.outputs) == len(face(first))
    one, other = (x[0] if isinstance(x, tuple) else x for x in (first, second))
    assert one.untyped_storage()._cdata != other.untyped_storage()._cdata


def test_what_lies_in_the_storage_of_another_is_never_made_anew():
    x = empty(2, 6)
    for _ in range(3):
        for func, args in ((aten.view.default, ([3, 4],)), (aten._unsafe_view.default, ([3, 4],)),
                           (aten.add_.Scalar, (1,)), (aten.slice.Tensor, (1, 2, 4))):  # fmt: skip
            found, _ = rules.made(func, (x, *args), {})
            assert found.untyped_storage()._cdata == x.untyped_storage()._cdata, func
    with Counter([x]) as counter:
        y = x.view(3, 4)[1:].add_(1)
    assert (counter.now, y.shape) == (0, (2, 4))


def test_types_of_numbers_and_of_tensors_are_told_apart():
    whole, half = empty(3, dtype=torch.int64), empty(3, dtype=torch.float16)
    for _ in range(2):
        types = [rules.made(aten.mul.Scalar, (x, n), {})[0].dtype
                 for x in (whole, half) for n in (1, 1.0, True)]  # fmt: skip
        assert types == [torch.int64, torch.float32, torch.int64] + 3 * [torch.float16]


def test_tensors_with_values_and_zeros_of_no_storage_are_asked_each_time():
    zeros = torch._efficientzerotensor((2, 3), device=META)
    for _ in range(2):
        found, _ = rules.made(aten.add.Tensor, (torch.ones(2), torch.ones(2)), {})
        assert found.tolist() == [2, 2]
        rules.made(aten.mul.Tensor, (empty(2, 3), torch.tensor(2.0)), {})
        made, _ = rules.made(aten.mul.Tensor, (zeros, empty(2, 3)), {})
        assert made._is_zerotensor() == aten.mul.Tensor(zeros, empty(2, 3))._is_zerotensor()
    assert not any(rules._known.values())
