"""The training loop: Lightning Fabric around plain steps, with averaged weights, atomic checkpoints, exact resume.

Sample n is a pure function of (seed, n) and the noise of step s of (seed, s), so a run that was killed continues on
the same curve. One process or many (torchrun) see the same global batches.
"""

from __future__ import annotations

import csv
import json
import os
import pickle
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import ModelError, OutputError
from .averages import Average, ExponentialAverage, PowerAverage, save_snapshot
from .loggers import log_row
from .optimizers import make_optimizer

LossFunction = Callable[[nn.Module, int], torch.Tensor]


@dataclass(frozen=True)
class LoopConfig:
    """Length and pace of a run.

    Attributes:
        steps: optimizer steps in all.
        learning_rate: peak, reached after ``warmup`` steps; falls linearly to 0 over the last ``decay_share``.
        optimizer: "adamw", or "muon" for the convolution kernels of the body, see :mod:`.optimizers`.
        ema: decay of the weight average, reached gradually; used where ``widths`` is empty.
        widths: relative widths of power-function averages instead, see :mod:`.averages`; the last one is validated.
        snapshot_every: steps between snapshots of those averages, from which any other width can be made.
        clip: largest gradient norm.
        checkpoint_every, validate_every, log_every: in steps.
    """

    steps: int = 4000
    learning_rate: float = 4e-4
    warmup: int = 100
    decay_share: float = 0.3
    weight_decay: float = 0.01
    optimizer: str = "adamw"
    ema: float = 0.999
    widths: tuple[float, ...] = ()
    snapshot_every: int = 1000
    clip: float = 1.0
    checkpoint_every: int = 100
    validate_every: int = 250
    log_every: int = 50


def rate_at(step: int, config: LoopConfig) -> float:
    """Learning rate of a step: linear warm-up, constant, linear decay."""
    decay = max(int(config.steps * config.decay_share), 1)
    return config.learning_rate * min(1.0, (step + 1) / config.warmup, (config.steps - step) / decay)


