"""Plausible wrong twins: what the tests of twins look for is there in each of them."""

from test_lora import X, make
from truth import mutant

from dlib import lora
from dlib.lora import adapters, twin


def test_a_copy_that_does_not_share_or_that_shares_flags_is_caught(monkeypatch):
    """The two ways to get `twin` wrong: weights of its own, or the base's own parameters with
    its flags.
    """
    monkeypatch.setattr(
        lora, "twin", mutant(twin, "copy.deepcopy(net, shared)", "copy.deepcopy(net)")
    )
    assert lora.twin(make(), 2).grouped.weight.data_ptr() != make().grouped.weight.data_ptr()
    net = make()
    sharing = mutant(
        twin, "nn.Parameter(weight.detach(), requires_grad=False)", "weight.requires_grad_(False)"
    )
    sharing(net, 2)
    assert not any(p.requires_grad for p in net.parameters()), (
        "this is what the flags test looks for"
    )


def left_by_freezing_the_fake(make_twin):
    """The student's gradient over the undisturbed one, when the fake is frozen between the
    student's two passes.
    """
    net, left = make(), []
    student, fake = make_twin(net, 2), make_twin(net, 2)
    for frozen in ((), tuple(adapters(fake).values())):
        student.zero_grad()
        y = student(X).square().sum()
        for weight in frozen:
            weight.requires_grad_(False)
        y.backward()
        left.append(
            sum(p.grad.norm().item() for p in adapters(student).values() if p.grad is not None)
        )
    return left[1] / left[0]


def test_freezing_one_twin_leaves_the_other_s_gradient_and_twins_that_share_adapters_are_caught(
    monkeypatch,
):
    """Two plausible twins fall into the trap: one that adapts its base in place, as peft does,
    and one that keeps adapters by weight.
    """
    assert left_by_freezing_the_fake(twin) == 1
    in_place = mutant(twin, "copy.deepcopy(net, shared)", "net")
    # a network that is adapted already comes back as it is
    in_place.__globals__.update(
        {
            "require": lambda *ignored: None,
            "_matching": lambda net, targets: (
                [] if lora._layers(net) else lora._matching(net, targets)
            ),
        }
    )
    assert left_by_freezing_the_fake(in_place) == 0
    adapt, kept = lora.LowRank.adapt, {}

    def once_a_weight(self, rank, alpha):
        adapt(self, rank, alpha)
        self.lora_A, self.lora_B = kept.setdefault(
            self.weight.data_ptr(), (self.lora_A, self.lora_B)
        )

    monkeypatch.setattr(lora.LowRank, "adapt", once_a_weight)
    assert left_by_freezing_the_fake(twin) == 0
