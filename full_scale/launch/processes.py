"""The processes of a run: started by torchrun, by srun, or alone."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from dlib._util import require
from full_scale.launch import peers

MESSAGE = timedelta(minutes=30)
"""How long a message may take: other processes may write to a slow disk."""

Asked = TypeVar("Asked")
_peers: list[peers.Peers] = []  # of the run that is going on: one, or none where it is alone


class Processes(NamedTuple):
    """The processes of a run, seen from this one. `saving` is a group for checkpoints alone, so
    that they are written while training goes on.
    """

    rank: int
    size: int
    device: torch.device
    saving: dist.ProcessGroup

    @property
    def leads(self) -> bool:
        """Whether this process writes the logs and the pictures."""
        return self.rank == 0


def launched() -> bool:
    """Whether torchrun or srun started this process."""
    return "RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", 1)) > 1


def start(device: str = "auto") -> Processes:
    """Join the processes. gloo on CPUs, NCCL on GPUs; a single process needs no launcher."""
    _from_slurm()
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    require(kind in ("cpu", "cuda"), f"--device {device}: wanted auto, cpu or cuda")
    require(
        kind == "cpu" or torch.cuda.is_available(),
        f"--device cuda: torch {torch.__version__} sees no CUDA GPU: look at nvidia-smi, or "
        "use --device cpu",
    )
    local = int(os.environ.get("LOCAL_RANK", 0))
    if kind == "cuda":
        require(
            local < torch.cuda.device_count(),
            f"process {local} of this node has no GPU: {torch.cuda.device_count()} are "
            "visible; start as many processes as GPUs",
        )
        torch.cuda.set_device(local)
    require(
        os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        "torchrun started the "
        "processes again, and would let them wait for the addresses of the dead ones: export "
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun "
        "--max_restarts, as full_scale/launch/one_node.sh does; the same command goes on from "
        "the last checkpoint",
    )
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    rank, size = place()
    store = peers.meet(rank, size) if "RANK" in os.environ else dist.HashStore()
    if size > 1:  # they end what gloo does not: it tries to connect for five times its limit
        _peers.append(peers.Peers(store, rank, size))
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("group", store),
        rank=rank,
        world_size=size,
        timeout=MESSAGE,
    )
    store.set_timeout(MESSAGE)  # NCCL's first message waits there; what is left of JOIN is short
    saving = dist.new_group(backend="gloo")
    for one in _peers:
        one.connected.set()
    return Processes(
        dist.get_rank(),
        dist.get_world_size(),
        torch.device(kind, local) if kind == "cuda" else torch.device(kind),
        saving,
    )


def place() -> tuple[int, int]:
    """(rank, number of processes), as torchrun's or srun's variables say before anybody has
    joined.
    """
    _from_slurm()
    return (
        (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        if "RANK" in os.environ
        else (0, 1)
    )


def asked(read: Callable[[], Asked]) -> Asked:
    """What `read` makes of the command line; only the first process of a run says what is wrong
    with a flag.
    """
    if int(os.environ.get("RANK", 0)) == 0:
        return read()
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            return read()
    except SystemExit:
        if not peers.quiet():
            sys.stderr.write(said.getvalue())
        raise


def node_size(processes: Processes) -> int:
    """How many processes each node has, as torchrun or `srun --ntasks-per-node` says. ValueError
    if that cannot be so.
    """
    said = os.environ.get("LOCAL_WORLD_SIZE", str(processes.size))
    require(
        processes.size % int(said) == 0,
        f"--parallel hybrid: {processes.size} processes are not nodes of {said} each: start as "
        "many on every node, or use --parallel fsdp",
    )
    return int(said)


def _from_slurm() -> None:
    """Under `srun --ntasks-per-node=GPUS`, SLURM's variables say what torchrun's would;
    MASTER_ADDR comes from the script.
    """
    if (
        "RANK" not in os.environ
        and int(os.environ.get("SLURM_NTASKS", 1)) > 1
        and "SLURM_PROCID" in os.environ
    ):
        os.environ |= {
            "RANK": os.environ["SLURM_PROCID"],
            "WORLD_SIZE": os.environ["SLURM_NTASKS"],
            "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        }
        if "SLURM_NTASKS_PER_NODE" in os.environ:
            os.environ["LOCAL_WORLD_SIZE"] = os.environ["SLURM_NTASKS_PER_NODE"]
        require(
            "MASTER_ADDR" in os.environ,
            "srun without MASTER_ADDR: export MASTER_ADDR=$(scontrol show hostnames "
            "$SLURM_NODELIST | head -1) "
            "and MASTER_PORT, as full_scale/launch/slurm.sh does",
        )


def stop() -> None:
    """Leave the processes' group."""
    if dist.is_initialized():
        dist.destroy_process_group()
    while _peers:
        _peers.pop().leave()


@contextmanager
def joined(device: str = "auto") -> Iterator[Processes]:
    """The processes of a run, for as long as it goes on. What goes wrong is raised where it is
    to be said: in the first process that says these words, and as SystemExit in the others.
    Where another process is gone, ConnectionError says how to go on.
    """
    try:
        yield start(device)
    except Exception as error:
        if not _peers:
            if not isinstance(error, (ValueError, OSError)) or not peers.quiet():
                raise
            raise SystemExit(1) from None
        kind = ""
        if peers.is_loss(error):
            if _peers[0].failed():
                raise SystemExit(1) from None
            kind, why = "gone", str(error).splitlines()[0]
            gone = f"another process is gone ({why}). {peers.GO_ON}"
            error = ConnectionError(gone if _peers[0].connected.is_set() else peers.apart(why))
        if not _peers[0].first_to_say(str(error), kind):
            raise SystemExit(1) from None
        if kind:
            raise error from None
        raise
    finally:
        stop()


def agree(flag: bool, processes: Processes) -> bool:
    """Whether any process raised the flag: a decision that all take alike."""
    if processes.size == 1:
        return flag
    votes = torch.tensor([int(flag)])
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return bool(votes.item())


def told(value: Any, processes: Processes) -> Any:
    """What the leading process passes, in every process; the others' values are not looked at."""
    if processes.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def gathered_objects(value: Any, processes: Processes) -> list[Any]:
    """What each process passes, in their order, in every process."""
    found: list[Any] = [value] * processes.size
    if processes.size > 1:
        dist.all_gather_object(found, value)
    return found


def gathered(rows: torch.Tensor, processes: Processes) -> tuple[torch.Tensor, slice]:
    """(the rows of all processes in the order of the global batch, which of them are this one's).
    All must have as many.
    """
    mine = slice(processes.rank * len(rows), (processes.rank + 1) * len(rows))
    if processes.size == 1:
        return rows, mine
    parts = [torch.empty_like(rows) for _ in range(processes.size)]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts), mine


def average(metrics: dict[str, torch.Tensor], processes: Processes) -> dict[str, float]:
    """The mean over processes of each named number, in one message."""
    if not metrics:
        return {}
    values = torch.stack([value.detach().float().cpu().reshape(()) for value in metrics.values()])
    if processes.size > 1:
        dist.all_reduce(values)
        values /= processes.size
    return dict(zip(metrics, values.tolist()))
