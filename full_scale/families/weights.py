"""Where weights come from: a local folder or a hub id, in diffusers' format, safetensors only.
Nothing is unpickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from dlib._util import require
from full_scale.sources.broken import broken

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Weights(NamedTuple):
    """What a family's weights are: the class that diffusers gives them, the folders that it
    needs, a title, a hub id to begin with, what else to know before downloading it, which of
    the folders holds the network that denoises, and which folders may be left out.
    """

    pipeline: str
    parts: tuple[str, ...]
    title: str
    example: str
    note: str
    core: str = "unet"
    optional: tuple[str, ...] = ()

    def how_to_download(self, name: str | None = None) -> str:
        """The command that puts a hub repository's safetensors, and nothing else large, into a
        local folder; of the example unless named.
        """
        name = name or self.example
        folder = f"weights/{name.split('/')[-1]}"
        return (
            f"    hf download {name} --local-dir {folder} --include '*.json' --include '*.txt' "
            "--include README.md "
            "--include '*/*.safetensors' --exclude '*fp16*' --exclude '*non_ema*'\n"
            f"then pass --weights {folder} (copy the folder over if this machine has no "
            "network). `hf` comes with huggingface_hub; "
            f"{self.note}. Without weights, --tiny runs the same code."
        )


class OtherPipeline(ValueError):
    """Weights of another class than the family's; `found` is its name."""

    def __init__(self, message: str, found: str):
        super().__init__(message)
        self.found = found


def load(
    kind: Weights, weights: str, device: torch.device, dtype: torch.dtype
) -> tuple[DiffusionPipeline, str | None]:
    """The pipeline in `weights` (a folder or a hub id) on `device`, and the licence its model
    card states, if any.

    The VAE stays in float32: a picture has 8 bits a channel, and bfloat16 has 8 significant
    bits. Raises ValueError saying what to download and how, or what was found instead.
    """
    import diffusers

    folder = find(kind, weights)
    check_folder(kind, folder)
    try:
        pipe = getattr(diffusers, kind.pipeline).from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            variant=variant(folder / kind.core),
            dtype={"vae": torch.float32, "default": dtype},
            **{name: None for name in kind.optional if not (folder / name).is_dir()},
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        if what := broken(folder):
            raise ValueError(f"--weights: {what}: copy or download it again") from error
        if not isinstance(error, OSError):
            raise
        raise ValueError(
            f"weights in {folder} are incomplete, or not safetensors (pickled weights can run "
            "code and are not "
            f"loaded): {error}\nTo fetch them again:\n{kind.how_to_download()}"
        ) from error
    config = getattr(pipe, kind.core).config
    require(
        config.in_channels == pipe.vae.config.latent_channels,
        f"{folder} holds a network with {config.in_channels} input channels: "
        f"an inpainting model, not text to image; see `hf download {kind.example}`",
    )
    return pipe.to(device), licence(folder)


def variant(part: Path) -> str | None:
    """ "fp16" if a folder holds weights under that name alone, as half-size downloads do."""
    names = [path.name for path in part.glob("*.safetensors")]
    return "fp16" if names and all(".fp16." in name for name in names) else None


