"""How good pictures are: a Fréchet distance and a CLIP score with weights you name, toy scores
without any; one JSON, one picture.

    python -m full_scale.evaluate --pictures runs/sample-001
    python -m full_scale.evaluate --pictures runs/sample-002 --against runs/sample-001 \\
        --reward compressibility
    python -m full_scale.evaluate --pictures runs/sample-001 --real data/coco-val \\
        --encoder weights/dinov2-base --clip weights/clip-vit-large-patch14

`--pictures` and `--real` are what `full_scale.sample` wrote, or folders of pictures with
captions (x.txt beside x.png, or metadata.jsonl). `--against` tells in how many pairs of the
same prompt and seed the first folder's picture scores higher. Results go to
runs/evaluate-001/evaluation.json, with grid.png. Nothing is downloaded: weights are local
folders in transformers' format, safetensors only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from dlib._util import require
from full_scale import launch, rewards
from full_scale.out import duels, judges
from full_scale.out import folder as output
from full_scale.sources.captioned import Captioned, read_captioned


@dataclass(frozen=True)
class Config:
    """Score pictures."""

    pictures: Path
    """What full_scale.sample wrote, or a folder of pictures with captions."""
    real: Path | None = None
    """Real pictures to compare with, likewise."""
    against: Path | None = None
    """Other pictures of the same prompts and seeds: in how many pairs do --pictures win?"""
    encoder: str | None = None
    """A local folder with an image encoder, e.g. DINOv2's: its features carry the Fréchet
    distance. Needs --real.
    """
    clip: str | None = None
    """A local folder with a CLIP model: its score says how well pictures fit their captions."""
    reward: str | None = None
    """A reward by the name that training knows it by, e.g. captions or aesthetic."""
    reward_weights: str = ""
    """The local folder of its weights, if it has any."""
    batch: int = 32
    """Pictures a network call."""
    device: str = "auto"
    """auto is cuda where there is one, else cpu."""
    out: Path | None = None
    """A new folder; the next free runs/evaluate-NNN unless given."""


def check(config: Config) -> None:
    """Raise ValueError for what can be wrong before anything is read."""
    require(config.batch >= 1, f"--batch {config.batch}: wanted at least 1")
    require(
        config.encoder is None or config.real is not None,
        "--encoder measures a distance to real pictures: add --real FOLDER",
    )
    for flag, name in (("encoder", config.encoder), ("clip", config.clip)):
        if name is not None:
            judges.check_folder(flag, name)
    require(
        config.reward is not None or not config.reward_weights,
        "--reward-weights belong to a reward: add --reward NAME",
    )
    if config.reward is not None:
        rewards.check(config.reward, config.reward_weights)
    if config.out:
        output.check_free(config.out)


@torch.no_grad()
def run(config: Config) -> Path:
    """Score what `config` names, write the scores, and return the folder."""
    check(config)
    device = judges.device(config.device)
    made, skipped = read_captioned(config.pictures, "--pictures")
    real, skipped_real = read_captioned(config.real, "--real") if config.real else ([], [])
    scores: dict[str, Any] = {
        "pictures": len(made),
        "real": len(real) or None,
        **judges.toy(made, real),
    }
    if config.encoder:
        scores["frechet"] = judges.frechet(config.encoder, made, real, config.batch, device)
    scores |= of_each(config, made, device)
    rivals, skipped_rivals = (
        read_captioned(config.against, "--against") if config.against else ([], [])
    )
    if config.against:
        scores["against"] = versus(config, made, rivals, scores, device)
    bad = skipped + skipped_real + skipped_rivals
    sheet = output.contact_sheet(_side_by_side(made, rivals or real), columns=8)

    def fill(folder: Path) -> None:
        sheet.save(folder / "grid.png")
        said = {
            "config": asdict(config),
            "scores": scores,
            "bad_rows": bad,
            "versions": output.versions(),
        }
        text = json.dumps(said, indent=2, ensure_ascii=False, default=str) + "\n"
        file = folder / "evaluation.json"
        file.write_text(text, encoding="utf-8", errors="backslashreplace")

    out = output.whole(config.out or output.next_free(Path("runs/evaluate")), fill)
    print(*_lines(scores, bad), sep="\n")
    return out


def of_each(config: Config, shown: Sequence[Captioned], device: torch.device) -> dict[str, Any]:
    """The scores of each picture by itself that the command names: a CLIP's, a reward."""
    found: dict[str, Any] = {}
    if config.clip:
        found["clip_score"] = judges.clip_score(config.clip, shown, config.batch, device)
    if config.reward:
        how = config.reward, config.reward_weights, shown, config.batch, device
        found[f"reward {config.reward}"] = judges.rewarded(*how)
    return found


def versus(
    config: Config,
    made: Sequence[Captioned],
    rivals: Sequence[Captioned],
    scores: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    """How often the pictures score higher than their rivals of the same prompt and seed."""
    pairs, lone = duels.paired(made, rivals)
    theirs = judges.toy(rivals, [])
    theirs |= of_each(config, rivals, device)
    wins = duels.duel(scores, theirs, pairs, [made[k].caption for k, _ in pairs])
    return {"pairs": len(pairs), "without a partner": len(lone), **wins, "lone": lone}


def _side_by_side(
    made: Sequence[Captioned], real: Sequence[Captioned], most: int = 64, side: int = 96
) -> list:
    """Up to `most` small pictures for the sheet: generated ones, then, in rows of their own,
    as many of the others.
    """
    small = lambda shown, n: [item.picture.resize((side, side)) for item in shown[:n]]
    return small(made, most) if not real else small(made, most // 2) + small(real, most // 2)


def _lines(scores: dict[str, Any], bad: Sequence[str]) -> list[str]:
    """The scores for people."""
    lines = [f"{name}: {_words(value)}" for name, value in scores.items() if value is not None]
    return [
        *lines,
        *(
            [
                f"BAD ROWS: {len(bad)} were left out, the first: {bad[0]}; all are in "
                "evaluation.json"
            ]
            if bad
            else []
        ),
    ]


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{name} {_words(each)}"
            for name, each in value.items()
            if name != "each" and not isinstance(each, list)
        )
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """The command line: one line on stderr, and exit status 1, for what the reader can put
    right.
    """
    config = tyro.cli(Config, prog="python -m full_scale.evaluate", description=__doc__)
    try:
        with launch.within_memory("pass a smaller --batch"):
            print(run(config))
    except (ValueError, OSError) as error:
        sys.exit(f"full_scale.evaluate: {error}")


if __name__ == "__main__":
    main()