def load_plain(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """load_state_dict that does not mind whether module or state came out of torch.compile."""
    own = {name.replace("_orig_mod.", ""): name for name in module.state_dict()}
    module.load_state_dict({own.get(n.replace("_orig_mod.", ""), n): tensor for n, tensor in state.items()})


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """torch.save to a temporary name, flushed to disk, then renamed: a kill leaves the old file or the new one."""
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


class Observer:
    """Part of a run that is called at every step, keeps state in the checkpoint, and may end the training.

    Every process calls it.
    """

    def stepped(self, row: dict[str, float]) -> None:
        """After each step, with the row of ``losses.csv``."""

    def validated(self, step: int, figures: dict[str, float], module: nn.Module) -> bool:
        """After each validation of the averaged module; True ends the training after this step."""
        return False

    def wants_stop(self) -> bool:
        """Asked after each step; True ends the training as SIGTERM does."""
        return False

    def state(self) -> dict[str, Any]:
        """Numbers, texts and tensors that the checkpoint keeps."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""

    def culprits(self, step: int) -> str:
        """The cases of a step's batch, for the message about a loss that is not finite."""
        return ""


def _averages(module: nn.Module, config: LoopConfig) -> list[Average]:
    """Averages of the weights of a run, the one that is validated last."""
    if not config.widths:
        return [ExponentialAverage(module, config.ema)]
    return [PowerAverage(module, width) for width in config.widths]


class TrainingLoop:
    """Loop over ``loss_of(module, step)`` to the end.

    Args:
        module: what is trained.
        loss_of: mean loss of global step ``step`` (this process' share of the batch).
        validate: module -> dict of figures, called on the averaged weights.
        folder: receives ``last.pt``, ``losses.csv``, ``validation.csv``.
        fabric: Lightning Fabric with device, precision and strategy chosen; already launched.
        observer: called at every step; may end the training.
    """

    def __init__(
        self,
        module: nn.Module,
        loss_of: LossFunction,
        validate: Callable[[nn.Module], dict[str, float]] | None,
        config: LoopConfig,
        folder: Path,
        fabric: Any,
        observer: Observer | None = None,
    ) -> None:
        self.config, self.folder, self.fabric = config, Path(folder), fabric
        self.loss_of, self.validate = loss_of, validate
        self.observer = observer or Observer()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.averages = _averages(module.to(fabric.device), config)
        optimizer = make_optimizer(module, config.optimizer, config.learning_rate, config.weight_decay)
        self.plain = module
        self.module, self.optimizer = fabric.setup(module, optimizer)
        self.step = 0
        self.data_wait = 0.0
        self._stop = False

    @property
    def averaged(self) -> nn.Module:
        """The averaged weights that are validated and returned."""
        return self.averages[-1].module

    @property
    def checkpoint(self) -> Path:
        """The resumable state of the run."""
        return self.folder / "last.pt"

    def resume(self) -> bool:
        """Continue from ``last.pt`` if there is one.

        Raises:
            ModelError: it is damaged, or of another network.
        """
        if not self.checkpoint.exists():
            self._truncate_logs(-1)  # of a run that was killed before its first checkpoint
            return False
        try:
            state = torch.load(self.checkpoint, map_location=self.fabric.device, weights_only=True)
            load_plain(self.plain, state["module"])
            for average, kept in zip(self.averages, [*state.get("averages", []), state["ema"]], strict=True):
                load_plain(average.module, kept)
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            self.observer.restore(state.get("observer", {}))
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"The run in {self.folder} cannot be continued from {self.checkpoint.name} ({first}).",
                "Use the settings it was started with, or another folder.",
            ) from error
        self._truncate_logs(self.step)
        return True

    def save(self) -> None:
        """Write ``last.pt``; only the first process does.

        Raises:
            OutputError: it cannot be written; the one before is intact.
        """
        if self.fabric.global_rank:
            return
        state = {
            "module": self.plain.state_dict(),
            "averages": [average.module.state_dict() for average in self.averages[:-1]],
            "ema": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "observer": self.observer.state(),
        }
        try:
            save_atomically(state, self.checkpoint)
        except (OSError, RuntimeError) as error:  # torch's archive writer raises one on top of the other
            self.checkpoint.with_name(self.checkpoint.name + ".partial").unlink(missing_ok=True)
            raise self._unwritable(self.checkpoint.name, error) from error

    def run(self) -> nn.Module:
        """Train to the last step; returns the averaged module. SIGTERM and SIGINT save and stop.

        A validation comes before the checkpoint of its step, so a run that was killed in between repeats both.
        """
        handlers = {s: signal.signal(s, self._request_stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            ending = False
            while self.step < self.config.steps and not ending:
                self._one_step()
                ending = self._any_process_stops()
                last = self.step == self.config.steps
                if self.step % self.config.validate_every == 0 or last:
                    ending |= self.judge()
                if self.step % self.config.checkpoint_every == 0 or last or ending:
                    self.save()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self.averaged

    def _one_step(self) -> None:
        start = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, self.config)
        loss = self.loss_of(self.module, self.step)
        mean = self._mean_of_processes(loss)
        self._check_finite("loss", mean)
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            self.module, self.optimizer, max_norm=self.config.clip, error_if_nonfinite=False
        )
        self._check_finite("gradient", norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        for average in self.averages:
            average.update(self.plain, self.step)
        self.step += 1
        if self.step % self.config.snapshot_every == 0 or self.step == self.config.steps:
            self._snapshot()
        seconds = time.perf_counter() - start
        row = {"step": self.step, "loss": mean.item(), "gradient_norm": float(norm), "seconds": round(seconds, 3)}
        row["data_wait"], self.data_wait = round(self.data_wait, 3), 0.0
        self._log("losses.csv", row)
        self.observer.stepped(row)

    def _snapshot(self) -> None:
        """Keep the power-function averages of this step; a run that is repeated from a checkpoint writes them again."""
        if self.fabric.global_rank:
            return
        for average in self.averages:
            if isinstance(average, PowerAverage):
                try:
                    save_snapshot(self.folder, average, self.step)
                except (OSError, OutputError) as error:
                    raise self._unwritable("The averages", error) from error

    def _mean_of_processes(self, loss: torch.Tensor) -> torch.Tensor:
        """Loss of the global batch, so that all processes log the same and stop at the same loss that is not finite."""
        if self.fabric.world_size == 1:
            return loss.detach()
        return self.fabric.all_reduce(loss.detach(), reduce_op="mean")

    def judge(self) -> bool:
        """Validate the averaged module now; True where the observer ends the training."""
        if self.validate is None:
            return False
        figures = self.fabric.broadcast(self.validate(self.averaged))  # all processes go by the first one's
        self._log("validation.csv", {"step": self.step, **figures})
        return self.observer.validated(self.step, figures, self.averaged)

    def _any_process_stops(self) -> bool:
        """Whether any process was asked to stop: one that left alone would keep the others waiting."""
        stop = self._stop or self.observer.wants_stop()
        if self.fabric.world_size == 1:
            return stop
        stops = torch.tensor(float(stop), device=self.fabric.device)
        return bool(self.fabric.all_reduce(stops, reduce_op="max") > 0)

    def _check_finite(self, what: str, value: torch.Tensor) -> None:
        """Stop before a value that is not finite reaches the weights."""
        if torch.isfinite(value):
            return
        kept = f"The last good checkpoint is kept in {self.checkpoint}" if self.checkpoint.exists() else "Start again"
        cases = self.observer.culprits(self.step)
        where = f"step {self.step + 1} ({cases})" if cases else f"step {self.step + 1}"
        raise ModelError(f"The {what} is not finite at {where}.", f"{kept}; use a smaller learning rate.")

    def _unwritable(self, name: str, error: Exception) -> OutputError:
        """The error for a file of the run that cannot be written."""
        system = error if isinstance(error, OSError) else error.__context__
        reason = getattr(system, "strerror", None) or str(error).splitlines()[0]
        kept = f"{self.checkpoint.name} is intact" if self.checkpoint.exists() else "there was no checkpoint yet"
        return OutputError(
            f"{name} of step {self.step} cannot be written to {self.folder}: {reason}.",
            f"Free some space and give the same command again; {kept}.",
        )

    def _log(self, name: str, row: dict[str, float]) -> None:
        if self.fabric.global_rank:
            return
        log_row(self.fabric, name, row)
        path = self.folder / name
        new = not path.exists()
        try:
            with open(path, "a", newline="") as stream:
                writer = csv.DictWriter(stream, fieldnames=list(row), lineterminator="\n")  # as a resume writes it
                if new:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise self._unwritable(name, error) from error
        if name == "validation.csv":
            print(json.dumps(row), flush=True)

    def _truncate_logs(self, last: int) -> None:
        """Drop rows after step ``last``, so that a resumed run logs each step once."""
        for name in ("losses.csv", "validation.csv"):
            path = self.folder / name
            if not path.exists() or self.fabric.global_rank:
                continue
            head, *rows = path.read_text().splitlines() or [""]
            whole = [row for row in rows if row.count(",") == head.count(",")]
            kept = [row for row in whole if int(row.split(",")[0]) <= last]
            if not kept:
                path.unlink()
                continue
            temporary = path.with_name(f"{name}.partial")
            temporary.write_text("\n".join([head, *kept]) + "\n")
            os.replace(temporary, path)

    def _request_stop(self, number: int, frame: Any) -> None:
        self._stop = True
