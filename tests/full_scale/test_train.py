"""Every recipe's whole way: a run that is killed in its middle goes on with the numbers of an
unbroken one, and is exported into what stock programs read. One recipe of each shape does so
on two processes, the others in one.
"""

import json
import re
import shlex
import shutil
import signal
from pathlib import Path

import forked
import methods
import numpy as np
import pytest
import torch
import tyro
from diffusers import LCMScheduler
from logged import losses
from PIL import Image
from safetensors.torch import load_file

import full_scale.sample as sampling
from dlib import recipes
from full_scale import export
from full_scale.families import FAMILIES, open_family
from full_scale.families.tiny import tiny_pipeline
from full_scale import launch
from full_scale.out import lora_files
from full_scale.run.checkpoint import complete
from full_scale.run.engine import Engine
from full_scale.run.recipe_file import RECIPES
from full_scale.run.settings import read
from full_scale.sampling.request import Config
from full_scale.train import main, open_engine
from toy_data.shape_captions import tokens

methods.register()
SHAPES = ["--family", "shapes", "--tiny"]
WHOLE = [*SHAPES, "--lora-rank", "0"]
AVERAGES = ["--method", "lcm", *SHAPES, "--ema", "0.9", "--lr", "8e-6"]
SHAPE_OF = {  # one recipe of each shape, on two processes; small networks where the shape allows
    "one network, fsdp": ["finetune", *SHAPES, "--parallel", "fsdp", "--ema", "0.9"],
    "student with averages, fsdp": [*AVERAGES, "--parallel", "fsdp"],
    "preferences, fsdp": ["dpo", *SHAPES, "--parallel", "fsdp"],
    "adapters, ddp": ["lcm_lora", "--tiny", "--ema", "0.9"],
    "twins, ddp": ["swiftbrush", *SHAPES],
    "heads, ddp": ["--method", "dmd2", *SHAPES, "--hyper.ratio", "2"],
    "rollouts, ddp": ["ddpo", *SHAPES, "--lora-rank", "0", *methods.TRIES],
    "rollouts, fsdp": ["ddpo", *WHOLE, "--parallel", "fsdp", *methods.TRIES],
}
OTHERS = {  # in one process
    "pcm_lora": ["pcm_lora", "--tiny"],
    "lcm": ["lcm", "--tiny"],
    "swiftbrush": ["swiftbrush", "--tiny"],
    "pcm_adversarial": ["pcm_adversarial", "--tiny"],
    "pcm": ["pcm", "--tiny"],
    "tcd": ["tcd", "--tiny"],
    "lcm_shapes": ["lcm_shapes"],
    "progressive": ["progressive", *SHAPES, "--hyper.steps", "2"],
    "guided": ["guided", "--tiny"],
    "guided shapes": ["guided", *SHAPES],
    "progressive_with_omega": ["progressive_with_omega", "--tiny", "--hyper.steps", "2"],
    "knowledge": ["--method", "knowledge", *SHAPES],
    "reward_gradient": ["reward_gradient", *WHOLE, *"--reward redness --hyper.steps 3".split()]
    + "--hyper.last 1 --hyper.deepest 2 --hyper.kl 0.1".split(),
    "flow_grpo": ["flow_grpo", *WHOLE, *"--reward redness --hyper.group 2".split()]
    + "--hyper.steps 3 --hyper.window 1 --hyper.preserving --hyper.spacing sd_trailing".split(),
    "nft": ["nft", *WHOLE, *"--reward shapes --hyper.steps 2 --hyper.group 2".split()]
    + ["--hyper.spacing", "sd_trailing"],
    "npo": ["npo", *WHOLE],
    **{name: [name, *SHAPES] for name in ("ect", "scm", "sct")},
    **{
        name: ["--method", name, *SHAPES]
        for name in ("consistency_distillation", "ct", "ict", "ct_reduced", "scm_training")
        + ("pcm_normalcfg", "sds", "diff_instruct")
    },
}
# of the others, those that stock programs read
IN_ONE = ["lcm", "swiftbrush", "pcm_adversarial", "pcm_lora", "pcm", "tcd", "guided"]
IN_ONE += ["progressive_with_omega"]
STOCK = [*(name for name, words in SHAPE_OF.items() if "--family" not in words), *IN_ONE]
PROMPT = ["--prompts", "a red circle"]
THREE = ["--micro", "2", "--steps", "3", "--save-every", "1", "--show-every", "3", *PROMPT]
TWO = ["--micro", "4", "--save-every", "1", "--show-every", "2", *PROMPT]


