"""Implementations under test, behind one interface: ``measure(case)`` -> figures, JSON-ready."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...conditioning.condition import Condition, stack
from ...core.devices import synchronize
from ...imaging.intensity import to_network
from ...imaging.volume import Volume
from ...tasks.base import Case as TaskCase
from ...tasks.base import Run, Task
from ...tasks.registry import TASKS
from .cases import SUBJECTS, SYNTHETIC_SPACING_MM, Case, cut_volume, lesion_mask, psnr, whole_body, with_noise
from .monai_reference import Answer, Reference, SameWeights, Stock, flops, stock_network

TRAINING_BATCH = 4
Figures = dict[str, Any]
CUBES = {"method": "cubes"}
"""The anomaly map that the reference makes too; the detector needs no prior."""
OPTIONS: dict[str, dict[str, Any]] = {"anomaly": CUBES, "denoise": {"prior": True}, "inpaint": {"texture": "none"}}
"""Parameters of the tasks by which they compute what the reference does."""


@dataclass(frozen=True)
class Settings:
    """Settings of a subject.

    Attributes:
        model: catalogue name or weight file.
        device: as for ``load_model``.
        threads: CPU threads, None for torch's choice.
        steps: of the references' DDIM.
        window: of the stock network; the same weights take windows as in training.
        budget: seconds that a run of a reference may take before it is extrapolated.
    """

    model: str
    device: str
    threads: int | None
    steps: int
    window: int
    budget: float


class Engine:
    """The tasks as they are shipped, by their public functions."""

    def __init__(self, settings: Settings) -> None:
        from ...models.checkpoint import load_model

        self.model = load_model(settings.model, device=settings.device)
        self.device = torch.device(self.model.device)
        self._train: Any = None

    def about(self) -> Figures:
        """Precision, batch and window of the run."""
        engine = self.model.engine
        return {"precision": engine.precision, "batch": engine.memory_level.batch, "window": engine.memory_level.window}

    def measure(self, case: Case) -> Figures:
        """One run."""
        if case.task == "network":
            return self._network()
        if case.task == "train":
            return self._training_step()
        task, taken, clean = _task_inputs(case)
        engine = self.model.engine
        seen = _count_windows(engine)
        begin, cpu = time.perf_counter(), time.process_time()
        result = task.run(taken, Run(self.model, case.seed))
        synchronize(self.device)
        figures: Figures = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}
        del engine.denoise  # the counter
        figures |= {"windows": seen[0], "extrapolated": False}
        if clean is not None:
            figures["psnr"] = psnr(next(iter(result.volumes.values())), clean)
        return figures

    def _network(self) -> Figures:
        engine = self.model.engine
        edge, batch = engine.memory_level.window, engine.memory_level.batch
        condition = Condition((1.0, 1.0, 1.0)).encode((edge,) * 3, self.device)
        windows, stacked = torch.zeros((batch, 1, edge, edge, edge), device=self.device), stack([condition] * batch)
        return _network_figures(lambda: engine.denoise(windows, 0.03, stacked), self.device, batch, edge, engine.dtype)

    def _training_step(self) -> Figures:
        from ...core.precision import autocast
        from ...models.checkpoint import build_denoiser

        if self._train is None:
            denoiser = build_denoiser(self.model.config).to(self.device)
            self._train = denoiser, torch.optim.AdamW(denoiser.parameters(), 1e-4)
        denoiser, optimizer = self._train
        edge = int(self.model.config.get("window", 64))
        unconditional = Condition((1.0, 1.0, 1.0)).encode((edge,) * 3, self.device)
        condition, shape = stack([unconditional] * TRAINING_BATCH), (TRAINING_BATCH, 1, edge, edge, edge)
        x, noise = torch.zeros(shape, device=self.device), torch.randn(shape, device=self.device)
        begin, cpu = time.perf_counter(), time.process_time()
        with autocast(self.device):
            loss = denoiser.loss(x, torch.full((TRAINING_BATCH,), 0.1, device=self.device), noise, condition).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize(self.device)
        return {
            "seconds": time.perf_counter() - begin,
            "cpu_seconds": time.process_time() - cpu,
            "windows": TRAINING_BATCH,
            "extrapolated": False,
        }


class ReferenceSubject:
    """One of the references."""

    def __init__(self, settings: Settings, same_weights: bool) -> None:
        from ...core.devices import choose_device
        from ...models.catalogue import resolve
        from ...models.checkpoint import load_denoiser, read_header

        device = str(choose_device(settings.device))
        self.same_weights = same_weights
        if same_weights:
            _, path, _ = resolve(settings.model)
            header = read_header(path)
            window = int(header["config"].get("window", 64))
            self.reference: Reference = SameWeights(
                load_denoiser(path), device, window, settings.steps, settings.budget
            )
        else:
            self.reference = Stock(stock_network(), device, settings.window, settings.steps, settings.budget)

    def about(self) -> Figures:
        """Precision, window and steps of the run."""
        return {"precision": "float32", "window": self.reference.window, "steps": self.reference.steps}

    def measure(self, case: Case) -> Figures:
        """One run."""
        reference = self.reference
        if case.task == "network":
            return _network_figures(
                lambda: reference.network_call(1), reference.device, 1, reference.window, torch.float32
            )
        answer, clean = self._answer(case)
        figures: Figures = {
            "seconds": answer.seconds,
            "cpu_seconds": answer.cpu_seconds,
            "windows": answer.windows,
            "extrapolated": answer.extrapolated,
        }
        if answer.image is not None and clean is not None and self.same_weights:
            figures["psnr"] = psnr(answer.image.numpy() * 1000, clean)
        return figures

    def _answer(self, case: Case) -> tuple[Answer, Volume | None]:
        if case.task == "train":
            return self.reference.train_step(TRAINING_BATCH), None
        generator = torch.Generator().manual_seed(case.seed)
        if case.task == "synthesize":
            self.reference.spacing = (SYNTHETIC_SPACING_MM,) * 3
            return self.reference.synthesize((case.edge,) * 3, generator), None
        _, taken, clean = _task_inputs(case)
        volume = taken.scan
        i, j, k = volume.spacing
        self.reference.spacing = (k, j, i)
        image = torch.from_numpy(to_network(volume.voxels))
        if case.task == "denoise":
            return self.reference.denoise(image), clean
        if case.task in ("anomaly", "whole-body"):
            return self.reference.anomaly(image, generator), None
        assert taken.mask is not None
        box = _neighborhood(taken.mask, volume)
        return self.reference.inpaint(image[box], torch.from_numpy(taken.mask[box]), generator), None


def make_subject(name: str, settings: Settings) -> Engine | ReferenceSubject:
    """The subject of that name."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return Engine(settings) if name == SUBJECTS[0] else ReferenceSubject(settings, name == SUBJECTS[1])


