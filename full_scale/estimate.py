"""What a run will need, before any weights are fetched: parameters, memory of a process and of
its host, FLOP and time.

    python -m full_scale.estimate finetune --weights weights/stable-diffusion-v1-5 --processes 8
    python -m full_scale.estimate finetune --weights weights/stable-diffusion-v1-5 --card 24

It takes the flags of `full_scale.train`. The recipe's own losses run forward and backward on
the meta device, where nothing is computed, so this works without a GPU. `python -m
full_scale.train … --dry-run` prints the same for one process. --card says which flags to add so
that the run fits on cards of so many GB, and goes on with them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dlib._util import require
from full_scale.cost.card import fitting
from full_scale.cost.quote import report
from full_scale.run.numbers import check_numbers
from full_scale.run.settings import read


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: one line on stderr, and exit status 1, for what the reader can put
    right.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        processes, card = taken(arguments, "--processes"), taken(arguments, "--card")
        processes = "1" if processes is None else processes
        require(
            processes.isdigit() and int(processes) > 0,
            f"--processes {processes}: wanted a whole number of processes, one a GPU",
        )
        s, count = read(arguments, "python -m full_scale.estimate"), int(processes)
        check_numbers(s)
        if card is not None:
            flags, s = fitting(s, count, number(card))
            print(f"# to fit on a card of {card} GB add: {flags or 'nothing'}\n")
        print(report(s, count))
    except (ValueError, OSError) as error:
        sys.exit(f"full_scale.estimate: {error}")


def taken(arguments: list[str], flag: str) -> str | None:
    """The word after a flag, both of which are taken out of the arguments; None without it."""
    if flag not in arguments:
        return None
    place = arguments.index(flag)
    word = [*arguments, ""][place + 1]
    del arguments[place : place + 2]
    return word


def number(card: str) -> float:
    """Of GB, as it is typed."""
    try:
        room = float(card)
    except ValueError:
        room = 0.0
    require(0 < room < float("inf"), f"--card {card}: wanted the GB of one card, such as 24")
    return room


if __name__ == "__main__":
    main()