@pytest.fixture(scope="module")
def with_data(data, more):
    """A recipe's words with the data of its family."""
    of = lambda words: more if "shapes" in " ".join(words) else data
    return lambda words: [*words, "--data", str(of(words))]


@pytest.fixture(scope="module")
def runs(with_data, tmp_path_factory):
    """Of each recipe the folders of a run that was killed while it wrote its second checkpoint,
    or of which its first checkpoint is all that is left, and started again; and of an unbroken
    one.
    """
    root, found = tmp_path_factory.mktemp("runs"), {}

    def run(name):
        if name in found:
            return found[name]
        parts, whole = found[name] = root / f"{name}, parts", root / f"{name}, whole"
        if name in OTHERS:
            words = [*with_data(OTHERS[name]), *TWO]
            forked.alone(words, whole, "--steps", "2")
            shutil.copytree(whole / "step-00000001", parts / "step-00000001")
            (first, _), log = losses(whole), parts / "log.jsonl"
            log.write_text(json.dumps(first) + "\n")
            forked.alone(words, parts, "--steps", "2")
            return found[name]
        words, kill = [*with_data(SHAPE_OF[name]), *THREE], forked.Fall(2, signal.SIGKILL)
        assert forked.training((words, parts), fall=kill).ended() == [-9, -9]
        assert complete(parts) and not (parts / "done").exists()
        parts.with_suffix(".said").unlink()
        said = forked.training((words, parts), (words, whole)).finished()
        went_on, anew, _ = said.split("export them with")
        assert " 0/3" not in went_on and " 0/3" in anew
        return found[name]

    return run


def test_no_recipe_is_left_out():
    words = [*SHAPE_OF.values(), *OTHERS.values()]
    files = {path.stem for path in RECIPES.glob("*.toml")}
    assert files == {one[0] for one in words if not one[0].startswith("-")}
    ours = {name for name, f in recipes.METHODS.items() if f.__module__.startswith("dlib.")}
    assert ours <= {read(one).method for one in words}


@pytest.mark.parametrize("name", [*SHAPE_OF, *OTHERS])
def test_kill_and_resume_is_bitwise_the_unbroken_run(name, runs):
    """Losses and the grid of pictures, which all processes sample together."""
    (run, whole), steps = runs(name), 3 if name in SHAPE_OF else 2
    grid = Path("pictures", f"samples-{steps:08d}.png")
    assert losses(run) == losses(whole) and len(losses(run)) == steps
    assert (run / grid).read_bytes() == (whole / grid).read_bytes()
    if name in STOCK:
        assert Image.open(run / grid).size == (128, 128)
    a, b = (export.student(export.chosen(out, None))[1] for out in (run, whole))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert (run / "done").exists() and not list(run.glob("*.part"))


ON_SD = {  # a reward sees Stable Diffusion's pictures through the VAE; its gradient comes back
    "reward_gradient": "--hyper.steps 2 --hyper.deepest 2 --hyper.kl 0.1 --hyper.omega 0",
    "flow_grpo": "--hyper.steps 2 --hyper.group 2 --hyper.preserving --hyper.omega 0",
    "nft": "--hyper.steps 2 --hyper.group 2",
}


@pytest.mark.parametrize("method", ON_SD)
def test_rewards_of_stable_diffusion_s_pictures(method, data, tmp_path):
    """Two steps, and the second one again from the first one's checkpoint: the same numbers."""
    words = [method, "--family", "sd", "--tiny", "--data", str(data), *ON_SD[method].split()]
    words += "--hyper.spacing sd_trailing --reward redness --batch 2 --micro 1".split()
    words += "--save-every 1 --show-every 0 --steps 2 --lora-rank 2 --lora-targets to_q".split()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    forked.alone(words, whole)
    shutil.copytree(whole / "step-00000001", parts / "step-00000001")
    forked.alone(words, parts)
    (first, second), again = losses(whole), losses(parts)
    assert again == [second] and first["student/reward"] != second["student/reward"]


