"""How fast a run is, and what makes it so."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from dlib import Batch
from dlib._util import tensors
from dlib.training.performing import Micro
from full_scale.run.settings import Role

SPEED = "speed/"
"""What the names of measured times and memory begin with: no two runs have the same."""


class Clock:
    """Seconds of steps, from the last time it was read to this one."""

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0

    def __enter__(self) -> Clock:
        self.begun = time.perf_counter()
        return self

    def __exit__(self, *what: object) -> None:
        self.seconds += time.perf_counter() - self.begun
        self.steps += 1

    def read(self, rows: int, peak: float) -> dict[str, float]:
        """Seconds a step and rows a second, at `rows` of them a step, with the peak of memory;
        the clock begins anew.
        """
        seconds = self.seconds / max(self.steps, 1)
        self.seconds, self.steps = 0.0, 0
        values = {"s_per_step": seconds, "rows_per_s": rows / seconds if seconds else 0.0}
        return {f"{SPEED}{name}": v for name, v in (values | {"peak_GB": peak}).items()}


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has held so far, in 10⁹ bytes: of a GPU what tensors
    took, else the resident set.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def placed(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device, with all that it holds; on its way to a GPU from pinned memory."""

    def there(value: Tensor | None) -> Tensor | None:
        if value is None or device.type != "cuda":
            return value if value is None else value.to(device)
        return value.pin_memory().to(device, non_blocking=True)

    cond = {name: there(value) for name, value in batch.cond.items()}
    return Batch(there(batch.x0), cond, there(batch.noise), there(batch.other))


class Ahead:
    """Makes the next step's micro-batches in a thread while this step computes: rows are read,
    draws are made, and on a GPU copied on a stream of their own.

    make: step ↦ its micro-batches, which depend on nothing but the step. end: the step that no
    longer comes. Leaving the block waits for what is being made.
    """

    def __init__(self, make: Callable[[int], Micro], end: int, device: torch.device):
        self.make, self.end, self.device = make, end, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="next step's rows")
        self.begun: dict[int, Future] = {}

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *what: object) -> None:
        self.worker.shutdown(wait=True, cancel_futures=True)
        self.begun = {}

    def take(self, step: int) -> Micro:
        """A step's micro-batches; the next step's are begun. What went wrong while they were
        made is raised here, at the step that they belong to.
        """
        future = self.begun.pop(step, None) or self.worker.submit(self._made, step)
        micro, ready = future.result()
        if step + 1 < self.end:
            self.begun = {step + 1: self.worker.submit(self._made, step + 1)}
        if ready is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_event(ready)
            for batch, _ in micro:
                for value in tensors_of(batch):
                    value.record_stream(now)  # its memory is not given away before it was read
        return micro

    def _made(self, step: int) -> tuple[Micro, torch.cuda.Event | None]:
        if self.stream is None:
            return self.make(step), None
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            return self.make(step), self.stream.record_event()


def tensors_of(batch: Batch) -> list[Tensor]:
    """All that a batch holds."""
    values = [batch.x0, batch.noise, batch.other, *tensors(batch.cond).values()]
    return [value for value in values if value is not None]


FUSED = ("cuda",)
"""Kinds of devices on which a step of AdamW is one kernel for many tensors."""


def optimiser(
    leaves: Sequence[nn.Parameter], own: Role, kind: str = "adamw"
) -> torch.optim.Optimizer:
    """AdamW of a role, with moments of 32 or ("adamw8bit") of 8 bits; its learning rate is set
    at every step. ValueError says what to install.
    """
    device = leaves[0].device.type
    more = {"betas": own.betas, "weight_decay": own.weight_decay}
    if kind == "adamw8bit" and device != "meta":  # the estimate needs no package
        return _eight_bit()(leaves, lr=0.0, **more)
    fused = True if device in FUSED else None  # None is torch's own choice
    return torch.optim.AdamW(leaves, lr=0.0, fused=fused, **more)


@cache
def _eight_bit() -> type[torch.optim.Optimizer]:
    try:
        from torchao.optim import AdamW8bit
        from torchao.optim.subclass_8bit import OptimState8bit
    except ImportError:
        raise ValueError(
            "--optimizer adamw8bit: the package torchao is not installed: pip install "
            "'torchao>=0.18,<0.19', or leave --optimizer out"
        ) from None

    @OptimState8bit.implements(torch.ops.aten.new_empty.default)
    def empty(func: Any, types: Any, args: Any, kwargs: Any) -> OptimState8bit:
        """What torch's stager of checkpoints fills with copies of codes and scales."""
        (old, shape, *_), device = args, (kwargs or {}).get("device")
        new = OptimState8bit.zeros(shape, old.signed, old.block_size, device, old.dtype)
        return new

    class EightBit(AdamW8bit):
        """On a CPU without torchao's compiler, which takes seconds for each shape of a weight."""

        def step(self, closure: Callable | None = None) -> Any:
            cpu = self.param_groups[0]["params"][0].device.type == "cpu"
            with torch.compiler.set_stance("force_eager" if cpu else "default"):
                return super().step(closure)

    return EightBit


BLOCK, SMALLEST = 256, 4096
"""torchao's: a block of moments shares a scale, and smaller tensors keep 32 bits."""


def moments_bytes(leaves: Sequence[nn.Parameter], kind: str) -> int:
    """Of an optimiser's two moments of these weights."""
    eight = lambda n: kind == "adamw8bit" and n >= SMALLEST and n % BLOCK == 0
    sizes = [leaf.numel() for leaf in leaves]
    return sum(2 * (n + 4 * n // BLOCK) if eight(n) else 8 * n for n in sizes)


def set_rate(optim: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step; torchao's is a tensor."""
    for group in optim.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def can_skip(optim: torch.optim.Optimizer) -> bool:
    """Whether a step does nothing where `optim.found_inf`, a number on the device, is 1."""
    return bool(optim.param_groups[0].get("fused"))


OWN = ("fused", "foreach", "betas", "weight_decay")
"""What an optimiser has of its device and of its settings, and not of a checkpoint."""


def as_asked(optim: torch.optim.Optimizer) -> None:
    """A checkpoint, maybe of another device, has brought its own: take those of now again."""
    for group in optim.param_groups:
        group |= {name: optim.defaults[name] for name in OWN if name in group}


CHANNELS_LAST = ("cuda",)
"""Kinds of devices on which convolutions want the channels of a pixel side by side."""


def channels_last(net: nn.Module) -> None:
    """Store the weights of two-dimensional convolutions so, in place: only their strides change.
    What is computed has that order too, and what is saved has the same numbers.
    """
    first = next(net.parameters(), None)
    if first is not None and first.device.type in CHANNELS_LAST:
        net.to(memory_format=torch.channels_last)


BACKEND = "inductor"
"""torch.compile's."""


def choose_kernels(exact: bool, slopes: bool) -> None:
    """What CUDA may do for speed, in one place. TF32 rounds the factors of float32's products to
    10 bits; a derivative in forward mode (`slopes`) has no use for that. cuDNN measures which
    of its kernels is fastest, so that two runs may use two, unless results are to be exact.
    """
    tf32 = not (exact or slopes)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = not exact, exact
