"""SDXL trains: what its rows say of their pictures' sizes, and who hears it; adapters by two
processes, killed and resumed; their names in kohya's files; what it costs.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import signal
from pathlib import Path

import datafolders
import forked
import numpy as np
import pytest
import torch
import tyro
from diffusers import LCMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from logged import losses
from PIL import Image
from safetensors.torch import load_file

import full_scale.sample as sampling
from dlib import SOLVERS, guided
from dlib.lora import adapters, twin
from full_scale import export, prepare
from full_scale.cost import needs as estimating
from full_scale.cost.counting import cost
from full_scale.cost.quote import GPUS, MFU
from full_scale.data import digests, shards
from full_scale.data.rows import Rows
from full_scale.families import StableDiffusionXL, named, open_family
from full_scale.out.lora_files import DIFFUSERS, KOHYA
from full_scale.run import checkpoint
from full_scale.run.settings import as_table, read, recipe_of
from full_scale.sampling.latents import latents
from full_scale.sampling.request import Config
from full_scale.sources.pictures import fitted
from full_scale.train import open_engine

CPU = torch.device("cpu")
SIZES = {  # (width, height) ↦ what the network is told, at 64 pixels, worked out with a pencil
    (80, 64): (64, 80, 0, 8, 64, 64),
    (50, 100): (100, 50, 32, 0, 64, 64),  # enlarged to 64 × 128
    (41, 30): (30, 41, 0, 12, 64, 64),  # to 87 × 64; 11.5 is rounded to the even 12
    (4001, 64): (64, 4001, 0, 1968, 64, 64),  # beyond what half precision holds
    (64, 64): (64, 64, 0, 0, 64, 64),
}
TURNED = (72, 90)
"""A sixth picture: stored lying, 72 pixels high, and shown upright by its EXIF."""
TEXTS = ["a cat", "a red circle", "two lines", "a blue square", "a cat again", "a dog"]
BASE = "--family sdxl --tiny --prompt X --solver lcm --grid lcm --steps 4 --omega 0".split()
BASE[BASE.index("X")] = "a cat"


PUBLISHED = {  # unet/config.json of SDXL base 1.0, where it differs from the class
    "_class_name": "UNet2DConditionModel",
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "in_channels": 4,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}


@pytest.fixture(scope="module")
def xl() -> StableDiffusionXL:
    return open_family("sdxl", None, CPU)


@pytest.fixture(scope="module", autouse=True)
def opened_once(xl):
    """The shared tiny model in `prepare`, which changes nothing of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "open_family", lambda *given: xl)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Six pictures of six sizes with captions."""
    path = tmp_path_factory.mktemp("source")
    for k, (sides, text) in enumerate(zip([*SIZES, TURNED[::-1]], TEXTS)):
        exif = Image.Exif()
        if k == 5:
            exif[0x0112] = 6
        datafolders.picture(k, *sides).save(path / f"{k}.png", exif=exif)
        (path / f"{k}.txt").write_text(text)
    return path


@pytest.fixture(scope="module")
def data(source, tmp_path_factory) -> Path:
    """Prepared in half precision, as real weights' data are."""
    out = tmp_path_factory.mktemp("data") / "xl"
    return datafolders.prepared(source, out, family="sdxl", store="float16")


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> tuple[Path, Path]:
    """`lcm_lora` on two processes: killed while it wrote its second checkpoint and started
    again, and unbroken.
    """
    root = tmp_path_factory.mktemp("runs")
    words = ["lcm_lora", "--family", "sdxl", "--tiny", "--data", str(data), "--lr", "0.01"]
    words += "--lora-rank 4 --no-recompute --micro 2 --steps 3 --save-every 1".split()
    words += ["--show-every", "3", "--prompts", "a cat"]
    parts, whole = root / "parts", root / "whole"
    kill = forked.Fall(2, signal.SIGKILL)
    assert forked.training((words, parts), fall=kill).ended() == [-9, -9]
    assert checkpoint.complete(parts) and not (parts / "done").exists()
    parts.with_suffix(".said").unlink()
    said = forked.training((words, parts), (words, whole)).finished()
    went_on, anew, _ = said.split("export them with")
    assert " 0/3" not in went_on and " 0/3" in anew
    return parts, whole