def picture_of(code: str) -> tuple:
    """(what the code of a model card makes with seed 0, its pipeline)."""
    names = {"seeds": [torch.Generator().manual_seed(0)]}
    exec(
        code.replace("FOLDER", "'export'").replace("= pipe(", "= pipe(generator=seeds, prompt="),
        names,
    )
    return np.asarray(names["picture"]).astype(int), names["pipe"]


@pytest.mark.parametrize("name", STOCK)
def test_what_was_killed_is_exported_and_stock_programs_read_it(
    name, runs, tmp_path, monkeypatch
):
    """The model card's own lines are run: stock diffusers, and `full_scale.sample`; where both
    sample alike, their pictures are equal.
    """
    monkeypatch.chdir(tmp_path)
    # the name that the cards give to random tiny weights
    tiny_pipeline().save_pretrained("WEIGHTS")
    out = export.run(export.Export(runs(name)[0], to=Path("export")))
    step, card = export.chosen(runs(name)[0], None), (out / "README.md").read_text()
    theirs, pipe = picture_of(re.search("```python\n(.*?)```", card, re.DOTALL)[1])
    words = shlex.split(
        re.search(r"python -m full_scale.sample (.*)", card)[1].replace("FOLDER", "export")
    )
    made = sampling.run(tyro.cli(Config, args=words))
    ours = np.asarray(Image.open(made / "grid.png")).astype(int)
    assert ours.shape == (128, 128, 3) and ours.std() > 5
    assert np.abs(ours - theirs).max() <= 2
    found, own = export.student(step)[1], dict(pipe.unet.named_parameters())
    if name in ("adapters, ddp", "pcm_adversarial", "pcm_lora"):
        keys = {key.split(".")[0] for key in load_file(out / lora_files.KOHYA)}
        assert keys == {
            f"lora_unet_{layer.removesuffix('.base_layer.weight').replace('.', '_')}"
            for layer in own
            if layer.endswith("base_layer.weight")
        }
        assert all(
            value.any() for key, value in load_file(out / lora_files.DIFFUSERS).items()
        ) and len(found) == 2 * len(keys)
    else:
        assert all(
            torch.equal(own[key.removeprefix("unet.")], value) for key, value in found.items()
        ) and len(found) == len(own)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    assert pipe("a cat", num_inference_steps=4, guidance_scale=1.0).images[0].size == (128, 128)


@pytest.mark.parametrize("name", [name for name in {**SHAPE_OF, **OTHERS} if name not in STOCK])
def test_a_student_of_the_shapes_is_exported_and_opened_again(name, runs, tmp_path):
    out = export.run(export.Export(runs(name)[0], to=tmp_path / "export"))
    opened = open_family("shapes", str(out), torch.device("cpu")).denoiser().net
    own, found = (
        dict(opened.named_parameters()),
        export.student(export.chosen(runs(name)[0], None))[1],
    )
    assert len(own) == len(found) and all(torch.equal(own[key], found[key]) for key in found)


def test_two_processes_are_one_with_twice_the_micro_batches(runs, with_data, tmp_path):
    words = [*with_data(SHAPE_OF["adapters, ddp"]), *THREE, "--show-every", "0"]
    forked.alone(words, tmp_path / "one")
    pairs = zip(losses(tmp_path / "one"), losses(runs("adapters, ddp")[1]), strict=True)
    for one, two in pairs:
        assert one.keys() == two.keys() and all(
            one[key] == pytest.approx(two[key], rel=2e-5, abs=1e-7) for key in one
        )


def save_gradient(out: Path, flags: list[str]) -> None:
    """The gradient of a run's first step, as every process has it after summing."""
    processes = launch.start("cpu")
    engine = open_engine(read([*flags, "--out", str(out)]), processes)
    net = engine.cast.trained["student"]
    net.optim.step = lambda: None  # keep the gradient that the step would have used
    engine.advance()
    whole = lambda grad: (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).flatten()
    gradient = torch.cat([whole(p.grad) for p in net.weights.values()])
    torch.save(gradient, f"{out}-{processes.rank}.pt")
    launch.stop()


