"""What a run becomes: a pipeline and LoRA files that stock diffusers reads back, keys that
ComfyUI's naming rule explains.
"""

from __future__ import annotations

import doctest
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import forked
import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline, TCDScheduler
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

import full_scale.sample as sampling
from dlib.lora import LowRank
from full_scale import export
from full_scale.cost.blueprint import blueprint
from full_scale.out import card
from full_scale.out import folder as output
from full_scale.run import checkpoint
from full_scale import families
from full_scale.out import lora_files
from full_scale.families import saving, unet
from full_scale import launch
from full_scale.sampling.request import Config
from full_scale.export import Export
from full_scale.run.cast import build
from full_scale.run.settings import as_table, read, recipe_from, recipe_of
from full_scale.train import open_engine
from full_scale.families.tiny import tiny_pipeline
from full_scale.families.weights import add_lora

EVERY = (
    "conv_in",
    "conv1",
    "conv2",
    "conv_shortcut",
    "conv",
    "conv_out",
    "linear_1",
    "linear_2",
    "time_emb_proj",
    "proj_in",
    "proj_out",
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "net.0.proj",
    "net.2",
)
"""Every linear layer and convolution of the U-Net."""


@pytest.fixture(scope="module")
def one():
    """This process, alone."""
    yield launch.start("cpu")
    launch.stop()


def facts(method: str) -> dict:
    """How a method's student is sampled."""
    return recipe_from({"method": method, "hyper": {}, "family": "sd"}).sampler.facts


def scheduler(method: str) -> tuple:
    """What its card names."""
    return card.scheduler({"family": "sd", "sampler": facts(method)})


def settings(out: Path, *more: str):
    return read(["finetune", "--tiny", "--out", str(out), "--batch", "4", "--micro", "2", *more])


def cast_of(s, processes):
    """The cast of a run whose weights have left their start, by another amount in the average
    than in the student.
    """
    family = families.open_family("sd", None, torch.device("cpu"))
    cast = build(
        family,
        recipe_of(s, family.denoiser().schedule, family.null()),
        s,
        processes,
        torch.float32,
    )
    torch.manual_seed(5)
    with torch.no_grad():
        for part in (cast.trained["student"], *cast.averages.values()):
            for weight in part.weights.values():
                weight.add_(0.05 * torch.randn(weight.shape))
    return cast


def save(s, processes, *steps: int):
    cast = cast_of(s, processes)
    checkpoints = checkpoint.Checkpoints(s.out, 9, processes)
    for step in steps:
        checkpoints.save(step, cast.state(), {"settings": as_table(s)}, wait=True)
    return cast


def _shards(folder: Path) -> None:
    """One of two processes of an FSDP2 run."""
    processes = launch.start("cpu")
    s = settings(folder / "run", "--ema", "0", "--parallel", "fsdp")
    family = families.open_family("sd", None, torch.device("cpu"))
    cast = build(
        family,
        recipe_of(s, family.denoiser().schedule, family.null()),
        s,
        processes,
        torch.float32,
    )
    checkpoint.Checkpoints(s.out, 1, processes).save(
        1, cast.state(), {"settings": as_table(s)}, wait=True
    )
    launch.stop()


def test_one_process_reads_what_two_sharded(tmp_path):
    """The first test here: forked processes must not inherit a process group."""
    forked.start(2, tmp_path / "said", _shards, tmp_path).finished()
    assert len(list((tmp_path / "run" / "step-00000001").glob("*.distcp"))) == 2
    part, found = export.student(tmp_path / "run" / "step-00000001")
    want = tiny_pipeline().unet.state_dict()
    assert (
        part == "student"
        and all(torch.equal(found[f"unet.{name}"], value) for name, value in want.items())
        and len(found) == len(want)
    )


@pytest.fixture(scope="module")
def full(one, tmp_path_factory):
    """A run of all weights with an average: (folder, cast, export)."""
    s = settings(tmp_path_factory.mktemp("full") / "run", "--ema", "0.9")
    cast = save(s, one, 3, 7)
    return s.out, cast, export.run(Export(s.out))


@pytest.fixture(scope="module")
def lora(one, tmp_path_factory):
    """A LoRA run on every layer, α/r no power of two: (folder, cast, export)."""
    s = settings(
        tmp_path_factory.mktemp("lora") / "run",
        "--ema",
        "0",
        "--lora-rank",
        "3",
        "--lora-alpha",
        "5",
        "--lora-targets",
        *EVERY,
    )
    cast = save(s, one, 2)
    return s.out, cast, export.run(Export(s.out))


