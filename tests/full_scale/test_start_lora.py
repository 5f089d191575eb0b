"""A run that starts from a LoRA file begins where that file's student stands."""

import doctest
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dlib.lora import twin
from full_scale import export
from full_scale.export import Export
from full_scale.families import Shapes
from full_scale.out import lora_files
from full_scale.run import start_lora
from full_scale.run.checks import check
from full_scale.run.checkpoint import described
from full_scale.run.settings import read
from full_scale.run.student import restored, student
from full_scale.train import open_engine

TARGETS = ("to_q", "conv1", "to_out.0")
LORA = ["--lora-rank", "2", "--lora-alpha", "3", "--lora-targets", *TARGETS]
NAMES = (lora_files.DIFFUSERS, lora_files.KOHYA)


def output(net, family):
    """Of a network as the losses call it, on inputs that are always the same."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, *family.shape(family.size), generator=generator)
    cond = {name: value.expand(2, *value.shape) for name, value in family.null().items()}
    with torch.no_grad():
        return net(x, torch.tensor([10.0, 900.0]), cond)


@pytest.fixture(scope="module")
def exported(data, processes, tmp_path_factory):
    """The export of a run whose adapters have all moved; its student's output and the base's."""
    out = tmp_path_factory.mktemp("lora") / "run"
    short = ["--batch", "2", "--micro", "2", "--ema", "0", "--device", "cpu"]
    s = read(["finetune", "--tiny", "--data", str(data), "--out", str(out), *short, *LORA])
    engine, generator = open_engine(s, processes), torch.Generator().manual_seed(5)
    base = output(engine.family.denoiser().net, engine.family)
    with torch.no_grad():
        for weight in engine.cast.trained["student"].weights.values():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    engine.save(wait=True)
    made, saved = export.run(Export(out)), out / "step-00000000"
    net = restored(engine.family, student(saved)[1], described(saved)["settings"])
    return made, output(net, engine.family), base


@pytest.mark.parametrize("name", NAMES)
def test_the_first_step_has_the_exported_student(name, exported, settings, processes):
    """In either file's names, with another α, and in the average too. A layer that the file does
    not name begins without effect, and the model around it is left alone.
    """
    folder, wanted, base = exported
    more = ["--lora-targets", *TARGETS, "to_k", "--lora-alpha", "16", "--ema", "0.9"]
    words = ["--lora-rank", "2", *more, "--start-lora", str(folder / name)]
    engine = open_engine(settings(*words), processes)
    for net in (engine.cast.trained["student"].inner, engine.cast.output.net):
        assert (output(net, engine.family) - wanted).norm() < 1e-5 * (wanted - base).norm()
    assert torch.equal(output(engine.family.denoiser().net, engine.family), base)
    assert (wanted - base).norm() > 0.1 * base.norm()
    weights = engine.cast.trained["student"].weights
    fresh = [value for key, value in weights.items() if key.endswith("to_k.lora_B")]
    assert fresh and not any(value.any() for value in fresh)
    assert all(value.any() for key, value in weights.items() if "to_k" not in key)


def refused(match, work, *given):
    with pytest.raises(ValueError, match=match) as error:
        work(*given)
    said = str(error.value)
    assert said.startswith("--start-lora") and "\n" not in said and " --lora " not in said


def test_what_does_not_fit_is_one_line(exported, family, settings, tmp_path):
    file, values = exported[0] / NAMES[0], load_file(exported[0] / NAMES[0])
    layer = next(name for name in values if "to_q.lora_A" in name).removesuffix(".lora_A.weight")
    text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    pair = {
        f"{text}.lora_A.weight": torch.ones(2, 32),
        f"{text}.lora_B.weight": torch.ones(32, 2),
    }
    odd = {
        f"have no place, the first {layer}.lora_magn": values
        | {f"{layer}.lora_magnitude_vector": torch.ones(1)},
        f"have no place, the first {layer}.dora_scale": values
        | {f"{layer}.dora_scale": torch.ones(1)},
        "of its .* layers exist in these weights": {
            name.replace("to_q", "to_z"): value for name, value in values.items()
        },
        "also adapts text_encoder, which no run trains": values | pair,
    }
    for number, (match, tensors) in enumerate(odd.items()):
        save_file(tensors, tmp_path / f"{number}.safetensors")
        refused(match, start_lora.read, family, tmp_path / f"{number}.safetensors")
    refused("wanted a .safetensors file", start_lora.read, family, tmp_path / "absent")
    found = start_lora.read(family, file)
    for rank, targets, match in (
        (4, TARGETS, "has the rank 2 and --lora-rank is 4: pass --lora-rank 2$"),
        (2, ("to_q",), "layers that this student .*--lora-targets conv1 to_out.0 to_q$"),
    ):
        net = twin(family.denoiser().net, rank, 1.0, targets)
        refused(match, start_lora.begin, net, found, "unet", file)
    mixed = found | {"conv_in": (torch.ones(3, 4, 3, 3), torch.ones(8, 3, 1, 1))}
    refused("rank 2, 3 .*must be one", start_lora.begin, net, mixed, "unet", file)
    start = ["--start-lora", str(file)]
    refused("rank 0: .* all weights are trained", check, settings("--lora-rank", "0", *start))
    shapes = Shapes.tiny(torch.device("cpu"), torch.float32)
    with pytest.raises(ValueError, match="--family shapes takes no --start-lora"):
        start_lora.read(shapes, file)


def test_a_resumed_run_begins_as_it_did_and_a_damaged_file_is_refused(
    exported, settings, processes, tmp_path
):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    words = [*LORA, "--start-lora", str(folder / NAMES[1])]
    engine = open_engine(settings(*words), processes)
    engine.advance()
    engine.save(wait=True)
    again = open_engine(settings(*words), processes)
    live, weights = (one.cast.trained["student"].weights for one in (engine, again))
    assert again.step == 1 and all(torch.equal(live[name], weights[name]) for name in live)
    with pytest.raises(ValueError, match="other settings: start_lora: "):
        open_engine(settings(*LORA), processes)
    (folder / NAMES[1]).write_bytes(b"cut")
    with pytest.raises(ValueError, match="--start-lora: the folder .*copy is damaged"):
        open_engine(settings(*words), processes)


def test_examples():
    assert doctest.testmod(start_lora).failed == 0