@pytest.mark.parametrize(
    ("recipe", "parallel", "micro"), [("finetune", "ddp", "8"), ("lcm", "fsdp", "4")]
)
def test_two_processes_have_the_gradient_of_one(recipe, parallel, micro, data, tmp_path):
    """Two processes × 4 rows = one × 8, or one × 4 twice, to rounding; of all weights, so that
    it has a million entries.

    The Huber distance of `lcm`, whose slope turns within 1e-3, magnifies the rounding of
    kernels for 8 rows to 3e-5: hence its 4.
    """
    flags = [recipe, "--tiny", "--data", str(data), "--batch", "8", "--clip", "0"]
    found = {}
    for name, size, more in (
        ("one", 1, ["--micro", micro]),
        ("two", 2, ["--micro", "4", "--parallel", parallel]),
    ):
        out = tmp_path / name
        forked.start(size, tmp_path / "said", save_gradient, out, [*flags, *more]).finished()
        found[name] = torch.load(tmp_path / f"{name}-0.pt", weights_only=True)
    assert (
        found["one"].norm() > 0
        and (found["two"] - found["one"]).norm() < 1e-6 * found["one"].norm()
    )


def test_fsdp_is_ddp(runs, with_data, tmp_path):
    fsdp_run, ddp_run = runs("student with averages, fsdp")[1], tmp_path / "ddp"
    words = [*with_data(AVERAGES), *THREE, "--show-every", "0"]
    forked.training((words, ddp_run)).finished()
    for ddp, fsdp in zip(losses(ddp_run), losses(fsdp_run), strict=True):
        assert all(ddp[key] == pytest.approx(fsdp[key], rel=1e-4, abs=1e-7) for key in ddp)
    (what, whole), (_, sharded) = (
        export.student(export.chosen(out, None)) for out in (ddp_run, fsdp_run)
    )
    # three steps of at most 8e-6
    assert what == "averaged student" and all(
        (whole[key] - sharded[key]).abs().max() < 1e-5 for key in whole
    )


def hybrid(words: list[str], out: Path, port: int) -> None:
    """A run; how each process holds the student's first weight is written down."""
    save = Engine.save

    def noted(engine, wait=False):
        weight = next(iter(engine.cast.trained["student"].weights.values()))
        facts = weight.device_mesh.mesh.tolist(), str(weight.placements)
        out.with_name(f"rank-{engine.processes.rank}").write_text(json.dumps(facts))
        return save(engine, wait)

    Engine.save = noted  # of this child alone
    forked._train([(forked._words(words, out), port)], None)


def test_two_nodes_of_two_go_on_from_fsdp_and_end_where_it_ends(
    runs, with_data, tmp_path, monkeypatch
):
    """The last step of an FSDP2 run is done again by four processes that shard inside a node of
    two and replicate across the nodes.
    """
    whole, out = runs("one network, fsdp")[1], tmp_path / "run"
    shutil.copytree(whole / "step-00000002", out / "step-00000002")
    lines = (whole / "log.jsonl").read_text().splitlines(keepends=True)
    (out / "log.jsonl").write_text("".join(lines[:2]))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    words = with_data(["finetune", *SHAPES, "--parallel", "hybrid", "--ema", "0.9"])
    words += ["--micro", "1", "--steps", "3", "--show-every", "0"]
    forked.start(4, tmp_path / "said", hybrid, words, out, forked.free_port()).finished()
    for rank in range(4):
        mesh, placements = json.loads((tmp_path / f"rank-{rank}").read_text())
        assert mesh == [[0, 1], [2, 3]] and placements.startswith("(Replicate(), Shard(")
    # the second node writes nothing
    names = sorted(path.name for path in (out / "step-00000003").glob("*.distcp"))
    assert names == ["__0_0.distcp", "__1_0.distcp"]
    for fsdp, both in zip(losses(whole), losses(out), strict=True):
        assert all(fsdp[key] == pytest.approx(both[key], rel=1e-4, abs=1e-7) for key in fsdp)
    a, b, start = (
        export.student(path)[1]
        for path in (whole / "step-00000003", out / "step-00000003", out / "step-00000002")
    )
    off = lambda one, two: torch.cat([(one[key] - two[key]).flatten() for key in one]).norm()
    assert off(a, b) < 1e-3 * off(a, start)


