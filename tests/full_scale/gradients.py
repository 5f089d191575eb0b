"""Run by a test on several processes: save the gradient of a run's first step, as every
process has it after summing.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from full_scale.launch import processes
from full_scale.run.settings import read
from full_scale.train import open_engine

out, *flags = sys.argv[1:]
world = processes.start("cpu")
engine = open_engine(replace(read(flags), out=Path(out)), world)
net = engine.cast.trained["student"]
net.optim.step = lambda: None  # keep the gradient that the step would have used
engine.advance()
gradient = torch.cat(
    [
        (p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad).flatten()
        for p in net.weights.values()
    ]
)
torch.save(gradient, f"{out}-{world.rank}.pt")
processes.stop()