def test_two_processes_killed_and_resumed_are_bitwise_the_unbroken_run(runs):
    """The first test here: forked processes must not inherit a process group."""
    a, b = map(losses, runs)
    assert a == b and len(a) == 3
    (_, a), (_, b) = (export.student(export.chosen(out, None)) for out in runs)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert all(value.any() for value in a.values())
    grids = [(out / "pictures" / "samples-00000003.png").read_bytes() for out in runs]
    assert grids[0] == grids[1]


def test_its_card_is_run_by_stock_diffusers(runs, xl, tmp_path, monkeypatch):
    """And by `full_scale.sample`, to the same picture, which is not the base's."""
    monkeypatch.chdir(tmp_path)
    xl.pipe.save_pretrained("WEIGHTS")  # the name that a card gives to random tiny weights
    out = export.run(export.Export(runs[0], to=Path("export")))
    card = (out / "README.md").read_text()
    code = re.search("```python\n(.*?)```", card, re.DOTALL)[1].replace("FOLDER", "'export'")
    names = {"seeds": [torch.Generator().manual_seed(0)]}
    exec(code.replace("= pipe(", "= pipe(generator=seeds, prompt="), names)
    theirs = np.asarray(names["picture"]).astype(int)
    assert type(names["pipe"].scheduler) is LCMScheduler
    words = shlex.split(re.search(r"python -m full_scale.sample (.*)", card)[1])
    words = [word.replace("FOLDER", "export") for word in words]
    made, base = (
        np.asarray(Image.open(sampling.run(tyro.cli(Config, args=args)) / "000.png")).astype(int)
        for args in (words, BASE)
    )
    assert made.shape == (128, 128, 3) and np.abs(made - theirs).max() <= 2
    assert np.abs(made - base).max() > 20


