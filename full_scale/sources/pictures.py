"""Pictures from files to one size and one mode; what cannot be read says why."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dlib._util import require

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".heic", ".heif", ".jxl", ".exr", ".pfm"),
)
"""How pictures' names end; those that PIL cannot read are then named in the report."""
NARROW = 64
"""Times that a picture's long side may be its short one: beyond, scaling needs gigabytes."""


def held(value: Any) -> bytes | Path | None:
    """An encoded picture as tables hold it: bytes, a file's path, a struct of both, or null.
    Raises ValueError for anything else.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    wanted = "wanted a picture's bytes, or the path of a file that is here"
    if isinstance(value, str) and value:
        require(os.path.isfile(value), f"{value[:80]!r}: {wanted}")
        return Path(value)
    kind = type(value).__name__
    require(value is None or isinstance(value, bytes | str), f"a value of type {kind}: {wanted}")
    return value or None


def decoded(source: Path | bytes) -> Image.Image:
    """An encoded picture, from a file or from memory, in RGB and upright. Raises ValueError
    with the decoder's reason.
    """
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as picture:
            return rgb(picture)
    # broken bytes make decoders raise anything: OSError, SyntaxError, struct.error,
    # DecompressionBombError
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}".replace("\n", " ")) from error


def rgb(picture: Image.Image) -> Image.Image:
    """The picture in 8-bit RGB, turned upright as its EXIF says; what is transparent becomes
    white.

    >>> clear = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    >>> rgb(clear).getpixel((0, 0)), clear.convert("RGB").getpixel((0, 0))
    ((255, 255, 255), (255, 0, 0))
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _eight_bits(picture)
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of 12 or 16 bits in 8, with its orientation; PIL itself would clip at 255.

    ValueError for whole numbers of 32 bits and for floats: nothing in such a file says which
    value is white.
    """
    wide = picture.mode == "I" and picture.format == "PPM"  # which PIL scales to 0 … 65535
    require(
        wide or picture.mode.startswith("I;16"),
        f"mode {picture.mode}, {'32-bit integers' if picture.mode == 'I' else 'floats'}: which "
        "value is white is not said; save it with 8 or 16 bits a channel",
    )
    picture.load()
    values = np.asarray(picture).astype(np.uint16)
    tags = getattr(picture, "tag_v2", {})  # of a TIFF
    grey = (values >> (4 if tags.get(258) == (12,) else 8)).astype(np.uint8)
    if tags.get(262) == 0:  # white is zero, which PIL knows of 8 bits alone
        grey = 255 - grey
    if isinstance(clear := picture.info.get("transparency"), int):
        grey[values == clear] = 255
    small = Image.fromarray(grey)
    small.info["exif"] = picture.getexif().tobytes()
    return small


def framed(height: int, width: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """How `fitted` cuts a picture: ((height, width) to which it is scaled, (top, left) of the
    size × size pixels that are kept of that).

    >>> framed(20, 30, 8)
    ((8, 12), (0, 2))
    """
    scaled = tuple(int(size * side / min(height, width)) for side in (height, width))
    return scaled, tuple(round((side - size) / 2) for side in scaled)


def fitted(picture: Image.Image, size: int) -> Image.Image:
    """size × size pixels: the shorter side scaled to `size` (Lanczos, antialiased), then the
    centre cut out.

    >>> fitted(Image.new("RGB", (30, 20)), 8).size
    (8, 8)
    """
    from torchvision.transforms.functional import InterpolationMode, crop, resize

    require(size >= 1, f"fitted: size = {size}, wanted at least 1")
    require(
        max(picture.size) <= NARROW * min(picture.size),
        f"{picture.width} × {picture.height} pixels: one side is more than {NARROW} times the "
        "other",
    )
    if picture.size == (size, size):
        return picture
    scaled, corner = framed(picture.height, picture.width, size)
    return crop(resize(picture, scaled, InterpolationMode.LANCZOS), *corner, size, size)


def pixels(pictures: list[Image.Image]) -> Tensor:
    """RGB pictures of one size as float32 (N, 3, h, w) in [−1, 1].

    >>> pixels([Image.new("RGB", (4, 2), "white")]).shape
    torch.Size([1, 3, 2, 4])
    """
    from torchvision.transforms.functional import pil_to_tensor

    return torch.stack([pil_to_tensor(picture) for picture in pictures]) / 127.5 - 1


def picture(values: Tensor) -> Image.Image:
    """(3, h, w) with black −1 and white 1 as an 8-bit RGB picture; what lies outside is
    clipped.

    >>> picture(pixels([Image.new("RGB", (1, 1), (0, 7, 255))])[0]).getpixel((0, 0))
    (0, 7, 255)
    """
    values = ((values.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())
