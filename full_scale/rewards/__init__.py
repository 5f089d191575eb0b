"""What a reward looks at: pictures and their captions. One function a kind, registered here.
It knows nothing of latents, families or runs. Touches `sources`, for pictures and whole files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlib._util import require
from full_scale.rewards import encoders, plain

Score = Callable[[Tensor, Sequence[str]], Tensor]
"""(pictures (B, 3, height, width), black −1 and white 1; captions) ↦ scores (B,), float32."""

SCORES: dict[str, Callable[[str, torch.device], Score]] = {
    "clip": encoders.clip,
    "pickscore": encoders.pickscore,
    "hps": encoders.hps,
    "aesthetic": encoders.aesthetic,
    "compressibility": plain.compressibility,
    "incompressibility": plain.incompressibility,
    "shapes": plain.shapes,
    "captions": plain.captions,
    "colours": plain.colours,
    "redness": plain.redness,
}
"""Every reward by name: a function (folder of its weights or "", device) ↦ `Score`."""
READERS = ("clip", "pickscore", "hps", "shapes", "captions", "colours")
"""Those that read captions."""


def check(name: str, weights: str) -> None:
    """Raise ValueError for a reward that does not exist, for weights that are missing, and for
    weights that nobody reads; nothing is loaded.
    """
    require(name in SCORES, f"--reward {name or '(none)'}: wanted one of {', '.join(SCORES)}")
    if name in encoders.EXAMPLES:
        encoders.check_folder(name, weights)
    else:
        require(
            not weights, f"--reward-weights {weights}: {name} has no weights: leave the flag out"
        )


def parameters(name: str, weights: str) -> int:
    """Of the networks that a run keeps for its reward; 0 without one."""
    return encoders.parameters(name, weights) if name in encoders.EXAMPLES else 0


def opened(name: str, weights: str, device: torch.device) -> Score:
    """The reward of this name, which computes in float32, whatever autocast it is asked under:
    bfloat16 would round away what tells the pictures of a prompt apart. ValueError as `check`
    raises, and, with the name of the file, for weights that are damaged. On the meta device
    weights may be missing.
    """
    if device.type == "meta" and name in encoders.EXAMPLES:
        return SCORES[name](weights, device)
    check(name, weights)
    score = SCORES[name](weights, device)
    if device.type == "meta":
        return score

    def precise(pictures: Tensor, captions: Sequence[str]) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            return score(pictures.float(), captions)

    return precise
