"""Rewards on a CLIP of transformers, with a gradient into the picture. Weights are local folders,
safetensors only.

A picture is scaled and cut in torch as the model's processor does it on files: the shorter side
to the model's size, bicubic with antialiasing, the middle of the rest. Rounding to 8 bits in
between, as files have it, would have no gradient.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dlib._util import require
from full_scale.sources.broken import broken, unreadable

EXAMPLES = {
    "clip": "openai/clip-vit-large-patch14",
    "pickscore": "yuvalkirstain/PickScore_v1",
    "hps": "xswu/HPSv2, through python -m full_scale.convert hps",
    "aesthetic": "openai/clip-vit-large-patch14, with the predictor as aesthetic.safetensors",
}
LARGE = {
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
    "projection_dim": 768,
}
HUGE = {
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "num_hidden_layers": 32,
        "patch_size": 14,
    },
    "projection_dim": 1024,
}
PUBLISHED = {"clip": LARGE, "aesthetic": LARGE, "pickscore": HUGE, "hps": HUGE}
"""Sizes of CLIP ViT-L/14 and ViT-H/14, for an estimate without weights."""
PREDICTOR = "aesthetic.safetensors"
"""The aesthetic predictor's file, beside its CLIP."""
WIDTHS = (1024, 128, 64, 16, 1)
"""Of the aesthetic predictor's layers."""
PARTS = ("weight", "bias")
PROCESSORS = dict.fromkeys(("pickscore", "hps"), "laion/CLIP-ViT-H-14-laion2B-s32B-b79K")
"""Where they are, if it is not where the weights are."""


