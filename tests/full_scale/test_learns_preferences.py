"""Students that learn what is liked, through the whole path: pictures on disk → prepare → train
→ sample → the judges of the captioned shapes, who read a picture exactly.
"""

from __future__ import annotations

import json
import math

import pytest
import torch

from dlib import SOLVERS, Draw, frozen, levels, sample
from dlib.guidance import contrasted
from dlib.losses import weights
from dlib.losses.preference import anchor
from dlib.recipes.rewards import inner_times
from full_scale import prepare, rewards
from full_scale.families import open_family
from full_scale.run.settings import read
from full_scale.sources.pictures import picture
from full_scale.train import train
from toy_data import shape_reader
from toy_data.shape_captions import SIZES, draw_codes, say, tokens
from toy_data.shape_scores import asked
from toy_data.shapes import pictures, write_folder

LARGE = SIZES.index("large")


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """A few real pictures: of them only the captions are read."""
    root = tmp_path_factory.mktemp("captioned")
    write_folder(root / "pictures", 200, seed=0)
    return prepared(root, source=(str(root / "pictures"),))


@pytest.fixture(scope="module")
def tasted(tmp_path_factory):
    """Pairs whose caption states no size: of the better picture all things are large, of the
    worse small.
    """
    root, draw = tmp_path_factory.mktemp("tasted"), Draw(5)
    codes = draw_codes(300, draw)
    codes[:, [1, 4]] = 0
    for folder, size in (("large", LARGE), ("small", SIZES.index("small"))):
        sized = codes.clone()
        sized[:, 1], sized[codes[:, 0] > 0, 4] = size, size
        (root / folder).mkdir()
        for n, x in enumerate(pictures(sized, draw)):
            picture(x).save(root / folder / f"{n:03d}.png")
            (root / folder / f"{n:03d}.txt").write_text(say(tuple(codes[n].tolist())))
    return prepared(root, source=(str(root / "large"),), worse=root / "small")


def prepared(root, **which):
    prepare.run(prepare.Config(out=root / "data", family="shapes", tiny=True, batch=64, **which))
    return root / "data"


def run(method, data, out, steps, *more):
    """What the run made of the teacher, and its log."""
    words = ["--method", method, "--family", "shapes", "--tiny", "--data", data, "--out", out]
    words += ["--steps", steps, "--drop", 0, "--device", "cpu", "--show-every", 0]
    words += ["--log-every", 1, "--save-every", steps, *more]
    engine = train(read([str(word) for word in words]))
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return engine.cast.output, [line for line in log if "student/loss" in line]


@pytest.fixture(scope="module")
def teacher():
    return frozen(open_family("shapes", None, torch.device("cpu")).denoiser())


def drawn(model, codes, steps=4, solver="ddim"):
    """Pictures of what the codes say, and the condition that says it."""
    cond = {"text": tokens([say(tuple(code)) for code in codes.tolist()])}
    walk = levels(model.schedule, steps, "sd_trailing", end="clean")
    noise = Draw(0).normal((len(codes), 3, 16, 16))
    return sample(model, noise, walk, SOLVERS[solver], cond, Draw(1)), cond


@torch.no_grad()
def divergence(student, reference):
    """What `reward_gradient` logs as kl, for each of a sample's values: `anchor` in nats, on the
    student's own pictures of 128 captions.
    """
    x, cond = drawn(student, asked()[:128])
    nats = dict(weight=weights.elbo, times=inner_times(student.schedule))
    return anchor(student, reference, x, cond, draw=Draw(2), **nats).value.item() / x[0].numel()


@torch.no_grad()
def judged(model, steps=4, solver="ddim", times=1):
    """Of 512 captions, each of which is drawn so many times, the share whose picture shows what
    they say; of those that state no size, the share whose first thing is large; and the mean
    redness.
    """
    codes = asked().repeat(times, 1)
    x, _ = drawn(model, codes, steps, solver)
    seen = shape_reader.read(x)
    large = seen.code[codes[:, 1] == 0, 1] == LARGE
    right = shape_reader.shows(seen, codes)
    red = rewards.opened("redness", "", torch.device("cpu"))(x, [""] * len(x))
    return right.float().mean().item(), large.float().mean().item(), red.mean().item()