def _task_inputs(case: Case) -> tuple[Task, TaskCase, Volume | None]:
    """A task and what it works on, and the truth to compare its result with where there is one."""
    from ...imaging.io import read_volume

    if case.task == "synthesize":
        size = (case.edge * SYNTHETIC_SPACING_MM,) * 3
        return TASKS["synthesize"](size=size, spacing=SYNTHETIC_SPACING_MM), TaskCase(), None
    source = read_volume(Path(case.source))
    if case.task == "whole-body":
        return TASKS["anomaly"](**CUBES), TaskCase(whole_body(source)), None
    options = OPTIONS.get(case.task, {})
    clean, task = cut_volume(source, (case.edge,) * 3), TASKS[case.task](**options)
    if case.task == "denoise":
        return task, TaskCase(with_noise(clean, case.seed)), clean
    return task, TaskCase(clean, lesion_mask(clean, case.lesion_mm) if case.task == "inpaint" else None), None


def _neighborhood(mask: np.ndarray, volume: Volume) -> tuple[slice, ...]:
    """The box around a lesion that the task itself looks at."""
    from ...preprocessing.mask_crop import WINDOW, neighborhood

    low, high = neighborhood(mask, volume, None, WINDOW)
    return tuple(slice(int(np.floor(a)), int(np.ceil(b)) + 1) for a, b in zip(low[::-1], high[::-1], strict=True))


def _count_windows(engine: Any) -> list[int]:
    """Count the windows that the network is shown, until ``engine.denoise`` is deleted."""
    seen, call = [0], engine.denoise

    def counted(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen[0] += len(x)
        return call(x, *rest)

    engine.denoise = counted
    return seen


def _network_figures(call: Any, device: torch.device, windows: int, edge: int, dtype: torch.dtype) -> Figures:
    """Time of a call and its share of the rate of a matrix product in the same precision, measured right after it."""
    from ...training.throughput import matrix_rate

    work = flops(call)  # chooses kernels, too
    synchronize(device)
    begin, cpu = time.perf_counter(), time.process_time()
    call()
    synchronize(device)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "windows": windows,
        "extrapolated": False,
        "flops": work,
        "voxels": windows * edge**3,
        "matrix_rate": matrix_rate(device, dtype),
    }