def raw(net) -> torch.Tensor:
    """What a network says at one fixed input."""
    x, text = (
        torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1)),
        torch.ones(2, 16, 32),
    )
    with torch.no_grad():
        return net(x, torch.tensor([999.0, 20.5]), {"text": text})


def test_pipeline_reloads_bit_equal_and_is_the_average(full):
    _, cast, out = full
    pipe = StableDiffusionPipeline.from_pretrained(out)
    want, live = (
        cast.averages["ema"].net.unet.state_dict(),
        cast.trained["student"].inner.unet.state_dict(),
    )
    found = pipe.unet.state_dict()
    assert found.keys() == want.keys() and all(
        torch.equal(found[name], want[name]) for name in want
    )
    assert not torch.equal(found["conv_in.weight"], live["conv_in.weight"])
    assert torch.equal(raw(unet.UNetCall(pipe.unet.eval())), raw(cast.averages["ema"].net))
    said = json.loads((out / "settings.json").read_text())
    assert (
        said["step"] == 7
        and said["what"] == "averaged student"
        and said["settings"]["ema"] == 0.9
    )
    family = families.open_family("sd", None, torch.device("cpu"))
    run = recipe_from(said["settings"], family.denoiser().schedule)
    assert said["settings"]["sampler"] == run.sampler.facts
    # the weights' own
    assert (
        type(pipe.scheduler) is DDIMScheduler
        and pipe.scheduler.config.timestep_spacing == "leading"
    )


def test_the_levels_of_an_export_are_those_of_its_weights(one, tmp_path):
    """Half as many trained indices as the family's own: the cleanest one is another time."""
    pipe = tiny_pipeline()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, num_train_timesteps=500)
    pipe.save_pretrained(tmp_path / "weights")
    words = ["--method", "knowledge", "--weights", str(tmp_path / "weights"), "--ema", "0"]
    s = read([*words, "--out", str(tmp_path / "run"), "--batch", "4", "--micro", "2"])
    save(s, one, 1)
    out = export.run(Export(s.out))
    said = json.loads((out / "settings.json").read_text())["settings"]["sampler"]
    assert said["times"] == pytest.approx([1, 1 / 500]) != facts("knowledge")["times"]


def test_an_estimate_takes_the_run_too(full):
    plan = blueprint(read(["finetune", "--weights", str(full[0])]))
    want = sum(p.numel() for p in full[1].trained["student"].inner.parameters())
    assert sum(p.numel() for p in plan.base.net.parameters()) == want


@pytest.mark.parametrize(
    ("method", "flags", "want", "ends"),
    [
        ("lcm", {}, ("lcm", "lcm", 4, 0.0, "clean"), 0.0),
        ("pcm", {}, ("ddim", "pcm", 2, 0.0, "grid"), 0.001),
        ("pcm", {"steps": 3, "omega": 1.0}, ("ddim", "pcm", 3, 1.0, "grid"), 0.001),
    ],
)
def test_sample_takes_what_flags_leave_open_from_the_export(
    full, monkeypatch, tmp_path, method, flags, want, ends
):
    """An export of the method `method`, read as such: by its recipe's sampler, wrap included."""
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(full[2], tmp_path / "export")
    about = json.loads((folder / "settings.json").read_text())
    about["settings"] |= {"method": method, "hyper": {"phases": 2} if method == "pcm" else {}}
    (folder / "settings.json").write_text(json.dumps(about))
    made = sampling.run(Config(prompt=("a cat",), weights=str(folder), **flags))
    assert Image.open(made / "000.png").size == (128, 128)
    said = json.loads((made / "settings.json").read_text())
    names = ("solver", "grid", "steps", "omega", "end")
    assert tuple(said["config"][name] for name in names) == want
    assert len(said["times"]) == want[2] + 1 and said["times"][-1] == pytest.approx(ends)
    if not flags and method == "pcm":
        assert said["times"] == pytest.approx([1.0, 0.5, 0.001])


def test_a_torn_settings_file_of_an_export_is_named(full, tmp_path):
    folder = shutil.copytree(full[2], tmp_path / "export")
    (folder / "settings.json").write_text('{"settings": {')
    with pytest.raises(
        ValueError, match=r"settings\.json is no JSON of an export .* export again"
    ):
        sampling.run(Config(prompt=("a cat",), weights=str(folder)))


