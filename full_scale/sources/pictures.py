"""Pictures from files to one size and one mode; what cannot be read says why."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dlib._util import require

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


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
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):  # PIL would clip 16 bits at 255
        picture = Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def fitted(picture: Image.Image, size: int) -> Image.Image:
    """size × size pixels: the shorter side scaled to `size` (Lanczos, antialiased), then the
    centre cut out.

    >>> fitted(Image.new("RGB", (30, 20)), 8).size
    (8, 8)
    """
    from torchvision.transforms.functional import InterpolationMode, center_crop, resize

    require(size >= 1, f"fitted: size = {size}, wanted at least 1")
    if picture.size == (size, size):
        return picture
    return center_crop(resize(picture, size, InterpolationMode.LANCZOS), size)


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
