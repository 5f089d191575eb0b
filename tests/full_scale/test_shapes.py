"""The captioned shapes as a family: trained, estimated, exported with a card that tells the
truth, and sampled by the card's command.
"""

import json
import shlex
from pathlib import Path

import pytest
import torch
import tyro
from PIL import Image

import full_scale.sample as sampling
from full_scale.cost.quote import report
from full_scale import export
from full_scale.sampling.request import Config
from full_scale.families import open_family
from full_scale.run.settings import read
from full_scale.train import train

FLAGS = {
    "full": ["--ema", "0.9"],
    "lora": [
        "--lora-rank",
        "2",
        "--lora-alpha",
        "3",
        "--lora-targets",
        "to_q",
        "mlp.2",
        "--ema",
        "0",
        "--roles.target.decay",
        "0",
    ],
}


@pytest.fixture(scope="module", params=FLAGS)
def run(request, shapes_data, tmp_path_factory):
    """(name, the engine after three steps, its export)."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    short = [
        "--steps",
        "3",
        "--batch",
        "8",
        "--micro",
        "8",
        "--lr",
        "1e-2",
        "--warmup",
        "0",
        "--show-every",
        "0",
        "--device",
        "cpu",
    ]
    engine = train(
        read(
            [
                "lcm_shapes",
                "--data",
                str(shapes_data),
                "--out",
                str(out),
                *short,
                *FLAGS[request.param],
            ]
        )
    )
    return request.param, engine, export.run(export.Export(out))


def said_by(net) -> torch.Tensor:
    """What a network says at one fixed input."""
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return net(x, torch.tensor([999.0, 20.5]), {"text": torch.ones(2, 10, dtype=torch.int64)})


def test_the_export_opens_as_the_student(run):
    """Adapters are added to the weights: to rounding the same function, and another than the
    teacher's.
    """
    _, engine, out = run
    want, found, teacher = (
        said_by(net)
        for net in (
            engine.cast.output.net,
            *(
                open_family("shapes", weights, torch.device("cpu")).denoiser().net
                for weights in (str(out), None)
            ),
        )
    )
    assert (
        (found - want).abs().max() < 1e-5 * want.abs().max() < 1e-2 * (want - teacher).abs().max()
    )


def test_the_cards_command_samples_it(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, _, out = run
    card = (out / "README.md").read_text()
    assert (
        ("LoRA, added to the weights" in card) == (name == "lora")
        and "library_name" not in card
        and "Pipeline" not in card
    )
    assert "on the book's teacher of the family shapes" in card and card.startswith(
        "---\nlicense: MIT\n"
    )
    words = shlex.split(
        card.split("python -m full_scale.sample ")[1].splitlines()[0].replace("FOLDER", str(out))
    )
    made = sampling.run(tyro.cli(Config, args=words))
    facts = json.loads((made / "settings.json").read_text())
    assert (
        Image.open(made / "000.png").size == (128, 128)
        and facts["licence"] == "MIT"
        and facts["network_calls"] == 4
    )


def test_the_teacher_is_sampled_with_guidance_and_what_has_no_sense_is_refused(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    made = sampling.run(
        Config(
            prompt=("a red circle",),
            family="shapes",
            tiny=True,
            solver="ddim",
            steps=3,
            omega=2.0,
        )
    )
    assert json.loads((made / "settings.json").read_text())["network_samples"] == 6
    for change, match in (
        ({"height": 64}, "--height 64: .*64 × 16 pixels.*have 16 pixels a side"),
        ({"lora": Path("x.safetensors")}, "--family shapes takes no --lora: its students"),
        ({"prompt": ("a lighthouse",)}, "lighthouse"),
        ({"family": "shape"}, "no such family; there are sd, "),
        ({"tiny": False, "weights": "nowhere"}, "no shapes_model.safetensors"),
    ):
        with pytest.raises(ValueError, match=match):
            sampling.run(
                Config(
                    **{"prompt": ("a red circle",), "family": "shapes", "tiny": True, **change}
                )
            )


def test_the_estimate_counts_the_teacher_once_and_the_student(shapes_data):
    count = sum(
        p.numel() for p in open_family("shapes", None, torch.device("cpu")).net.parameters()
    )
    said = report(
        read(
            [
                "lcm_shapes",
                "--data",
                str(shapes_data),
                "--roles.target.decay",
                "0",
                "--device",
                "cpu",
            ]
        )
    )
    assert (
        f"{'student, trained':28}{count:>16,}\n{'frozen':28}{count:>16,}\n{'averages':28}{count:>16,}"
        in said
    )
