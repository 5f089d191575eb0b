"""Make of a reward's published weights, which are pickled, the safetensors that it is read from.

    python -m full_scale.convert aesthetic sac+logos+ava1-l14-linearMSE.pth \\
        --clip weights/clip-vit-large-patch14
    python -m full_scale.convert hps HPS_v2.1_compressed.pt \\
        --clip weights/CLIP-ViT-H-14-laion2B-s32B-b79K --out weights/hps

The first puts aesthetic.safetensors beside the CLIP. The second writes a folder: HPSv2's weights
under transformers' names, with the configuration and the tokenizer of the CLIP of that size. Of a
pickled file tensors alone are taken (`torch.load(weights_only=True)`), so it can run no code.
"""

from __future__ import annotations

import pickle
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from dlib._util import require
from full_scale.families.saving import save_tensors
from full_scale.out import folder as output
from full_scale.rewards.encoders import PREDICTOR, outline, widths


@dataclass(frozen=True)
class Aesthetic:
    """The aesthetic predictor's .pth, into the folder of its CLIP."""

    file: tyro.conf.Positional[Path]
    """sac+logos+ava1-l14-linearMSE.pth, of christophschuhmann/improved-aesthetic-predictor."""
    clip: Path
    """A folder of openai/clip-vit-large-patch14."""


@dataclass(frozen=True)
class Hps:
    """HPSv2's .pt, into a new folder."""

    file: tyro.conf.Positional[Path]
    """HPS_v2_compressed.pt or HPS_v2.1_compressed.pt, of xswu/HPSv2 on the hub."""
    clip: Path
    """A folder of laion/CLIP-ViT-H-14-laion2B-s32B-b79K: its configuration and tokenizer."""
    out: Path
    """The folder to write, for --reward-weights."""


OPEN_CLIP = (
    (r"^visual\.transformer\.resblocks", "vision_model.encoder.layers"),
    (r"^transformer\.resblocks", "text_model.encoder.layers"),
    (r"^visual\.conv1\b", "vision_model.embeddings.patch_embedding"),
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre\b", "vision_model.pre_layrnorm"),  # transformers' spelling
    (r"^visual\.ln_post\b", "vision_model.post_layernorm"),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^token_embedding\b", "text_model.embeddings.token_embedding"),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\b", "text_model.final_layer_norm"),
    (r"^text_projection$", "text_projection.weight"),
    (r"\.ln_([12])\b", r".layer_norm\1"),
    (r"\.mlp\.c_fc\b", ".mlp.fc1"),
    (r"\.mlp\.c_proj\b", ".mlp.fc2"),
    (r"\.attn\.out_proj\b", ".self_attn.out_proj"),
)
"""OpenCLIP's names of the weights, and transformers'."""


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's weights under transformers' names: projections act from the left there, and
    queries, keys and values have a matrix each.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        new = name
        for old, better in OPEN_CLIP:
            new = re.sub(old, better, new)
        if joined := re.fullmatch(r"(.*)\.attn\.in_proj_(weight|bias)", new):
            for letter, part in zip("qkv", value.chunk(3)):
                found[f"{joined[1]}.self_attn.{letter}_proj.{joined[2]}"] = part
        else:
            found[new] = value.T if name in ("visual.proj", "text_projection") else value
    return {name: value.float() for name, value in found.items()}


def tensors(file: Path) -> dict[str, Tensor]:
    """The weights of a pickled file, by name: of its "state_dict" where it has one. ValueError
    names a file that holds anything but tensors.
    """
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file} cannot be read as weights alone: {why}") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    require(
        isinstance(found, dict) and all(isinstance(v, Tensor) for v in found.values()),
        f"{file} holds no weights by name: download the published file again",
    )
    return {name.removeprefix("module."): value for name, value in found.items()}


def run(config: Aesthetic | Hps) -> Path:
    """Write what `config` asks for, and return its path. ValueError, before anything is written,
    for a file with other weights than the published one's.
    """
    clip = config.clip.expanduser()
    require(
        (clip / "config.json").is_file(),
        f"--clip {config.clip}: no config.json there: wanted a CLIP in transformers' format",
    )
    found = tensors(config.file.expanduser())
    if isinstance(config, Hps):
        return _beside_configuration(config, clip, renamed(found))
    return _beside_clip(config, clip, found)


def _beside_configuration(config: Hps, clip: Path, found: Mapping[str, Tensor]) -> Path:
    """A new folder: the weights, and what a CLIP's folder says of such a network."""
    output.check_free(config.out)
    agreed(config, found, outline("hps", clip).model.state_dict())

    def fill(folder: Path) -> None:
        for file in (*clip.glob("*.json"), *clip.glob("*.txt")):
            if not file.name.endswith(".index.json"):
                shutil.copy(file, folder)
        save_tensors(found, folder / "model.safetensors", {"format": "pt"})

    return output.whole(config.out, fill, sum(value.nbytes for value in found.values()))


def _beside_clip(config: Aesthetic, clip: Path, found: Mapping[str, Tensor]) -> Path:
    """The predictor's file, in the CLIP's own folder."""
    to, sizes = clip / PREDICTOR, widths(outline("aesthetic", clip))
    require(
        not to.exists(), f"{to} is there already; nothing was overwritten. Move it away first"
    )
    wanted = {}
    for k, a, b in zip((0, 2, 4, 6, 7), sizes, sizes[1:]):  # dropout has the other numbers
        wanted |= {f"layers.{k}.weight": torch.empty(b, a), f"layers.{k}.bias": torch.empty(b)}
    agreed(config, found, wanted)
    save_tensors(found, to)
    return to


def agreed(
    config: Aesthetic | Hps, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    """ValueError, with the first names, unless all weights are there with their shapes."""
    a, b = ({name: tuple(v.shape) for name, v in each.items()} for each in (found, wanted))
    wrong = sorted(name for name in {*a, *b} if a.get(name) != b.get(name))
    first = [f"{n} is {a.get(n, 'missing')}, wanted {b.get(n, 'none')}" for n in wrong[:2]]
    require(
        not wrong,
        f"{config.file} has other weights than those of --clip {config.clip} in {len(wrong)} "
        f"places: {'; '.join(first)}",
    )


def main(arguments: list[str] | None = None) -> None:
    """The command line: one line on stderr, and exit status 1, for what the reader can put
    right.
    """
    config = tyro.cli(
        Aesthetic | Hps, args=arguments, prog="python -m full_scale.convert", description=__doc__
    )
    try:
        print(run(config))
    except (ValueError, OSError) as error:
        sys.exit(f"full_scale.convert: {error}")


if __name__ == "__main__":
    main()