def test_lora_reads_back_through_peft_like_our_twin(lora):
    """Both files, on all 2-D and 4-D layers: the same function as the twin, to 1e-6 of its
    values, and far from the base's.
    """
    _, cast, out = lora
    want, base = raw(cast.output.net), raw(unet.UNetCall(tiny_pipeline().unet))
    assert (want - base).abs().max() > 0.1
    for name in (lora_files.DIFFUSERS, lora_files.KOHYA):
        pipe = tiny_pipeline()
        pipe.load_lora_weights(out, weight_name=name)
        assert (raw(unet.UNetCall(pipe.unet)) - want).abs().max() < 1e-6 * want.abs().max(), name


@pytest.mark.parametrize(("run", "free"), [("full", 10), ("lora", None)])
def test_a_disk_that_is_full_or_will_be_is_said_with_what_is_wanted(
    run, free, request, monkeypatch, tmp_path
):
    """Before anything is written, where the disk says it has too little; else while weights are
    saved.
    """
    source, to = request.getfixturevalue(run)[0], tmp_path / "some" / "where"

    def refuse(*given, **more):
        raise SafetensorError("Error while serializing: I/O error: No space (os error 28)")

    monkeypatch.setattr(saving, "save_file", refuse)
    if free:
        disk = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(output.shutil, "disk_usage", lambda path: disk)
        monkeypatch.setattr(export, "write", None)
    with pytest.raises(SystemExit) as said:
        export.main([str(source), "--to", str(to)])
    left = r"0\.0" if free else r"[\d.]+"
    assert re.fullmatch(
        rf"full_scale.export: --to {to}: No space left on device: [\d.]+ MB are wanted for the "
        rf"trained weights alone, and {left} MB are free there: make room, or pass --to with .*",
        said.value.code,
    )
    assert not any(to.parent.iterdir())


def test_comfyui_keys_name_every_adapted_layer(lora):
    """By the rule itself, on the U-Net's own list of weights: `lora_unet_` + the name with
    underscores, α/r · up · down = ΔW.
    """
    _, cast, out = lora
    values = load_file(out / lora_files.KOHYA)
    rule = {
        f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}": (
            name.removesuffix(".weight"),
            weight,
        )
        for name, weight in tiny_pipeline().unet.state_dict().items()
        if name.endswith(".weight") and weight.ndim > 1
    }
    layers = {
        name.removeprefix("unet."): layer
        for name, layer in cast.trained["student"].inner.named_modules()
        if isinstance(layer, LowRank)
    }
    assert {key.split(".", 1)[0] for key in values} == rule.keys() and {
        name for name, _ in rule.values()
    } == layers.keys()
    for key, (name, weight) in rule.items():
        down, up, alpha = (
            values.pop(f"{key}.{part}")
            for part in ("lora_down.weight", "lora_up.weight", "alpha")
        )
        assert (
            down.shape == (3, *weight.shape[1:])
            and up.shape == (weight.shape[0], 3, *(1,) * (weight.ndim - 2))
            and alpha.shape == ()
        )
        change = (
            alpha
            / len(down)
            * torch.einsum("or...,ri...->oi...", up.expand(*up.shape[:2], *down.shape[2:]), down)
        )
        ours = layers[name].folded().detach() - layers[name].weight
        assert (change - ours).abs().max() < 1e-6 * layers[name].weight.abs().max().clamp_min(
            1
        ), key
    assert not values
    with safe_open(out / lora_files.KOHYA, "pt") as file:
        assert (
            file.metadata()["ss_network_dim"] == "3"
            and file.metadata()["ss_network_alpha"] == "5.0"
        )