def test_rows_say_how_their_pictures_were_cut(data, source, xl):
    """As integers, and in agreement with the pixels that were encoded."""
    rows = Rows(data)
    batch = rows[range(6)]
    *stated, turned = map(tuple, batch.cond["time_ids"].tolist())
    assert stated == list(SIZES.values()) and batch.cond["time_ids"].dtype == torch.int64
    assert turned == (90, 72, 8, 0, 64, 64)  # scaled to 80 × 64
    for k, (height, width, top, left, *_) in enumerate(stated):
        picture = Image.open(source / f"{k}.png")
        assert (picture.height, picture.width) == (height, width)
        scaled = [64 * side // min(height, width) for side in (width, height)]
        cut = picture.resize(scaled, Image.LANCZOS).crop((left, top, left + 64, top + 64))
        assert fitted(picture, 64).tobytes() == cut.tobytes()
    assert rows.info["cond"] == {"text": [16, 80], "pooled": [40], "time_ids": [6]}
    assert rows.null.keys() == {"text", "pooled"} and rows.kept == {"time_ids": None}
    assert not any(value.any() for value in rows.null.values())
    want = xl.encode_texts(rows.captions(range(6)))
    assert all(torch.allclose(batch.cond[name], want[name], atol=4e-3) for name in want)
    assert rows.info["counts"]["kept"] == 6 and rows.info["counts"]["enlarged"] == 2


def test_prepared_in_two_parts_it_has_the_same_bytes(data, source, tmp_path):
    again = Path(shutil.copytree(data, tmp_path / "again"))
    for path in (again / "shard-00001", again / "shard-00002"):
        shutil.rmtree(path)
    (again / "info.json").unlink()
    datafolders.prepared(source, again, family="sdxl", store="float16")
    assert datafolders.contents(again) == datafolders.contents(data)
    assert len(shards.folders(again)) == 3


def test_prompts_alone_have_no_sizes(tmp_path):
    """The network is then told a whole picture of the latents' size, as in sampling."""
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    rows = Rows(datafolders.prepared(tmp_path / "prompts.txt", tmp_path / "out", family="sdxl"))
    assert rows[[0, 1]].cond.keys() == rows.null.keys() and rows.kept == {}


def settings(data: Path, out: Path, *words: str):
    short = "--tiny --batch 6 --micro 6 --steps 2 --save-every 1 --show-every 0 --device cpu"
    own = ["--family", "sdxl", "--data", str(data), "--out", str(out), *short.split()]
    return read([words[0], *own, *words[1:]])


def test_a_dropped_caption_keeps_its_picture_s_size(data, tmp_path, processes):
    engine = open_engine(settings(data, tmp_path / "run", "finetune", "--drop", "0.5"), processes)
    ((batch, _),) = engine.micro_batches(0)
    (places,) = engine.trainer.places(0)
    own = engine.rows[[row for _, row in places]]
    gone = ~batch.cond["pooled"].any(1)
    assert 0 < gone.sum() < 6 and torch.equal(gone, ~batch.cond["text"].flatten(1).any(1))
    assert torch.equal(batch.cond["pooled"][~gone], own.cond["pooled"][~gone])
    assert torch.equal(batch.cond["time_ids"], own.cond["time_ids"])


@torch.no_grad()
def test_the_network_and_both_sides_of_guidance_are_told_it(xl, data):
    """Against diffusers' own U-Net, each side called by hand."""
    rows = Rows(data)
    batch, model = rows[[0, 1]], xl.denoiser()
    cond, level = batch.cond, model.schedule.at(0.7)
    time = torch.full((2,), model.clock(0.7))

    def stock(text, pooled):
        added = {"text_embeds": pooled, "time_ids": cond["time_ids"].float()}
        return xl.net(batch.x0, time, text, added_cond_kwargs=added).sample

    said, empty = (
        stock(c["text"], c["pooled"])
        for c in (cond, {k: v.expand_as(cond[k]) for k, v in rows.null.items()})
    )
    torch.testing.assert_close(model(batch.x0, level, cond).raw, said)
    model = guided(model, 6.5, xl.null() | rows.kept)
    want = empty + 7.5 * (said - empty)
    torch.testing.assert_close(model(batch.x0, level, cond).raw, want, rtol=1e-4, atol=1e-4)
    bare = {name: cond[name] for name in rows.null}
    other = model(batch.x0, level, bare).raw  # of whole pictures of 64 pixels, for both sides
    assert (other - want).abs().max() > 0.01 * want.std()


@pytest.fixture(scope="module")
def pairs(source, tmp_path_factory) -> Path:
    """The same rows with a worse picture each, of another size."""
    root = tmp_path_factory.mktemp("pairs")
    (root / "worse").mkdir()
    for k in range(6):
        datafolders.picture(20 + k, 70, 90).save(root / "worse" / f"{k}.png")
    return datafolders.prepared(source, root / "xl", family="sdxl", worse=root / "worse")


@pytest.mark.parametrize("recipe", ["finetune", "dpo", "pcm_lora", "tcd"])
def test_other_recipes_train_it_too(recipe, pairs, xl, tmp_path, processes):
    """Two steps of each, which move every weight that they should; a pair is told the size of
    its better picture.
    """
    s = settings(pairs, tmp_path / "run", recipe, "--lr", "0.01", "--warmup", "0", "--micro", "3")
    engine = open_engine(s, processes)
    ids = [row for batch, _ in engine.micro_batches(0) for row in batch.cond["time_ids"].tolist()]
    assert sorted(ids) == sorted(map(list, [*SIZES.values(), (90, 72, 8, 0, 64, 64)]))
    student = engine.cast.trained["student"]
    start = {name: weight.detach().clone() for name, weight in student.weights.items()}
    first, second = engine.advance(), engine.advance()
    assert all(torch.isfinite(value) for value in {**first, **second}.values())
    if recipe == "dpo":
        assert first["student/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert not [name for name, w in student.weights.items() if torch.equal(w, start[name])]


def test_a_recipe_that_shares_references_is_refused(pairs, tmp_path, processes):
    """An empty caption does not stand for all sizes."""
    engine = open_engine(settings(pairs, tmp_path / "run", "sct"), processes)
    with pytest.raises(ValueError, match=r"the empty condition leaves \['time_ids'\].*ect"):
        engine.advance()


def test_other_data_are_named(data, whole, family, xl, tmp_path):
    """Of SD for SDXL, the other way round, and rows of before they knew their pictures' sizes."""
    for rows, model, says in (
        (data, family, "prepared for the family sdxl, and the model is of the family sd: pass"),
        (whole[1], xl, "prepared for the family sd, and the model is of the family sdxl: pass"),
    ):
        with pytest.raises(ValueError, match=says):
            Rows(rows).check(model, 2)
    Rows(data).check(xl, 2)
    old = Path(shutil.copytree(data, tmp_path / "old"))
    info = json.loads((old / "info.json").read_text())
    del info["family"]["time_ids"], info["cond"]["time_ids"]
    (old / "info.json").write_text(json.dumps(info))
    digests.close(old, shards.folders(old))
    with pytest.raises(ValueError, match="time_ids: None in the data, .*Prepare them anew"):
        Rows(old).check(xl, 2)


@pytest.fixture(scope="module")
def staged(xl) -> StableDiffusionXL:
    """A U-Net with the stages of the released one: three, two blocks each, attention in all but
    the first; of its 1, 2 and 10 layers 1, 1 and 2.
    """
    config = {**xl.net.config, "block_out_channels": (32, 64, 64), "layers_per_block": 2}
    config |= {"attention_head_dim": (2, 4, 4), "transformer_layers_per_block": (1, 1, 2)}
    config["down_block_types"] = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    config["up_block_types"] = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = UNet2DConditionModel.from_config(config).eval()
    return StableDiffusionXL(stock(xl.pipe, unet=net))


def stock(pipe, **parts) -> StableDiffusionXLPipeline:
    """diffusers' own pipeline of these parts and otherwise those of another."""
    made = StableDiffusionXLPipeline(**{**pipe.components, **parts}, add_watermarker=False)
    made.set_progress_bar_config(disable=True)
    return made


CALLED = {  # by diffusers and, as sd-scripts' own map has it, by kohya
    "conv_in": "input_blocks_0_0",
    "down_blocks.0.resnets.1.conv1": "input_blocks_2_0_in_layers_2",
    "down_blocks.0.downsamplers.0.conv": "input_blocks_3_0_op",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    ),
    "down_blocks.2.attentions.1.proj_in": "input_blocks_8_1_proj_in",
    "mid_block.resnets.1.conv2": "middle_block_2_out_layers_3",
    "mid_block.attentions.0.transformer_blocks.1.attn2.to_out.0": (
        "middle_block_1_transformer_blocks_1_attn2_to_out_0"
    ),
    "up_blocks.0.attentions.2.transformer_blocks.1.ff.net.0.proj": (
        "output_blocks_2_1_transformer_blocks_1_ff_net_0_proj"
    ),
    "up_blocks.1.upsamplers.0.conv": "output_blocks_5_2_conv",
    "up_blocks.2.resnets.0.conv_shortcut": "output_blocks_6_0_skip_connection",
    "up_blocks.2.resnets.2.time_emb_proj": "output_blocks_8_0_emb_layers_1",
    "time_embedding.linear_2": "time_embed_2",
    "add_embedding.linear_1": "label_emb_0_0",
    "conv_out": "out_2",
}


@torch.no_grad()
def test_both_files_are_read_by_the_stock_pipeline(staged, tmp_path):
    """Adapters on every layer of a U-Net with the released one's stages: each finds its own
    layer, and the pictures are ours.
    """
    student, draw = twin(staged.denoiser().net, 3, 5.0), torch.Generator().manual_seed(5)
    for weight in adapters(student).values():
        weight.normal_(std=0.05, generator=draw)
    values = {name: weight.detach() for name, weight in adapters(student).items()}
    layers = {name.removeprefix("unet.").rsplit(".", 1)[0] for name in values}
    s = read(["lcm_lora", "--family", "sdxl", "--tiny", "--lora-rank", "3", "--lora-alpha", "5"])
    table = as_table(s) | {"lora_targets": sorted(layers)}
    shown = recipe_of(s, None, None).sampler
    about = {"what": "student", "step": 1, "licence": None, "versions": {}}
    about["settings"] = table | {"sampler": shown.facts}
    export.write(tmp_path, staged, values, about)
    kohya = load_file(tmp_path / KOHYA)
    assert len(kohya) == 3 * len(layers) and len(layers) > 150
    for layer, name in CALLED.items():
        assert torch.equal(
            kohya[f"lora_unet_{name}.lora_down.weight"], values[f"unet.{layer}.lora_A"]
        )
    model = shown.wrap(staged.denoiser(student.unet))
    walk, cond = shown.levels(model.schedule), staged.encode_texts(TEXTS[:2])
    ours = latents(model, (4, 8, 8), walk, SOLVERS[shown.solver], cond, (3, 11), batch=2)
    for file in (DIFFUSERS, KOHYA):
        pipe = stock(staged.pipe, unet=UNet2DConditionModel.from_config(staged.net.config).eval())
        pipe.unet.load_state_dict(staged.net.state_dict())
        pipe.load_lora_weights(tmp_path, weight_name=file)
        found = dict(pipe.unet.named_parameters())
        for layer in layers:
            a = found[f"{layer}.lora_A.default_0.weight"]
            assert torch.equal(a, values[f"unet.{layer}.lora_A"]), (file, layer)
        pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
        theirs = pipe(
            TEXTS[:2],
            height=64,
            width=64,
            num_inference_steps=4,
            guidance_scale=1.0,
            generator=[torch.Generator().manual_seed(seed) for seed in (3, 11)],
            output_type="latent",
        ).images
        assert (ours - theirs).abs().max() < 1e-4 * theirs.std(), file


@pytest.fixture(scope="module")
def published(xl, tmp_path_factory) -> Path:
    """SDXL base's configuration files, without its weights."""
    root = tmp_path_factory.mktemp("published")
    for file, value in (
        ("unet/config", PUBLISHED),
        ("text_encoder/config", {"max_position_embeddings": 77}),
        ("text_encoder_2/config", {"projection_dim": 1280}),
        ("scheduler/scheduler_config", dict(xl.pipe.scheduler.config)),
    ):
        (root / file).parent.mkdir()
        (root / f"{file}.json").write_text(json.dumps(value))
    return root


def test_what_the_released_size_costs(published, monkeypatch):
    """2.567 G parameters, of which no number is read; a forward pass at 128 × 128, against each
    layer's outputs times inputs by hand; adapters of the 197 M that LCM-LoRA has on SDXL (Luo
    et al. 2023b, table 1); and what the page says that they need.
    """
    plan, counts = named("sdxl").blueprint(str(published)), []
    net, batch = plan.base.net, plan.batch(1)
    assert sum(p.numel() for p in net.parameters()) == 2_567_463_684
    assert plan.sides == (4, 128, 128) and plan.base.predicts == "eps"
    sides = {name: tuple(value.shape) for name, value in plan.null().items()}
    assert sides == {"text": (77, 2048), "pooled": (1280,)}

    def layer(module, inputs, out):
        counts.append(2 * out.numel() * module.weight[0].numel())

    def attention(module, inputs, kwargs, out):
        other = kwargs.get("encoder_hidden_states")
        keys = (inputs[0] if other is None else other).shape[1]
        counts.append(4 * inputs[0].shape[1] * keys * module.to_q.out_features)

    hooks = [
        module.register_forward_hook(layer)
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
        else module.register_forward_hook(attention, with_kwargs=True)
        for module in net.modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
        or type(module).__name__ == "Attention"
    ]
    with torch.no_grad():
        call = lambda: net(batch.x0, torch.empty(1, device="meta"), batch.cond)
        assert cost(call, [], torch.float32).flops == sum(counts) > 0
    for hook in hooks:
        hook.remove()
    page = (Path(export.__file__).parents[1] / "book/pages/for/full-scale.md").read_text()
    said = re.search(
        r"at 1024 pixels is (\S+) TFLOP.*?`lcm_lora --micro 4` needs (\S+) GB.*?(\d+) M weights"
        r".*?(\d+) hours on an RTX 4090",
        page,
        re.DOTALL,
    )
    monkeypatch.setattr(estimating, "blueprint", lambda s: plan)
    s = read(["lcm_lora", "--family", "sdxl", "--weights", str(published), "--micro", "4"])
    need = estimating.needs(s)
    hours = need.flops(s) * s.steps / (GPUS["RTX 4090"][0] * 1e12 * MFU) / 3600
    found = (f"{sum(counts) / 1e12:.2f}", f"{need.peak('ddp', 1) / 1e9:.0f}")
    trained = f"{need.trained['student'] / 1e6:.0f}"
    assert said.groups() == (*found, trained, f"{hours:.0f}") and trained == "197"
