"""What scores pictures: encoders of transformers with weights that the reader names, and the
book's own toy scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from dlib import metrics
from dlib._util import require
from full_scale import rewards
from full_scale.sources.broken import broken, unreadable
from full_scale.sources.captioned import Captioned
from full_scale.sources.pictures import fitted, pixels
from toy_data import shape_captions, shape_reader, shape_scores
from toy_data.shapes import SIDE

TOY = (
    "not a measure of quality: mean colours and slopes of 4 × 4 patches, pictures shrunk to "
    "16 × 16"
)


def device(name: str) -> torch.device:
    """The device that --device means."""
    return torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    )


def check_folder(flag: str, name: str) -> None:
    """Raise ValueError unless `name` is a local folder of a transformers model with
    safetensors weights.
    """
    path, example = (
        Path(name).expanduser(),
        {"encoder": "facebook/dinov2-base", "clip": "openai/clip-vit-large-patch14"}[flag],
    )
    require(
        path.is_dir() and (path / "config.json").is_file(),
        f"--{flag} {name}: no folder with a config.json there. Get one, for example: "
        f"hf download {example} --local-dir weights/{example.split('/')[1]} --include '*.json' "
        "--include '*.txt' --include 'model.safetensors'",
    )
    require(
        any(path.glob("*.safetensors")),
        f"--{flag} {name}: no .safetensors file there; pickled weights can run code and are "
        "not loaded",
    )
    absent = unreadable(path, captions=flag == "clip")
    require(
        not absent,
        f"--{flag} {name}: no {' and no '.join(absent)} there: download the folder's .json and "
        ".txt files as well",
    )


def toy(made: Sequence[Captioned], real: Sequence[Captioned]) -> dict[str, Any]:
    """Scores that need no weights: of captioned shapes, how many show what was asked; of any
    pictures, a crude distance to real ones.
    """
    found: dict[str, Any] = {}
    codes = _codes(made)
    if codes is not None:
        seen = shape_reader.read(_small(made))
        shows = shape_reader.shows(seen, codes).double()
        found["shapes"] = {
            "accuracy": shows.mean().item(),
            "off": seen.off.square().mean().sqrt().item(),
            "each": {"accuracy": shows.tolist(), "off": seen.off.tolist()},
        }
    if len(real) > 1 and len(made) > 1:
        a, b = shape_scores.features(_small(made)), shape_scores.features(_small(real))
        found["patches"] = {"frechet": metrics.frechet(a, b), **_floor(b), "note": TOY}
    return found


def frechet(
    folder: str,
    made: Sequence[Captioned],
    real: Sequence[Captioned],
    batch: int,
    on: torch.device,
) -> dict[str, Any]:
    """Fréchet distance between Gaussian fits of an image encoder's features (Heusel et al.
    2017; Stein et al. 2023 on which encoder).

    It is the published FID only with that metric's Inception network. Biased by about d(d +
    5)/2n: compare at one n.
    """
    require(
        min(len(made), len(real)) > 1,
        f"--encoder: {len(made)} pictures and {len(real)} real ones; a distance of "
        "distributions wants at least 2 of each, "
        "and thousands to mean anything",
    )
    a, b = (features(folder, shown, batch, on) for shown in (made, real))
    return {
        "distance": metrics.frechet(a, b),
        **_floor(b),
        "dimensions": a.shape[1],
        "encoder": folder,
    }


def _floor(real: Tensor) -> dict[str, float | None]:
    """What two halves of the real pictures score: the noise, at half the number."""
    half = len(real) // 2
    return {
        "between_halves_of_real": metrics.frechet(real[0 : 2 * half : 2], real[1 : 2 * half : 2])
        if half > 1
        else None
    }


@torch.no_grad()
def features(folder: str, shown: Sequence[Captioned], batch: int, on: torch.device) -> Tensor:
    """(n, d): the encoder's pooled output, or an image-text model's image features, in
    float32.
    """
    from transformers import AutoImageProcessor, AutoModel

    model = _opened(AutoModel, folder, on)
    prepare, found = _opened(AutoImageProcessor, folder), []
    for part in _parts(shown, batch, "encoder"):
        seen = prepare(
            images=[item.picture for item in part], return_tensors="pt"
        ).pixel_values.to(on)
        found.append((_image_features(model, seen)).float().cpu())
    return torch.cat(found)


def _image_features(model: Any, seen: Tensor) -> Tensor:
    said = (
        model.get_image_features(pixel_values=seen)
        if hasattr(model, "get_image_features")
        else model(pixel_values=seen)
    )
    return said if isinstance(said, Tensor) else said.pooler_output


@torch.no_grad()
def clip_score(
    folder: str, shown: Sequence[Captioned], batch: int, on: torch.device
) -> dict[str, Any]:
    """100·max(cos(picture, caption), 0), mean and standard error (Hessel et al. 2021, with the
    weight 100 in common use).
    """
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    without = [str(k) for k, item in enumerate(shown, 1) if not item.caption]
    require(
        not without,
        f"--clip: {len(without)} pictures have no caption (number {', '.join(without[:3])}): "
        "put x.txt beside x.png, or leave --clip out",
    )
    model, prepare, tokenise = (
        _opened(CLIPModel, folder, on),
        _opened(AutoImageProcessor, folder),
        _opened(AutoTokenizer, folder),
    )
    scores = []
    for part in _parts(shown, batch, "clip"):
        seen = prepare(
            images=[item.picture for item in part], return_tensors="pt"
        ).pixel_values.to(on)
        length = model.config.text_config.max_position_embeddings
        words = tokenise(
            [item.caption for item in part],
            padding=True,
            truncation=True,
            max_length=length,
            return_tensors="pt",
        ).to(on)
        said = model(
            pixel_values=seen, input_ids=words.input_ids, attention_mask=words.attention_mask
        )
        scores.append(
            100
            * torch.cosine_similarity(said.image_embeds, said.text_embeds)
            .clamp(min=0)
            .double()
            .cpu()
        )
    return _summed(torch.cat(scores)) | {"model": folder}


def _summed(every: Tensor) -> dict[str, Any]:
    error = (every.std() / len(every) ** 0.5).item() if len(every) > 1 else None
    return {
        "mean": every.mean().item(),
        "standard_error": error,
        "each": {"score": every.tolist()},
    }


@torch.no_grad()
def rewarded(
    name: str, weights: str, shown: Sequence[Captioned], batch: int, on: torch.device
) -> dict[str, Any]:
    """A reward of `full_scale.rewards` on each picture and its caption: mean and standard error.
    Pictures of captioned shapes are seen at their own 16 × 16 pixels, as in training.
    """
    without = sum(not item.caption for item in shown)
    require(
        not without or name not in rewards.READERS,
        f"--reward {name}: {without} pictures have no caption, and it reads captions: put x.txt "
        "beside x.png",
    )
    score, found = rewards.opened(name, weights, on), []
    for part in _parts(shown, batch, name):
        seen = [(pixels([shrunk(item.picture)]).to(on), item.caption or "") for item in part]
        for _, same in groupby(seen, key=lambda one: one[0].shape):
            pictures, captions = zip(*same)
            found.append(score(torch.cat(pictures), captions).double().cpu())
    return _summed(torch.cat(found))


def _opened(kind: Any, folder: str, on: torch.device | None = None) -> Any:
    """A model, processor or tokenizer from a local folder; the model without gradients, from
    safetensors.
    """
    try:
        if on is None:
            return kind.from_pretrained(folder, local_files_only=True)
        return (
            kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            .to(on)
            .eval()
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        what = broken(Path(folder).expanduser()) or str(error).splitlines()[0]
        raise ValueError(f"{folder} cannot be opened as {kind.__name__}: {what}") from error


def _parts(shown: Sequence[Captioned], batch: int, what: str) -> tqdm:
    return tqdm(
        [shown[i : i + batch] for i in range(0, len(shown), batch)], desc=what, unit="batch"
    )


def _codes(shown: Sequence[Captioned]) -> Tensor | None:
    """What the captions ask for, if all are of the captioned shapes' grammar and all pictures
    of their size, or enlarged ones of it.
    """
    if any(item.caption is None or shrunk(item.picture).size != (SIDE, SIDE) for item in shown):
        return None
    try:
        return torch.tensor([shape_captions.parse(item.caption) for item in shown])
    except ValueError:
        return None


def _small(shown: Sequence[Captioned]) -> Tensor:
    return pixels([fitted(shrunk(item.picture), SIDE) for item in shown])


def shrunk(picture: Image.Image) -> Image.Image:
    """A picture of captioned shapes that `full_scale.sample` enlarged for the eye, at its own
    16 × 16 pixels, to the bit; any other as it is.

    >>> shrunk(Image.new("RGB", (128, 128))).size, shrunk(Image.new("RGB", (120, 128))).size
    ((16, 16), (120, 128))
    """
    if picture.width != picture.height or picture.width % SIDE:
        return picture
    small = picture.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    again = small.resize(picture.size, Image.Resampling.NEAREST)
    return small if again.tobytes() == picture.tobytes() else picture
