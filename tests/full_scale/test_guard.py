"""What watches a run: clipping, drift, alarms that a restart does not silence, and weights
whose configuration lies.
"""

from dataclasses import replace

import pytest
import torch

from full_scale.run.engine import placed
from full_scale.families import open_family
from full_scale.run.guard import Alarms, check_target, gradient_norm, moved
from full_scale.data.rows import Rows
from full_scale.train import open_engine, pictures


def test_clipping_scales_the_gradient_to_the_norm_that_was_asked(settings, processes):
    net = torch.nn.Linear(3, 2)
    net(torch.ones(1, 3)).sum().backward()
    norm = lambda clip: gradient_norm(list(net.parameters()), clip).item()
    assert norm(0.0) == pytest.approx(8**0.5) and norm(1.0) == pytest.approx(8**0.5)
    assert norm(0.0) == pytest.approx(1.0, abs=1e-5)


def test_drift_is_the_relative_distance_to_the_teacher(settings, processes):
    for flags in ([], ["--lora-rank", "3", "--lora-alpha", "6"]):
        engine = open_engine(settings(*flags, out=f"drift{len(flags)}"), processes)
        student = engine.cast.trained["student"].inner
        base = open_family("sd", None, torch.device("cpu")).net
        with torch.no_grad():
            for p in engine.cast.trained["student"].weights.values():
                p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
        # adapters say themselves how far they are
        teacher = None if flags else open_family("sd", None, torch.device("cpu")).denoiser().net
        change, size = moved(student, teacher)
        from dlib.lora import merged

        after = dict((merged(student) if flags else student).unet.named_parameters())
        pairs = [
            (after[name], p)
            for name, p in base.named_parameters()
            if not flags or (after[name] != p).any()
        ]
        assert change.item() == pytest.approx(
            sum((a - p).square().sum().item() for a, p in pairs), rel=1e-3
        )
        assert size.item() == pytest.approx(
            sum(p.square().sum().item() for _, p in pairs), rel=1e-3
        )


def test_alarms_compare_with_the_start_and_speak_once():
    alarms = Alarms(100, first=3)
    for _ in range(3):
        assert alarms({"student/spread": 1.0, "other": 0.0}) == []
    assert alarms({"student/spread": 0.5}) == []
    (found,) = alarms({"student/spread": 0.2})
    assert "student/spread is 0.2, at first it was 1" in found and "pictures" in found
    assert (
        alarms({"student/spread": 0.2}) == []
        and alarms({"student/spread": 1.0}) == []
        and len(alarms({"student/spread": 0.1})) == 1
    )


def test_preference_runs_have_alarms_of_their_own():
    """A reward that no longer differs, pairs whose two pictures both get worse: the median of
    the last values counts, not one of them. That winners get worse a little less than the losers
    do is the exact tilt's case.
    """
    alarms = Alarms(100, first=3)
    start = {"student/reward_spread": 0.5, "student/better": 0.02, "student/worse": 0.12}
    for _ in range(3):
        assert alarms(start) == []
    assert alarms({**start, "student/reward_spread": 5.0, "student/better": 3.0}) == []
    assert "same reward" in alarms({**start, "student/reward_spread": 0.01})[0]
    assert alarms(start) == []
    both = {**start, "student/better": 0.21, "student/worse": 0.31}
    assert alarms(both) == []  # one of the last three
    (found,) = alarms(both)
    assert "student/better is 0.21, and student/worse only 0.1 above" in found
    assert "hyper.beta" in found and alarms(both) == []
    exact = {**start, "student/better": 0.19, "student/worse": 0.29}
    for _ in range(3):
        assert alarms(exact) == []
    improved = {**start, "student/better": -0.1, "student/worse": -0.2}
    for _ in range(3):
        assert alarms(improved) == []


@pytest.mark.parametrize(("metric", "share"), [("kl", 0.05), ("anchor", 1)])
def test_a_student_far_from_its_reference_is_told_of_early(metric, share):
    """So much for each of a hundred values, in the median of five lines. Fewer lines say nothing,
    and a run needs no usual distance to be compared with.
    """
    alarms, name = Alarms(100), f"student/{metric}"
    shares = [1.1] * 2 + [0.9] * 3 + [1.1] * 3 + [0.1] * 3 + [1.1] * 3
    said = [alarms({name: 100 * share * part}) for part in shares]
    assert [bool(words) for words in said] == [k in (7, 13) for k in range(14)]
    assert f"more than {share} for each of a sample's 100 values" in said[7][0]
    assert said[7][0].startswith(f"{name} is") and "raise hyper.kl" in said[7][0]


def test_an_alarm_is_said_once_and_a_resumed_run_keeps_its_own_start(settings, processes, capsys):
    """Twenty lines of the log are the start, also for the run that goes on; a run of its own
    would take its first steps for it.
    """
    flags = ["--lora-rank", "2", "--save-every", "30"]
    engine = open_engine(settings(*flags, "--steps", "24"), processes)
    engine.run(pictures)
    assert "ALARM" not in capsys.readouterr().out
    engine = open_engine(settings(*flags, "--steps", "28"), processes)
    with torch.no_grad():
        for weight in engine.cast.trained["student"].weights.values():
            weight.add_(1.0)  # what a crash of the learning rate would do
    engine.run(pictures)
    said = capsys.readouterr().out
    assert (
        said.count("ALARM at step") == 1
        and "ALARM at step 24: student/drift is" in said
        and "lower --lr" in said
    )


def test_weights_whose_configuration_names_the_other_target_are_refused(
    shapes_data, data, family
):
    """The shapes' teacher is trained, and predicts v. Random weights follow no target and
    pass, whatever they say.
    """
    teacher, rows = open_family("shapes", None, torch.device("cpu")).denoiser(), Rows(shapes_data)
    check_target(teacher, rows[range(8)])
    with pytest.raises(
        ValueError,
        match="says prediction_type epsilon, but on these data the network answers with "
        "v_prediction .*scheduler_config.json",
    ):
        check_target(replace(teacher, predicts="eps"), rows[range(8)])
    for kind in ("eps", "v"):
        check_target(
            replace(family.denoiser(), predicts=kind),
            placed(Rows(data)[range(4)], torch.device("cpu")),
        )
