"""What can be wrong with a training run's settings before weights or data are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

from dlib import Recipe
from dlib._util import require
from full_scale.run.numbers import check_numbers
from full_scale.run.settings import Settings, recipe_of, role_of
from full_scale.run.validation import held_out, meaningless
from full_scale.sources.captions import check_utf8


def check(s: Settings, count: int = 1) -> None:
    """Raise ValueError for what can be wrong before weights or data are read; count: the number
    of processes.
    """
    require(
        s.data is not None,
        "--data is missing: the folder that `python -m full_scale.prepare` wrote",
    )
    require(
        bool(s.weights) != s.tiny,
        f"{'both --weights and --tiny' if s.tiny else 'neither --weights nor --tiny'} given: "
        "pass exactly one of them",
    )
    taken = [path for path in (s.out, *s.out.parents) if path.exists() and not path.is_dir()]
    require(
        not taken,
        f"--out {s.out}: {taken[0] if taken else ''} is a file, wanted a folder: pass another "
        "--out, or move the file away",
    )
    check_numbers(s)
    check_utf8("--prompts", s.prompts)
    recipe = recipe_of(s, None, None)
    require(
        "student" in recipe.play("copy"),
        f"--method {s.method}: its recipe trains {', '.join(recipe.trained)}, and what is shown "
        'and exported is the part "student": Part("copy"): call its network so',
    )
    require(
        recipe.sampler is not None,
        f"--method {s.method}: its recipe does not say how its student is sampled, which grids "
        "and export need: Recipe(…, sampler=Sampler(…))",
    )
    _check_cut(s, recipe, count)
    _check_networks(s, recipe)


def _check_cut(s: Settings, recipe: Recipe, count: int) -> None:
    """That a batch can be cut into micro-batches, processes and groups."""
    require(
        s.batch % (count * s.micro) == 0,
        f"--batch {s.batch} is not a multiple of {count} process(es) × --micro {s.micro}: try "
        "--batch "
        f"{max(1, round(s.batch / (count * s.micro))) * count * s.micro}, or another --micro",
    )
    require(
        s.batch % recipe.group == 0,
        f"--batch {s.batch} is not a multiple of the {recipe.group} samples that {s.method} "
        f"draws for each prompt: try --batch {max(1, s.batch // recipe.group) * recipe.group}",
    )


def _check_networks(s: Settings, recipe: Recipe) -> None:
    """That the method's networks can be spread, adapted, held out and compiled as asked."""
    twins = [role for role in recipe.play("copy") if role_of(s, role).rank]
    require(
        not (s.parallel != "ddp" and twins),
        f"--parallel {s.parallel} with adapters ({', '.join(twins)}): a twin shares its base's "
        "tensors, which sharding would cut apart, and adapters are small: use --parallel ddp, or "
        "rank 0",
    )
    heads = recipe.play("heads")
    require(
        not (s.parallel != "ddp" and heads),
        f"--parallel {s.parallel} with heads ({', '.join(heads)}): they read a network's inner "
        "stages, whose weights fsdp has put away again when the heads' gradient comes back: use "
        "--parallel ddp",
    )
    full = s.dtype == "float32" or (s.dtype == "auto" and s.device == "cpu")
    require(
        full or not recipe.slopes or not (s.parallel != "ddp" or twins),
        f"--method {s.method} takes the derivative of {', '.join(recipe.slopes)} in forward mode "
        f"and full precision, which {'adapters' if twins else f'--parallel {s.parallel}'} on "
        "bfloat16 weights cannot give: add --dtype float32",
    )
    no_loss = meaningless(recipe)
    require(not (s.held_out and no_loss), f"--held-out with {s.method}: {no_loss}")
    for why in _not_compiled(s, recipe):
        require(not s.compile, f"--compile with {s.method}: {why}: leave --compile out")
    require(
        not (role_of(s, "student").rank and recipe.told),
        f"--lora-rank with {s.method}: adapters have no input for ω; use --method lcm",
    )
    require(
        s.start_lora is None or role_of(s, "student").rank > 0,
        f"--start-lora {s.start_lora} with --lora-rank 0: it starts adapters, and here all "
        "weights are trained: pass its rank as --lora-rank, or add it to the weights with "
        "diffusers' fuse_lora and save_pretrained, and pass that folder as --weights",
    )


def _not_compiled(s: Settings, recipe: Recipe) -> Iterator[str]:
    """Why the networks of a run cannot go through torch.compile."""
    if recipe.slopes:
        which = ", ".join(recipe.slopes)
        yield f"the derivative of {which} is taken in forward mode, which torch.compile lacks"
    if heads := recipe.play("heads"):
        yield (
            f"the heads {', '.join(heads)} read a network's inner stages through hooks, which a "
            "compiled network does not call"
        )
    if s.parallel != "ddp":
        yield (
            f"--parallel {s.parallel} puts hooks around its blocks; it has not been tried with "
            "both"
        )


def check_rows(s: Settings, rows: Sized, count: int = 1) -> None:
    """Raise ValueError, with a number that works, unless the data have rows enough for a global
    batch on `count` processes.
    """
    require(
        s.held_out < len(rows),
        f"--held-out {s.held_out}: {s.data} has {len(rows)} rows: hold out fewer, so that some "
        "are left to train on",
    )
    far = [row for row in s.skip_rows if not 0 <= row < len(rows)]
    require(not far, f"--skip-rows {far}: {s.data} has the rows 0 … {len(rows) - 1}")
    require(
        not s.held_out or len(held_out(s, len(rows))) > 0,
        f"--held-out {s.held_out}: --skip-rows leaves none of them: hold out more",
    )
    trained = set(range(len(rows) - s.held_out)) - set(s.skip_rows)
    group, left = recipe_of(s, None, None).group, len(trained)
    skipped = f"--skip-rows {' '.join(map(str, s.skip_rows))}"
    require(left > 0, f"{skipped}: no row of {s.data} is left to train on: skip fewer")
    if s.batch // group <= left:
        return
    unit = math.lcm(count * s.micro, group)
    fits = left * group // unit * unit  # the largest batch that can be cut
    small = math.lcm(count, group)
    require(
        False,
        f"data {s.data} have {left} rows{' to train on' if s.held_out else ''}, fewer than one "
        f"global batch of {s.batch} on {count} process(es): "
        + (
            f"pass --batch {fits}, or prepare more rows"
            if fits
            else f"pass --micro 1 --batch {left * group // small * small}, or prepare more rows"
            if left * group >= small
            else f"prepare at least {-(-small // group)} rows, or start at most {left} processes"
        ),
    )