def test_sample_takes_a_lora(lora, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tiny_pipeline().save_pretrained("weights")
    one = Config(
        prompt=("a cat",),
        weights="weights",
        solver="ddim",
        grid="sd_trailing",
        steps=2,
        omega=0.0,
    )
    plain, changed = (
        np.asarray(Image.open(sampling.run(c) / "000.png"))
        for c in (one, replace(one, lora=lora[2] / lora_files.DIFFUSERS))
    )
    assert (plain != changed).mean() > 0.5


@pytest.mark.parametrize(
    "break_it, match",
    [
        (lambda values: {}, "no LoRA|0 of its 0 layers"),
        (
            lambda values: {
                name.replace("to_q", "to_z"): value for name, value in values.items()
            },
            "of its .* layers exist",
        ),
        (
            lambda values: {
                name: value[..., :1].contiguous() if "lora_A" in name else value
                for name, value in values.items()
            },
            "does not fit these weights",
        ),
    ],
)
def test_a_lora_that_does_not_fit_is_refused(lora, tmp_path, break_it, match):
    values = load_file(lora[2] / lora_files.DIFFUSERS)
    save_file(break_it(values), tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match=match):
        add_lora(tiny_pipeline(), tmp_path / "odd.safetensors")


def test_a_lora_file_that_is_none(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"12345678")
    for name, match in (
        ("absent.safetensors", "wanted a .safetensors file"),
        ("cut.safetensors", "is no LoRA"),
    ):
        with pytest.raises(ValueError, match=match):
            add_lora(tiny_pipeline(), tmp_path / name)


def test_a_student_who_is_told_omega(one, tmp_path, monkeypatch):
    """All weights with an input for ω: stock diffusers gives it guidance_scale − 1, our
    sampler --omega, and both pictures are alike.
    """
    monkeypatch.chdir(tmp_path)
    s = read(
        [
            "lcm",
            "--tiny",
            "--out",
            "run",
            "--ema",
            "0",
            "--roles.target.decay",
            "0",
            "--no-recompute",
        ]
    )
    cast = save(s, one, 1)
    out = export.run(Export(s.out))
    pipe = StableDiffusionPipeline.from_pretrained(out)
    assert type(pipe.scheduler) is LCMScheduler and pipe.unet.config.time_cond_proj_dim == 256
    live = cast.trained["student"].inner.unet.state_dict()
    assert all(torch.equal(live[name], value) for name, value in pipe.unet.state_dict().items())
    config = Config(
        prompt=("a cat",), weights=str(out), solver="ddim", grid="sd_trailing", steps=1, omega=7.0
    )
    ours, other = (
        np.asarray(Image.open(sampling.run(c) / "000.png")).astype(int)
        for c in (config, replace(config, omega=2.0))
    )
    pipe.scheduler = families.StableDiffusion(pipe).scheduler(*scheduler("swiftbrush"))
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    theirs = np.asarray(
        pipe("a cat", latents=x, num_inference_steps=1, guidance_scale=8.0).images[0]
    ).astype(int)
    assert np.abs(ours - theirs).max() <= 1 and np.abs(other - ours).max() > 2
    assert families.open_family("sd", str(out), torch.device("cpu")).told
    again = read(["finetune", "--weights", str(out), "--data", "nowhere"])
    with pytest.raises(ValueError, match="distilled student that takes ω"):
        open_engine(again, one)


def test_a_chosen_step_and_a_chosen_folder(full, tmp_path):
    out = export.run(Export(full[0], step=3, to=tmp_path / "mine"))
    assert (
        out == tmp_path / "mine" and json.loads((out / "settings.json").read_text())["step"] == 3
    )
    assert not [path for path in tmp_path.iterdir() if path != out]


def test_bad_requests(full, lora, tmp_path, monkeypatch):
    def refused(config, match):
        with pytest.raises(ValueError, match=match):
            export.run(config)

    refused(Export(tmp_path / "nowhere"), "no such folder; name the --out")
    refused(Export(tmp_path), "no complete checkpoint")
    refused(Export(full[0], step=5), "--step 5: .* steps 3, 7;")
    refused(
        Export(full[0]),
        "export exists and is not empty; nothing was overwritten. Pass --to .*export-001",
    )
    monkeypatch.setattr(
        export, "student", lambda path: ("student", {"unet.conv_in.weight": torch.zeros(1)})
    )
    refused(Export(full[0], to=tmp_path / "a"), "trained another network")
    refused(Export(lora[0], to=tmp_path / "b"), "not in both")
    one_wrong = {
        f"unet.{name}": torch.zeros(1) if name == "conv_in.bias" else value
        for name, value in tiny_pipeline().unet.state_dict().items()
    }
    # it would be broadcast
    monkeypatch.setattr(export, "student", lambda path: ("student", one_wrong))
    refused(
        Export(full[0], to=tmp_path / "c"),
        "1 weights differ in name or shape, first .*conv_in.bias",
    )
    assert not any(tmp_path.iterdir())
    with pytest.raises(SystemExit, match="^full_scale.export: .*no such folder"):
        export.main([str(tmp_path / "nowhere")])


class Hub:
    """The hub's client, as far as an export uses it: it notes what it is asked."""

    fails = ""

    def __init__(self):
        self.asked = Hub.asked = []

    def create_repo(self, repo_id, **more):
        self.asked.append(("create_repo", repo_id, more))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        if Hub.fails:
            raise RuntimeError(Hub.fails)
        assert checkpoint.manifest.fault(folder_path) == ""  # it is whole, under its own name
        self.asked.append(("upload_folder", repo_id, folder_path, commit_message))


def test_an_export_goes_to_the_hub_when_it_is_asked_to_and_only_then(
    lora, tmp_path, monkeypatch, capsys
):
    """Into a private repository, when the folder is whole. What the hub refuses is one line, and
    the folder stays.
    """
    run, words = str(lora[0]), ["--hub", "me/student"]
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    export.main([run, "--to", str(tmp_path / "a")])
    assert not hasattr(Hub, "asked")
    export.main([run, "--to", str(tmp_path / "b"), *words])
    assert Hub.asked == [
        ("create_repo", "me/student", {"private": True, "exist_ok": True}),
        ("upload_folder", "me/student", tmp_path / "b", Hub.asked[-1][-1]),
    ]
    assert re.fullmatch("student of finetune after [0-9]+ steps", Hub.asked[-1][-1])
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "b")
    monkeypatch.setattr(Hub, "fails", "401 Unauthorized\nmore lines")
    with pytest.raises(SystemExit) as end:
        export.main([run, "--to", str(tmp_path / "c"), *words])
    said = str(end.value.code)
    assert "\n" not in said and f"finished in {tmp_path / 'c'}" in said
    assert "RuntimeError: 401 Unauthorized" in said and "hf upload me/student" in said
    assert checkpoint.manifest.fault(tmp_path / "c") == ""
    for name in ("student", "a/b/c", "me/ student"):
        with pytest.raises(ValueError, match=f"--hub {name}: wanted .* owner/name"):
            export.run(Export(lora[0], to=tmp_path / "d", hub=name))
    assert not (tmp_path / "d").exists()