@pytest.mark.parametrize(
    ("ending", "size"), [(signal.SIGTERM, 1), (signal.SIGUSR1, 2)], ids=["SIGTERM", "SIGUSR1"]
)
def test_a_signal_saves_and_the_same_command_goes_on(ending, size, with_data, tmp_path):
    """One process alone; one worker of two, whose flag the other must see."""
    words = with_data(["finetune", "--tiny", "--ema", "0", "--micro", "1", "--show-every", "0"])
    fall = forked.Fall(2, ending, ranks=(size - 1,))
    long = [*words, "--save-every", "100", "--steps", "60"]
    said = forked.training((long, tmp_path / "run"), size=size, fall=fall).finished()
    assert (
        len(re.findall(f"({ending.name}|another process was asked to stop): saved at step", said))
        == 1
    )
    (saved,) = (tmp_path / "run").glob("step-*")
    lines = len(losses(tmp_path / "run"))
    assert int(saved.name.removeprefix("step-")) == lines == 3
    assert not (tmp_path / "run" / "done").exists()
    forked.alone(words, tmp_path / "run", "--steps", str(lines + 1))
    assert [line["step"] for line in losses(tmp_path / "run")] == list(range(lines + 1))


def test_the_grids_show_what_the_family_can_read(shapes_data, tmp_path, capsys):
    """Without --prompts too, and so does the card; others are refused before the first step."""
    words = ["finetune", *SHAPES, "--device", "cpu", "--data", str(shapes_data), "--batch", "4"]
    out, other = tmp_path / "run", tmp_path / "other"
    main([*words, "--steps", "1", "--out", str(out)])
    assert list(out.rglob("*.png")) and (out / "done").exists()
    card = (export.run(export.Export(out)) / "README.md").read_text()
    (prompt,) = re.findall('--prompt "(.*)"', card)
    assert tokens([prompt]).any()
    with pytest.raises(SystemExit) as end:
        main([*words, "--steps", "1", "--out", str(other), "--prompts", "a lighthouse"])
    assert str(end.value.code).startswith("full_scale.train: --prompts: ")
    assert "lighthouse" in end.value.code
    assert not list(other.glob("step-*")) and not (other / "log.jsonl").exists()


@pytest.mark.parametrize(
    ("recipe", "says"),
    [("lcm_lora", "proj_in.* family shapes: --lora-targets to_q to_k to_v to_out$")],
)
def test_what_a_family_lacks_is_answered_with_what_it_has(recipe, says, shapes_data, tmp_path):
    words = [recipe, *SHAPES, "--device", "cpu", "--data", str(shapes_data), "--batch", "4"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--micro", "4", "--out", str(tmp_path / "run")])
    assert re.search(says, end.value.code)


@pytest.mark.parametrize("recipe", ["ddpo", "npo", "reward_gradient"])
def test_the_attention_that_gets_adapters_is_the_family_s(recipe):
    for name, family in FAMILIES.items():
        assert read([recipe, "--family", name, "--tiny"]).lora_targets == family.lora_targets


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["lcm_lora", "--hyper.omga", "1"], "--hyper.omega"),
        (["lcmm"], "no recipe file lcmm; there are ddpo, dpo"),
        (["finetune", "--weights", "nowhere", "--no-tiny"], "no such folder here"),
        (["finetune", "--tiny", "--batch", "64"], "40 rows, fewer than one global batch of 64"),
    ],
)
def test_what_a_reader_can_put_right_is_one_message(flags, says, data, tmp_path, capsys):
    """What would be a traceback is an exception here."""
    with pytest.raises(SystemExit) as end:
        main([*flags, "--device", "cpu", "--data", str(data), "--out", str(tmp_path / "run")])
    said = capsys.readouterr()
    assert end.value.code not in (0, None)
    assert says in " ".join(f"{end.value.code} {said.out} {said.err}".split())