SOFT = ("--lr", 3e-4, "--hyper.omega", 0, "--hyper.clip", 0.01, "--hyper.kl", 1e-4)
TRYING = {
    "ddpo": (*SOFT, "--reward", "captions"),
    "flow_grpo": (*SOFT, "--reward", "shapes", "--hyper.preserving", "--hyper.noise", 0.8),
    "nft": (
        *("--reward", "shapes", "--lr", 5e-4),
        *("--hyper.solver", "ddim", "--roles.old.decay", 0.5),
    ),
}


@pytest.mark.parametrize("method", TRYING)
def test_what_the_judge_likes_is_learnt_by_trying(method, captioned, teacher, tmp_path, capsys):
    """The reward rises, and with it the judge, to whom a picture is right or wrong: he finds
    fewer mistakes on captions and noise that the student was not trained on. Its distance from
    the reference is told, without alarm. `ddpo` is paid by the share of facts that are right,
    the other two by the judge himself. Two of the three were trained with another sampler than
    the one that draws here.
    """
    few = ("--hyper.steps", 2, "--hyper.group", 8, "--hyper.spacing", "sd_trailing")
    more = ("--batch", 128, "--micro", 128)
    student, log = run(method, captioned, tmp_path, 60, *few, *TRYING[method], *more)
    reward = [line["student/reward"] for line in log]
    assert sum(reward[-15:]) > sum(reward[:15])
    before, after = (judged(model, 2, "ancestral", 3)[0] for model in (teacher, student))
    # some 260 of 1536 are wrong before, with a standard deviation of 15; a fifth less is 3.5
    assert 1 - after < 0.8 * (1 - before)
    far = "student/anchor" if method == "nft" else "student/kl"
    assert log[0][far] == 0 < log[-1][far] < float("inf")
    assert "far from its reference" not in capsys.readouterr().out


def test_a_taste_is_learnt_from_pairs_and_the_facts_stay(tasted, teacher, tmp_path):
    """Large things are liked where no size is stated. The judge still finds what the captions
    say, and the log how far the weights are from the reference's. With the pairs turned around the taste is the opposite one, and guidance away from that
    student leads to large things too (Wang et al. 2025).
    """
    mild = ("--hyper.beta", 1000, "--batch", 64, "--micro", 64, "--lr", 2e-5)
    liking, log = run("dpo", tasted, tmp_path / "liking", 30, *mild)
    averse, _ = run("dpo", tasted, tmp_path / "averse", 30, *mild, "--hyper.negative")
    assert log[0]["student/loss"] == pytest.approx(math.log(2))
    far = [line["student/drift"] for line in log]
    assert 0 < far[0] < far[10] < far[20] < far[-1] and far[0] < 0.2 * far[-1]
    assert log[-1]["student/loss"] < 0.6 and log[-1]["student/accuracy"] > 0.8
    # no pair needs the student's samples, so the log has no divergence of them. Three seeds have
    # .04 to .06 nats a value, and .07 to .08 turned around; at five times the rate it is 1.8
    assert divergence(teacher, teacher) == 0
    assert 0.01 < divergence(liking, teacher) < 0.2 and 0.01 < divergence(averse, teacher) < 0.2
    right, large, _ = judged(teacher)
    rights, larges, _ = judged(liking)
    # of 180 things: a standard deviation is .037
    assert larges > large + 0.15 and rights > right - 0.03
    assert judged(averse)[1] < large - 0.15
    assert judged(contrasted(teacher, averse, 1.0, None))[1] > large + 0.15


def test_a_proxy_is_hacked_unless_something_holds_the_student(
    captioned, teacher, tmp_path, capsys
):
    """Redness rises in both runs. Nothing holds the first, its pictures no longer show what they
    should, and an alarm says so; the divergence from the reference holds the second.
    """
    last = ("--hyper.steps", 4, "--hyper.omega", 0, "--reward", "redness")
    more = ("--batch", 64, "--micro", 64, "--lr", 1e-4)
    found, far, said = {}, {}, {}
    for name, weight in (("free", 0.0), ("held", 1e-2)):
        student, log = run(
            "reward_gradient", captioned, tmp_path / name, 30, *last, *more, "--hyper.kl", weight
        )
        found[name], far[name] = judged(student), log[-1]["student/kl"]
        said[name] = capsys.readouterr().out
    right, _, red = judged(teacher)
    assert found["free"][2] > red + 0.2 and found["free"][0] < right - 0.2
    assert found["held"][2] > red + 0.02 and found["held"][0] > right - 0.03
    assert far["free"] > 20 * far["held"] > 0
    assert said["free"].count("ALARM at step") == 1 and "ALARM" not in said["held"]
    assert "the student is far from its reference, and the reward may be hacked" in said["free"]