class Encoder(NamedTuple):
    """A CLIP with its processor's numbers."""

    model: Any
    tokenizer: Any
    mean: Tensor
    std: Tensor

    def pictures(self, x: Tensor) -> Tensor:
        """Unit vectors (B, D) of pictures (B, 3, h, w) in [−1, 1]."""
        from torchvision.transforms.v2 import InterpolationMode, functional

        side = self.model.config.vision_config.image_size
        seen = functional.resize(
            (x.float() + 1) / 2, side, interpolation=InterpolationMode.BICUBIC, antialias=True
        )
        seen = (functional.center_crop(seen, side) - self.mean) / self.std
        found = self.model.get_image_features(pixel_values=seen.to(self.model.dtype))
        return _unit(found)

    def texts(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors (B, D) of captions; longer ones are cut."""
        length = self.model.config.text_config.max_position_embeddings
        if self.mean.is_meta:
            ids = torch.zeros(len(captions), length, dtype=torch.int64, device="meta")
            with torch.no_grad():
                return _unit(self.model.get_text_features(input_ids=ids))
        words = self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        ).to(self.mean.device)
        with torch.no_grad():
            found = self.model.get_text_features(
                input_ids=words.input_ids, attention_mask=words.attention_mask
            )
        return _unit(found)

    def cosine(self, x: Tensor, captions: Sequence[str]) -> Tensor:
        """Of each picture and its caption, (B,)."""
        return (self.pictures(x) * self.texts(captions)).sum(1)


def clip(weights: str, device: torch.device):
    """100 times the cosine of picture and caption (Radford et al. 2021; Hessel et al. 2021)."""
    encoder = open_encoder("clip", weights, device)
    return lambda x, captions: 100 * encoder.cosine(x, captions)


def pickscore(weights: str, device: torch.device):
    """The cosine times the model's learnt scale, about 18 to 24: PickScore (Kirstain et al.
    2023). Differences are log-odds of a choice.
    """
    encoder = open_encoder("pickscore", weights, device)
    return lambda x, captions: encoder.model.logit_scale.exp() * encoder.cosine(x, captions)


def hps(weights: str, device: torch.device):
    """The cosine itself, about .24 to .30: HPSv2 (Wu et al. 2023)."""
    encoder = open_encoder("hps", weights, device)
    return encoder.cosine


def aesthetic(weights: str, device: torch.device):
    """LAION's aesthetic predictor, 1 to 10: five linear layers on CLIP's unit vector of the
    picture, without anything between them. It does not read the caption.
    """
    encoder = open_encoder("aesthetic", weights, device)
    file = Path(weights).expanduser() / PREDICTOR
    sizes = widths(encoder)
    head = nn.Sequential(*(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))).to(device)
    head.requires_grad_(False)
    score = lambda x, captions: head(encoder.pictures(x).float())[:, 0]
    if device.type == "meta":
        return score
    saved = load_file(file)
    shape = lambda name: saved[name].shape if name in saved else None
    names = sorted(
        {n.rsplit(".", 1)[0] for n in saved}, key=lambda n: int("0" + n.split(".")[-1])
    )
    require(
        [shape(f"{n}.{part}") for n in names for part in PARTS]
        == [getattr(layer, part).shape for layer in head for part in PARTS],
        f"{file} has layers {names}, wanted {len(head)} of widths {sizes}: the predictor belongs "
        "to another CLIP",
    )
    head.load_state_dict(
        {
            f"{place}.{part}": saved[f"{name}.{part}"]
            for place, name in enumerate(names)
            for part in PARTS
        }
    )
    return score


def check_folder(name: str, weights: str) -> None:
    """Raise ValueError, with what to download, unless a folder has the files of this reward."""
    folder = Path(weights).expanduser()
    require(
        bool(weights) and (folder / "config.json").is_file(),
        f"--reward {name} needs --reward-weights FOLDER, a CLIP in transformers' format, and "
        f"{weights or 'none'} is not one: {EXAMPLES[name]}",
    )
    require(
        any(folder.glob("*.safetensors")),
        f"--reward-weights {weights}: no .safetensors file there; pickled weights can run code "
        "and are not loaded",
    )
    require(
        name != "aesthetic" or (folder / PREDICTOR).is_file(),
        f"--reward-weights {weights}: no {PREDICTOR} there: download the predictor, "
        "sac+logos+ava1-l14-linearMSE.pth, and type python -m full_scale.convert aesthetic "
        f"sac+logos+ava1-l14-linearMSE.pth --clip {weights}",
    )
    absent = unreadable(folder, captions=name != "aesthetic")
    require(
        not absent,
        f"--reward-weights {weights}: no {' and no '.join(absent)} there, which {name} reads "
        f"with: copy the .json and .txt files of {PROCESSORS.get(name, EXAMPLES[name])} that "
        "are missing, but not its config.json",
    )
    what = broken(folder)
    require(not what, f"--reward-weights {weights}: {what}: copy or download it again")


def open_encoder(name: str, weights: str, device: torch.device) -> Encoder:
    """The CLIP of a local folder, in float32 (half precision rounds away small differences),
    without gradients of its own. ValueError says what to download.
    """
    folder = Path(weights).expanduser()
    if device.type == "meta":
        return outline(name, folder)
    from transformers import AutoTokenizer, CLIPModel

    try:
        model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        numbers = json.loads((folder / "preprocessor_config.json").read_text())
        mean, std = (
            torch.tensor(numbers[key], device=device).view(3, 1, 1)
            for key in ("image_mean", "image_std")
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"--reward-weights {weights} cannot be opened as a CLIP: {str(error).splitlines()[0]}"
        ) from error
    return Encoder(model.eval().requires_grad_(False).to(device), tokenizer, mean, std)


def outline(name: str, folder: Path) -> Encoder:
    """What the CLIP of a reward costs, without its numbers: of a folder's configuration, or of
    the published one's where there is no folder yet.
    """
    from transformers import CLIPConfig, CLIPModel

    known = (folder / "config.json").is_file()
    config = CLIPConfig.from_pretrained(folder) if known else CLIPConfig(**PUBLISHED[name])
    with torch.device("meta"):
        model = CLIPModel(config).eval().requires_grad_(False)
        return Encoder(model, None, *(torch.empty(3, 1, 1) for _ in range(2)))


def parameters(name: str, weights: str) -> int:
    """Of the networks of a reward, read off its folder's configuration or the published one."""
    encoder = outline(name, Path(weights).expanduser())
    sizes = widths(encoder) if name == "aesthetic" else ()
    head = sum((a + 1) * b for a, b in zip(sizes, sizes[1:]))
    return head + sum(p.numel() for p in encoder.model.parameters())


def widths(encoder: Encoder) -> tuple[int, ...]:
    """Of the aesthetic predictor on this CLIP: its input's, and its five layers'."""
    return (encoder.model.config.projection_dim, *WIDTHS)


def _unit(found: Any) -> Tensor:
    found = found if isinstance(found, Tensor) else found.pooler_output
    return nn.functional.normalize(found, dim=-1)
