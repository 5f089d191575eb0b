"""The training loop of every recipe: phases, micro-batches, processes, checkpoints. The losses
are `dlib`'s.

For each step and phase: the loss of every micro-batch, one backward pass each, gradients
summed over processes at the last, clipped, one step of the optimiser; then the averages. A
step depends on (seed, step) and the weights alone, so a run that was killed goes on from its
last checkpoint with the numbers it would have had.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dlib import Batch, Phase, Recipe
from dlib.lora import adapters
from dlib.losses import drop
from dlib.training import Trainer
from dlib.training.performing import Micro
from full_scale.data.captions import NAME, packed
from full_scale.data.draws import Draws, row_draws, step_draws
from full_scale.data.rows import Rows, indices, without
from full_scale.families import Family
from full_scale import launch
from full_scale.launch import Processes
from full_scale.run import checkpoint, facts, room
from full_scale.run.cast import Company, build
from full_scale.run.culprit import Scene, refuse
from full_scale.run.guard import Alarms, Stop, gradient_norm, moved
from full_scale.run.log import open_loggers
from full_scale.run.settings import Settings, as_table, learning_rate, recipe_of, role_of
from full_scale.run.speed import (
    Ahead,
    Clock,
    as_asked,
    can_skip,
    choose_kernels,
    peak_memory,
    placed,
    set_rate,
)
from full_scale.run.validation import held_out, validate


class Distributed(Trainer):
    """The recipe's steps with autocast, many processes, clipped gradients and learning rates."""

    def __init__(
        self,
        recipe: Recipe,
        cast: Company,
        s: Settings,
        processes: Processes,
        dtype: torch.dtype,
        rows: Rows,
    ):
        super().__init__(recipe, cast, cast.trained)
        self.s, self.processes, self.dtype, self.rows = s, processes, dtype, rows

    def computing(self) -> AbstractContextManager:
        on = self.dtype == torch.bfloat16
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=on)

    def gathered(self, rows: Tensor) -> tuple[Tensor, slice]:
        return launch.gathered(rows, self.processes)

    def check(self, value: Tensor, phase: Phase, step: int) -> None:
        """A loss that is not finite has a gradient that is not: seen in `update`, without
        waiting for the GPU here.
        """

    def backward(self, value: Tensor, phase: Phase) -> None:
        """Under FSDP2 autograd does not see the shards: gradients of other roles come, and go."""
        if self.s.parallel == "ddp":
            return super().backward(value, phase)
        value.backward()
        for role in set(self.trained) - set(phase.roles):
            self.trained[role].optim.zero_grad(set_to_none=True)

    def _run(self, phase: Phase, micro: Micro, step: int) -> dict[str, Tensor]:
        """Remember what the phase begins from: its samples may have to be taken one by one."""
        self.phase = phase
        self.begun = [(replace(batch, memo={**batch.memo}), draw.copy()) for batch, draw in micro]
        return super()._run(phase, micro, step)

    def places(self, step: int) -> list[list[tuple[int, int]]]:
        """Of each of this process's micro-batches the (place in the global batch, row)."""
        s, group, n = self.s, self.recipe.group, len(self.rows) - self.s.held_out
        prompts = without(indices(s.seed, step, s.batch // group, n), set(s.skip_rows), n)
        chosen = [row for row in prompts for _ in range(group)]
        share = s.batch // self.processes.size
        mine = range(self.processes.rank * share, (self.processes.rank + 1) * share)
        return [
            [(place, chosen[place]) for place in mine[k : k + s.micro]]
            for k in range(0, share, s.micro)
        ]

    def advance(self, micro: Micro, step: int) -> dict[str, Tensor]:
        """One step on these micro-batches; the metrics by `role/name`."""
        due = [phase.roles for phase in self.recipe.phases if step % phase.every == 0]
        self.unread, self.left = [], self.recipe.epochs * sum(map(len, due))
        return super().advance(micro, step)

    def update(self, role: str, step: int, micro: Micro) -> dict[str, Tensor]:
        """Clip and step; the gradient's norm. The host reads the norms once, at the last update
        of a step. Until then an optimiser that can be told by a number on its device changes
        nothing if that norm, or one before it, is not finite; others are asked one by one.
        """
        net = self.trained[role]
        norm = gradient_norm(net.leaves, role_of(self.s, role).clip)
        self.unread.append((norm, role, self.phase, self.begun))
        self.left -= 1
        if masks := bool(self.left) and can_skip(net.optim):
            norms = torch.stack([norm for norm, *_ in self.unread])
            net.optim.found_inf = (~norms.isfinite()).any().float()
        else:
            self._read(step)
        set_rate(net.optim, learning_rate(self.s, role, step))
        net.optim.step()
        if masks:
            del net.optim.found_inf
        return {"gradient_norm": norm.detach().float()}

    def _read(self, step: int) -> None:
        """Wait for the device, and refuse the first norm that is not finite."""
        found, self.unread = self.unread, []
        norms = torch.stack([norm for norm, *_ in found]).tolist()
        for norm, (_, role, phase, begun) in zip(norms, found):
            if not math.isfinite(norm):
                scene = Scene(role, phase, step, begun, self.places(step))
                refuse(self, scene, self.s, self.rows.captions, self.processes)


class Engine:
    """One run: what it trains, what it reads, where it stands. `step` is the next step."""

    def __init__(
        self,
        s: Settings,
        processes: Processes,
        family: Family,
        rows: Rows,
        dtype: torch.dtype,
        given: Mapping[str, Any] | None = None,
    ):
        self.s, self.family, self.processes = s, family, processes
        self.rows, self.dtype = rows, dtype
        null = {name: value.to(processes.device) for name, value in family.null().items()}
        self.null = null | rows.kept
        self.words = bool(recipe_of(s, None, None).play("given"))  # a reward reads captions
        null = {**self.null, NAME: packed([""])[0].to(processes.device)}
        null = null if self.words else self.null
        self.recipe = recipe_of(s, family.denoiser().schedule, null)
        choose_kernels(s.exact, bool(self.recipe.slopes))
        self.cast = build(family, self.recipe, s, processes, dtype, given)
        self.trainer = Distributed(self.recipe, self.cast, s, processes, dtype, rows)
        self.checkpoints = checkpoint.Checkpoints(s.out, s.keep, processes)
        self.alarms, self.clock, self.ahead = Alarms(math.prod(rows.info["shape"])), Clock(), None
        self.step = self.resume()

    def resume(self) -> int:
        """Take over the newest whole checkpoint of the run's folder, if there is one; the step
        to go on with.
        """
        found = self.checkpoints.newest()
        if found is None:
            return 0
        about = checkpoint.described(found)
        changes = facts.compare(about, facts.of(self.s, self.rows), self.s)
        if changes and self.processes.leads:
            print(f"--change, {changes}")
        state = self.cast.state()
        self.checkpoints.load(found, state)
        self.cast.restore(state)
        for net in self.cast.trained.values():
            as_asked(net.optim)
        return about["step"]

    def save(self, wait: bool = False) -> None:
        """A checkpoint of where the run stands."""
        about = {"settings": facts.of(self.s, self.rows)}
        self.checkpoints.save(self.step, self.cast.state(), about, wait)

    def micro_batches(self, step: int) -> list[tuple[Batch, Draws]]:
        """This process's share of a step's rows, cut into micro-batches, each row with the
        draws of its place in the global batch; a row comes `group` times, with other draws.
        """
        return [
            self._made(
                [row for _, row in micro],
                step_draws(self.s.seed, step, [place for place, _ in micro]),
                self.s.drop,
            )
            for micro in self.trainer.places(step)
        ]

    def _made(self, rows: Sequence[int], draw: Draws, p: float) -> tuple[Batch, Draws]:
        """A batch of these rows, each of whose captions is dropped with probability p."""
        batch = placed(self.rows[rows], self.processes.device)
        cond = drop(batch.cond, self.null, p, draw)
        if self.words:
            cond = {**cond, NAME: packed(self.rows.captions(rows)).to(self.processes.device)}
        return replace(batch, cond=cond), draw

    def advance(self) -> dict[str, Tensor]:
        """One step of every phase that is due; the metrics of this process by `role/name`."""
        source = self.ahead.take if self.ahead else self.micro_batches
        metrics = self.trainer.advance(source(self.step), self.step)
        self.step += 1
        return metrics

    def validated(self) -> dict[str, float]:
        """The loss on rows that are held out, if it is due after the step that was the last."""
        s, rows = self.s, held_out(self.s, len(self.rows))
        if not rows or self.step % s.validate_every:
            return {}
        make = lambda some: self._made(some, row_draws(s.seed, some), 0.0)
        return validate(self.trainer, rows, make, s.micro, self.step - 1, self.processes)

    def run(self, show: Callable[[Engine], Any]) -> bool:
        """Train to the end, or until a signal; whether it is the end. `show` makes this step's
        pictures.
        """
        with Ahead(self.micro_batches, self.s.steps, self.processes.device) as self.ahead:
            try:
                return self._run(show)
            except Exception as error:
                self.checkpoints.keep_last(error)
                raise
            finally:
                self.ahead = None

    def _run(self, show: Callable[[Engine], Any]) -> bool:
        s, start = self.s, self.step
        logs = open_loggers(s.out, start, s.wandb, as_table(s)) if self.processes.leads else []
        if self.processes.leads:
            self.alarms.remember(s.out / "log.jsonl")
            there = len(checkpoint.complete(s.out))
            if wanting := room.wanting(s.out, self.cast, s.keep, there):
                print(f"ALARM: {wanting}")
        quiet = not self.processes.leads
        bar = tqdm(total=s.steps, initial=start, unit="step", desc=s.method, disable=quiet)
        with bar, Stop(self.processes.leads) as stop:
            while self.step < s.steps:
                with self.clock:
                    metrics = self.advance()
                found = self.validated()
                if found or (self.step - 1) % s.log_every == 0:
                    self._log(logs, metrics, found, bar)
                if s.show_every and (self.step % s.show_every == 0 or self.step == s.steps):
                    picture = show(self)
                    for log in logs:
                        log.picture(self.step, "samples", picture)
                bar.update()
                self.checkpoints.poll()
                stopped = launch.agree(bool(stop.asked), self.processes)
                if stopped or self.step % s.save_every == 0 or self.step == s.steps:
                    self.save(wait=stopped)
                if stopped:
                    self._say(
                        bar,
                        f"{stop.asked or 'another process was asked to stop'}: saved at step "
                        f"{self.step}; start the same command again to go on",
                    )
                    return False
            self.checkpoints.finish()
        return True

    def _log(
        self, logs: list, metrics: dict[str, Tensor], found: dict[str, float], bar: tqdm
    ) -> None:
        frozen, student = self.recipe.play("teacher"), self.cast.trained["student"].inner
        if frozen or adapters(student):  # adapters say themselves how far they are
            start = self.cast.roles[frozen[0]].net if frozen else None
            metrics["moved"], metrics["size"] = moved(student, start)
        values = launch.average(metrics, self.processes) | found
        if "moved" in values:
            values["student/drift"] = (values.pop("moved") / values.pop("size")) ** 0.5
        peak = max(launch.gathered_objects(peak_memory(self.processes.device), self.processes))
        values |= self.clock.read(self.s.batch, peak)
        for log in logs:
            log.scalars(self.step - 1, values)
        for alarm in self.alarms(values):
            self._say(bar, f"ALARM at step {self.step - 1}: {alarm}")
        bar.set_postfix(
            {name: f"{value:.3g}" for name, value in values.items() if name.endswith("/loss")}
        )

    def _say(self, bar: tqdm, text: str) -> None:
        if self.processes.leads:  # every process has the same to say
            bar.write(text)
