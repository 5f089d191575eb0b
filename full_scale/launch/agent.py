"""torchrun as the launch scripts start it: when a run has failed, one line says how to go on,
where torchrun itself prints a traceback of its own.

    python -m full_scale.launch.agent --standalone --nproc_per_node 8 -m full_scale.train …
"""

from __future__ import annotations

import signal
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError

from full_scale.launch.peers import GO_ON, JOIN


def main(arguments: list[str] | None = None) -> None:
    """torchrun's command line. Its exit status is that of the first process that failed, or 128
    and the number of the signal that ended it.
    """
    asked = run.parse_args(arguments)
    try:
        run.run(asked)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:  # it has said why itself
            sys.exit(failure.exitcode)
        name = signal.Signals(-failure.exitcode).name
        print(f"full_scale: process {rank} was ended by {name}. {GO_ON}", file=sys.stderr)
        sys.exit(128 - failure.exitcode)
    except RendezvousError as error:
        sys.exit(
            f"full_scale: {asked.nnodes} machine(s) have not met at "
            f"{asked.rdzv_endpoint or 'this one'} within {JOIN:g} seconds "
            f"({type(error).__name__}): look whether each has started and reaches it, then start "
            "the same command again on all of them"
        )
    except SignalException as end:
        sys.exit(128 + end.sigval)


if __name__ == "__main__":
    main()