def add_lora(pipe: DiffusionPipeline, file: Path, flag: str = "--lora") -> None:
    """Put the LoRA of a safetensors file, in diffusers' or kohya's names, on the pipeline's
    networks, through peft. flag: what the file was typed behind.

    Raises ValueError, with names, unless every tensor of the file finds its place.
    """
    require(
        file.is_file() and file.suffix == ".safetensors",
        f"{flag} {file}: wanted a .safetensors file, such as "
        "RUN/export/pytorch_lora_weights.safetensors from full_scale.export",
    )
    try:
        with safe_open(file, "pt") as opened:
            wanted, odd = lora_layers(opened.keys())
        require(
            not odd,
            f"{len(odd)} of its tensors have no place, the first {odd[0] if odd else ''}: this "
            "reads pairs of low rank (lora_A and lora_B, or lora_down and lora_up, and alpha), "
            "not DoRA, LoKr, LoHa or whole differences",
        )
        pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    except (RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise ValueError(
            f"{flag} {file} does not fit these weights, or is no LoRA: "
            f"{str(error).splitlines()[0]}. "
            "Name a LoRA, and the weights that it was trained on"
        ) from error
    nets = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    found = sum(".lora_A." in name for net in nets for name, _ in net.named_parameters())
    require(
        found == wanted > 0,
        f"{flag} {file}: {found} of its {wanted} layers exist in these weights: name those it "
        "was trained on",
    )


DOWN = (".lora_A.weight", ".lora_down.weight", "lora.down.weight")
UP = (".lora_B.weight", ".lora_up.weight", "lora.up.weight")
"""How the names of a LoRA's factors end: peft's, kohya's, and diffusers' older ones."""


def lora_layers(names: Iterable[str]) -> tuple[int, list[str]]:
    """How many layers a LoRA file adapts, and the tensors that are no part of a whole pair.

    >>> lora_layers(["a.lora_down.weight", "a.lora_up.weight", "a.alpha", "a.dora_scale"])
    (1, ['a.dora_scale'])
    """
    names = list(names)

    def of(*ends: str) -> dict[str, str]:
        return {n.removesuffix(e): n for n in names for e in ends if n.endswith(e)}

    down, up, alpha = of(*DOWN), of(*UP), of(".alpha")
    whole = down.keys() & up.keys()
    placed = {held[layer] for held in (down, up, alpha) for layer in whole if layer in held}
    return len(whole), [name for name in names if name not in placed]


def find(kind: Weights, weights: str) -> Path:
    """The folder that `weights` names; a hub id is downloaded into the hub's cache first."""
    path = Path(weights).expanduser()
    if path.is_dir():
        return path
    require(
        not path.exists(),
        f"--weights {weights} is a file; wanted a folder in diffusers' format. A single "
        ".safetensors file becomes one with "
        f"{kind.pipeline}.from_single_file(FILE).save_pretrained(FOLDER)",
    )
    require(
        re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", weights) is not None,
        f"--weights {weights}: no such folder here, and not a hub "
        f"id of the form owner/name. To get {kind.example}:\n{kind.how_to_download()}",
    )
    return _from_hub(kind, weights)


def _from_hub(kind: Weights, name: str) -> Path:
    import diffusers
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError

    try:
        # before gigabytes travel
        _check_pipeline(kind, Path(hf_hub_download(name, "model_index.json")))
        with suppress(EntryNotFoundError):
            hf_hub_download(name, "README.md")
        return Path(getattr(diffusers, kind.pipeline).download(name, use_safetensors=True))
    except GatedRepoError as error:
        reason, cause = (
            "its owner asks you to accept the licence first: do so on its hub page, then `hf "
            "auth login`",
            error,
        )
    except (LocalEntryNotFoundError, ConnectionError) as error:
        reason, cause = (
            "no such folder here, nothing of that name in the hub's cache, and the hub did not "
            "answer",
            error,
        )
    except OSError as error:
        reason, cause = (
            "the hub has no such repository, or it is private, or not in diffusers' format "
            f"with safetensors ({error})",
            error,
        )
    raise ValueError(
        f"--weights {name}: {reason}. On a machine with a network:\n{kind.how_to_download(name)}"
    ) from cause


def check_folder(kind: Weights, folder: Path) -> None:
    """Raise ValueError, naming what was found, unless `folder` holds all parts of the kind."""
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
    index = folder / "model_index.json"
    require(
        index.is_file(),
        f"{folder} has no model_index.json, so it is no pipeline in diffusers' format. Found: "
        f"{found}. "
        f"To get {kind.example}:\n{kind.how_to_download()}",
    )
    _check_pipeline(kind, index)
    missing = [part for part in kind.parts if not (folder / part).is_dir()]
    require(
        not missing,
        f"{folder} lacks {', '.join(missing)}. Found: {found}. To fetch it "
        f"again:\n{kind.how_to_download()}",
    )


def _check_pipeline(kind: Weights, index: Path) -> None:
    try:
        found = json.loads(index.read_text())["_class_name"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{index} is not a pipeline's index (JSON with a _class_name): download it again"
        ) from None
    if found != kind.pipeline:
        raise OtherPipeline(
            f"{index.parent} holds a {found}; this adapter runs {kind.pipeline}, that is "
            f"{kind.title} for text to image, e.g. {kind.example}",
            found,
        )


def licence(folder: Path) -> str | None:
    """The `license:` of the front matter of the folder's model card (README.md), or None."""
    card = folder / "README.md"
    text = card.read_text(errors="replace") if card.is_file() else ""
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license: *(\S.*)$", front.group(1), re.MULTILINE) if front else None
    return found.group(1).strip() if found else None


def read_config(kind: Weights, weights: str, name: str) -> dict[str, Any]:
    """A configuration file of a weights folder, or of a hub repository without its weights."""
    file = Path(weights).expanduser() / name
    if not Path(weights).expanduser().is_dir():
        from huggingface_hub import hf_hub_download

        try:
            file = Path(hf_hub_download(weights, name))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"--weights {weights}: no such folder, and the hub did not give {name} "
                f"({type(error).__name__}). An estimate reads configuration files alone; to get "
                f"everything:\n{kind.how_to_download(weights)}"
            ) from error
    require(
        file.is_file(),
        f"--weights {weights} has no {name}: wanted a folder in diffusers' format, or at least "
        "its configuration files",
    )
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--weights: {file} is damaged ({error}): copy it again") from None


def hush() -> None:
    """Silence transformers' notices, and its bars for single files."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