def test_a_damaged_checkpoint_names_itself(one, tmp_path):
    s = settings(tmp_path / "run", "--ema", "0", "--lora-rank", "1", "--lora-targets", "to_q")
    save(s, one, 1)
    next((s.out / "step-00000001").glob("*.distcp")).unlink()
    with pytest.raises(ValueError, match="step-00000001: __0_0.distcp is missing.*copy one of"):
        export.run(Export(s.out))
    with pytest.raises(ValueError, match="cannot be read .*choose another with --step"):
        export.student(s.out / "step-00000001")


def test_scheduler_of_each_method_keeps_the_weights_noise_levels(v_pipe):
    want = v_pipe.scheduler.alphas_cumprod
    family = families.StableDiffusion(v_pipe)
    lcm, one, pcm, own = (
        family.scheduler(*scheduler(method))
        for method in ("lcm", "swiftbrush", "pcm", "finetune")
    )
    assert (
        type(lcm) is LCMScheduler
        and type(one) is DDIMScheduler
        and type(pcm) is TCDScheduler
        and own is v_pipe.scheduler
    )
    for found in (lcm, one, pcm):
        assert (
            torch.equal(found.alphas_cumprod, want)
            and found.config.prediction_type == "v_prediction"
            and not found.config.clip_sample
        )
    one.set_timesteps(4)
    lcm.set_timesteps(4)
    assert (
        one.timesteps.tolist() == [999, 749, 499, 249]
        and one.final_alpha_cumprod == 1.0
        and lcm.timesteps.tolist() == [999, 759, 499, 259]
    )


def test_card_states_licence_base_and_use(lora):
    about = json.loads((lora[2] / "settings.json").read_text())
    silent = (lora[2] / "README.md").read_text()
    assert (
        "states no licence" in silent
        and "license:" not in silent
        and "| lora_rank | `3` |" in silent
    )
    about |= {"licence": "creativeml-openrail-m"}
    about["settings"] |= {"weights": "someone/model", "method": "lcm", "sampler": facts("lcm")}
    said = card.text(about, lora=True)
    assert (
        said.startswith("---\nlicense: creativeml-openrail-m\n")
        and "base_model: someone/model\n" in said
    )
    assert (
        "LCMScheduler.from_config(pipe.scheduler.config)" in said
        and "num_inference_steps=4, guidance_scale=1)" in said
    )
    assert (
        "--weights someone/model --lora FOLDER/pytorch_lora_weights.safetensors --prompt" in said
    )


def test_examples():
    assert doctest.testmod(lora_files).failed == 0
