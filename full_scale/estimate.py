"""What a run will need, before any weights are fetched: parameters, memory of a process, FLOP
and time.

    python -m full_scale.estimate finetune --weights weights/stable-diffusion-v1-5 --processes 8

It takes the flags of `full_scale.train`. The recipe's own losses run forward and backward on
the meta device, where nothing is computed, so this works without a GPU. `python -m
full_scale.train … --dry-run` prints the same for one process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dlib._util import require
from full_scale.cost.quote import report
from full_scale.run.settings import read


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: one line on stderr, and exit status 1, for what the reader can put
    right.
    """
    arguments, processes = list(sys.argv[1:] if arguments is None else arguments), "1"
    try:
        if "--processes" in arguments:
            place = arguments.index("--processes")
            processes = ([*arguments, ""])[place + 1]
            del arguments[place : place + 2]
        require(
            processes.isdigit() and int(processes) > 0,
            f"--processes {processes}: wanted a whole number of processes, one a GPU",
        )
        print(report(read(arguments, "python -m full_scale.estimate"), int(processes)))
    except (ValueError, OSError) as error:
        sys.exit(f"full_scale.estimate: {error}")


if __name__ == "__main__":
    main()
