"""What each process copies to its host and writes of a checkpoint: together they hold it once."""

from pathlib import Path

import forked
import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.staging import DefaultStager
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from full_scale import launch
from full_scale.launch import Processes
from full_scale.run import checkpoint, room

ROWS = 6
WAYS = {  # how two processes hold a matrix: mesh, and what each of its axes does
    "ddp": None,
    "fsdp": ((2,), (Shard(0),)),
    "hybrid, a node each": ((2, 1), (Replicate(), Shard(0))),
    "hybrid, one node": ((1, 2), (Replicate(), Shard(0))),
}


def matrix() -> torch.Tensor:
    return torch.arange(ROWS * 1000.0).view(ROWS, 1000)


def held(way: str, value: torch.Tensor) -> torch.Tensor:
    if WAYS[way] is None:
        return value.clone()
    mesh, placements = WAYS[way]
    return distribute_tensor(value, init_device_mesh("cpu", mesh), placements)


def local(value: torch.Tensor) -> torch.Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


def state_of(way: str, value: torch.Tensor) -> dict:
    """As `Company.state` makes it: weights, an optimiser with words in it, a counter."""
    optim = {"state": {"w": {"exp_avg": held(way, value + 1)}}, "param_groups": [{"lr": 0.5}]}
    return {"weights": {"w": held(way, value)}, "optim": optim, "count": torch.tensor(3)}


def save_and_load(root: Path) -> None:
    """Every way written by two processes, and read by both in every way."""
    processes, staged = launch.start("cpu"), []
    stage = DefaultStager.stage

    def counted(self, state, **more):
        staged.append(sum(local(v).nbytes for v in leaves(state)))
        return stage(self, state, **more)

    DefaultStager.stage = counted  # of this child alone
    for way in WAYS:
        checkpoints = checkpoint.Checkpoints(root / way, 1, processes)
        checkpoints.save(1, state_of(way, matrix()), {}, wait=True)
        dist.barrier()  # the first process gives it its name
        for other in WAYS:
            empty = state_of(other, -torch.ones(ROWS, 1000))
            checkpoints.load(root / way / "step-00000001", empty)
            for name, wanted in (("weights", matrix()), ("optim", matrix() + 1)):
                (found,) = [v for v in leaves(empty[name])]
                whole = found.full_tensor() if isinstance(found, DTensor) else found
                assert torch.equal(whole, wanted), (way, other)
    torch.save(staged, root / f"{processes.rank}.pt")
    launch.stop()


def leaves(state) -> list[torch.Tensor]:
    if isinstance(state, dict):
        return [leaf for value in state.values() for leaf in leaves(value)]
    return [state] if isinstance(state, torch.Tensor) else []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(the folder of every way, the bytes that each of the two processes staged, by way)."""
    root = tmp_path_factory.mktemp("ways")
    forked.start(2, root / "said", save_and_load, root).finished()
    both = [torch.load(root / f"{rank}.pt") for rank in (0, 1)]
    return root, dict(zip(WAYS, zip(*both), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_all_processes_together_stage_and_write_a_checkpoint_once(way, written):
    root, staged = written
    whole = 2 * matrix().nbytes
    counter = 8
    halves = way in ("fsdp", "hybrid, one node")
    wanted = (whole / 2 + counter, whole / 2) if halves else (whole + counter, 0)
    assert staged[way] == wanted
    files = sorted(path.name for path in (root / way / "step-00000001").glob("*.distcp"))
    assert files == ["__0_0.distcp", "__1_0.distcp"][: 1 + halves]


def test_one_process_reads_what_two_have_written(written, processes):
    for way in WAYS:
        checkpoints = checkpoint.Checkpoints(written[0] / way, 1, processes)
        path, empty = checkpoints.newest(), state_of("ddp", torch.zeros(ROWS, 1000))
        checkpoints.load(path, empty)
        assert torch.equal(empty["weights"]["w"], matrix()) and empty["count"] == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_copies_into_pinned_memory(tmp_path, processes):
    """Not run where there is no GPU: a copy is of its own moment, and page-locked."""
    seen, stage = [], DefaultStager.stage
    on_gpu = Processes(0, 1, torch.device("cuda", 0), processes.saving)
    weights = torch.ones(1 << 20, device="cuda")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            DefaultStager, "stage", lambda self, s: seen.append(stage(self, s)) or seen[-1]
        )
        checkpoints = checkpoint.Checkpoints(tmp_path, 1, on_gpu)
        checkpoints.save(1, {"w": weights}, {})
        weights.zero_()
        checkpoints.finish()
    assert seen[0]["w"].is_pinned()
    checkpoints.load(tmp_path / "step-00000001", state := {"w": torch.zeros(1 << 20)})
    assert room.needed(state) == 4 << 20 and state["w"].min() == 1
