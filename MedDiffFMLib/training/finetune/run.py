"""Fine-tuning of the frozen prior on local cases: check, prepare, train, keep the best, register.

A run is a folder; the same call on the same folder goes on where it was, whatever ended it. In it lie::

    check.txt, check.json   the dataset check
    cache/                  the prepared cases
    config.json             the settings
    last.pt                 everything to go on from
    best.safetensors        the checkpoint with the best validation
    preview.png             what that checkpoint makes of validation cases
    losses.csv, validation.csv, progress.jsonl
    card.md, result.json    when it is finished
    writing.lock            held while a process writes here
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ...core.atomic_files import atomic_path
from ...core.errors import MedDiffFMError
from ...core.file_hash import file_sha256
from ...core.json_files import json_ready, write_json
from ...core.precision import choose_precision
from ...core.progress import Cancelled, CancelToken, ProgressCallback, ProgressEvent, ProgressMeter
from ...datasets.check_report import CheckReport
from ...models.catalogue import CatalogueEntry, list_models, register_model
from ...models.checkpoint import denoiser_of, read_weights
from ...models.names import DEFAULT_MODEL
from ...runner.report import software_versions
from ..loggers import make_logger
from ..loop import LoopConfig, TrainingLoop
from ..pretrain.run import finish, launch
from .adapters import AdaptedModule
from .batches import SampleStream
from .cases import open_control_cases
from .config import FinetuneConfig, settings
from .interface import ControlCase, ControlTask
from .keep_best import KeepBest
from .model_card import CardFacts, card
from .preview import Preview
from .progress_log import Progress
from .setup import Run, claimed, open_run, prepare_run, write_config


@dataclass(frozen=True)
class FinetuneResult:
    """Outcome of a run.

    Attributes:
        state: "done", "early" (patience was over), "stopped" (by the user; the same call goes on) or "prepared".
        weights: the kept checkpoint; None before the first validation.
        model: name in the catalogue, "" if it is not registered.
        steps, best_step: trained, and those of the kept checkpoint.
        metric, value, before: the task's metric, its best figure, and that of the prior before any training.
        seconds: training time, all starts of the run together.
        peak_memory: bytes by kind, "main" and "cuda".
        warnings: sentences for the user.
    """

    folder: Path
    state: str
    weights: Path | None = None
    model: str = ""
    steps: int = 0
    best_step: int = 0
    metric: str = ""
    value: float | None = None
    before: float | None = None
    seconds: float = 0.0
    peak_memory: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def finetune(
    data: str | Path,
    folder: str | Path,
    task: str,
    *,
    prior: str = DEFAULT_MODEL,
    preset: str = "standard",
    name: str | None = None,
    title: str = "",
    register: bool = True,
    prepare_only: bool = False,
    cache: str | Path | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    nodes: int = 1,
    bfloat16: bool = True,
    workers: int = 0,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
    logger: str | None = None,
    **changes: Any,
) -> FinetuneResult:
    """Fine-tune a prior for a task, or go on with what ``folder`` holds.

    Args:
        data: dataset folder or decathlon datalist.
        task: name in FINETUNE_TASKS.
        prior: catalogue name or weight file.
        preset: name in PRESETS.
        name: of the result in the catalogue of own models; made from task and folder if not given.
        register: whether the result gets into that catalogue.
        prepare_only: check and prepare, but do not train.
        cache: folder of the prepared cases, for runs that share them; ``folder/cache`` if not given.
        accelerator, devices, nodes: for Lightning Fabric; under torchrun ``devices`` is the number of its processes.
        bfloat16: compute the network in bfloat16 where the device does that fast, weights and loss in float32; False
            for float32 in training, validation and precomputed features.
        workers: processes that draw samples; 0 draws them in the training process.
        cancel: asks to save and stop, as SIGTERM and SIGINT do, and a file called ``stop`` in the folder.
        logger: "tensorboard" or "mlflow", which gets the curves too, see :mod:`training.loggers`.
        changes: settings that differ from the preset, see :func:`.config.settings`: ``steps``, ``batch``,
            ``learning_rate``, ``window``, ``seed``, ``labels``, ``validation``, ``patience``, ``validate_every``,
            ``checkpoint_every``, ``initial`` (a ControlNet to go on from), and ``options`` of the task.

    Raises:
        InputError: data that cannot be trained on (the report is in ``check.txt``), other settings or cases than the
            run began with, or a setting out of range.
        ModelError: the prior cannot be used, or the loss is not finite; the last good checkpoint is kept.
        OutputError: a file cannot be written; the last checkpoint is intact.
        DeviceError: no such accelerator.
    """
    run = open_run(
        settings(task, preset, **changes),
        Path(data),
        Path(folder),
        prior=prior,
        name=name,
        title=title,
        cache=cache,
        progress=progress,
        cancel=cancel,
    )
    with claimed(run, register) as run, run.progress.failures():
        checked = prepare_run(run) if run.first else None
        if prepare_only:
            return FinetuneResult(run.folder, "prepared", warnings=_sentences(checked))
        fabric = launch(accelerator, devices, nodes, make_logger(logger, run.folder))
        fabric.barrier()
        dtype = choose_precision("auto" if bfloat16 else "float32", fabric.device)
        result = _train(run, fabric, str(dtype).removeprefix("torch."), workers)
        if checked is not None and result.state != "stopped":
            result = _publish(run, checked, result, register, str(fabric.device))
        if run.first:
            finish(fabric, result.state != "stopped")
            run.progress.emit(
                result.state,
                1.0,
                step=result.steps,
                metric=result.metric,
                value=result.value,
                best_step=result.best_step,
                model=result.model,
            )
        fabric.barrier()
    return result


def _train(run: Run, fabric: Any, precision: str, workers: int) -> FinetuneResult:
    """Train to the end, to the end of patience, or until asked to stop.

    Args:
        precision: "float32" or "bfloat16", of training, validation and precomputed features.
    """
    config = run.config
    training, validation = (open_control_cases(run.cache, split) for split in ("training", "validation"))
    run = replace(run, task=run.adapter.fitted(run.task, training, run.data, config.labels, run.prior, precision))
    task, held_out, validation = run.task, validation, validation or training
    module = _module(run, fabric.device, precision)
    stream = SampleStream(task, training, config.batch, config.seed, fabric, workers)
    schedule, preview = _loop_config(config), Preview()

    def save_best(module: nn.Module, facts: dict[str, Any]) -> None:
        if run.first:
            counts = {"training": len(training), "validation": len(validation)}
            described = json_ready({**facts, "batch": config.batch, "cases": counts})
            denoiser = cast(AdaptedModule, module).denoiser
            run.adapter.save(run.best, denoiser, task, run.prior, task.settings(training), described)
            preview.draw(run.folder, f"{task.metric} {facts['value']:.3g} after step {facts['steps']}")

    observer = KeepBest(task, stream, run.progress, run.folder, schedule, config.loop.patience, save_best, run.cancel)
    meter = ProgressMeter(len(training), _stages(run.progress), run.cancel)
    run.adapter.precompute(module.denoiser, task, training, meter, precision)
    loop = TrainingLoop(
        module,
        stream.loss,
        observer.timed(_validation(task, validation, preview, precision)),
        schedule,
        run.folder,
        fabric,
        observer,
    )
    observer.module = module
    run.progress.resume(loop.step if loop.resume() else -1)
    if run.first:
        write_config(run)
    if not observer.finished and loop.step < schedule.steps:
        if loop.step == 0 and run.adapter.does_task_untrained:
            run.progress.emit("validating", message="validation before training")
            loop.judge()
        stream.start(loop)
        loop.run()
    result = _result(run, loop, observer)
    if run.first and result.state != "stopped" and result.weights is not None:
        words = _finished(run, module, (training, held_out), observer.best_step, precision)
        result = replace(result, warnings=(*result.warnings, *words))
    return result


def _finished(
    run: Run, module: AdaptedModule, cases: tuple[list[ControlCase], list[ControlCase]], steps: int, precision: str
) -> list[str]:
    """What the adapter adds to the kept file. A run that is cancelled meanwhile is whole; the same call adds it."""
    run.progress.emit("validating", message="completing the kept checkpoint")
    meter = ProgressMeter(1, _stages(run.progress, "validating"), run.cancel)
    try:
        return run.adapter.finish(run.best, module.denoiser, run.task, *cases, run.config, steps, precision, meter)
    except Cancelled:
        return []


def _stages(progress: Progress, state: str = "preparing") -> ProgressCallback:
    """A line of the progress for each stage."""
    seen = ""

    def tell(event: ProgressEvent) -> None:
        nonlocal seen
        if event.stage != seen:
            seen = event.stage
            progress.emit(state, message=seen)

    return tell


def _module(run: Run, device: torch.device, precision: str) -> AdaptedModule:
    """The frozen prior with the part to train, in its first state."""
    torch.manual_seed(run.config.seed)
    denoiser = denoiser_of(read_weights(run.prior_path, run.prior["sha256"])).to(device)
    adapted = run.adapter.attach(denoiser, run.task).to(device)
    if run.config.initial:
        run.adapter.start_from(adapted, run.config.initial, run.task)
    return AdaptedModule(adapted, run.adapter.part(adapted), run.task.loss, precision)


def _loop_config(config: FinetuneConfig) -> LoopConfig:
    schedule = config.loop
    return LoopConfig(
        steps=schedule.steps,
        learning_rate=schedule.learning_rate,
        warmup=min(100, max(schedule.steps // 10, 1)),
        checkpoint_every=schedule.checkpoint_every,
        validate_every=schedule.validate_every,
    )


def _validation(
    task: ControlTask, cases: list[ControlCase], preview: Preview, precision: str
) -> Callable[[nn.Module], dict[str, float]]:
    def validate(module: nn.Module) -> dict[str, float]:
        preview.rows.clear()
        return task.validate(cast(Any, module).denoiser, cases, preview, precision)

    return validate


def _result(run: Run, loop: TrainingLoop, observer: KeepBest) -> FinetuneResult:
    ended = loop.step >= loop.config.steps
    state = "early" if observer.finished and not ended else "done" if ended else "stopped"
    facts = json_ready(observer.facts())
    warnings = []
    if state != "stopped" and not _better(run.task, observer.best, observer.before):
        warnings.append("No checkpoint was better on the validation cases than the prior before training.")
    return FinetuneResult(
        run.folder,
        state,
        run.best if observer.best_step else None,
        "",
        loop.step,
        observer.best_step,
        facts["metric"],
        facts["value"],
        facts["before"],
        facts["seconds"],
        observer.memory,
        tuple(warnings),
    )


def _better(task: ControlTask, value: float, before: float) -> bool:
    if math.isnan(before):
        return not math.isnan(value)
    return value > before if task.higher_is_better else value < before


def _publish(run: Run, checked: CheckReport, result: FinetuneResult, register: bool, device: str) -> FinetuneResult:
    """Card, result and entry in the catalogue of a finished run."""
    if result.weights is None or not result.weights.exists():
        raise MedDiffFMError(
            f"The run in {run.folder} kept no checkpoint: no validation gave a figure.",
            "Look at validation.csv, and start anew in another folder with a smaller learning rate.",
        )
    title = run.title or f"{run.row.title}, fine-tuned on {run.data.resolve().stem}"
    digest = file_sha256(result.weights)
    training = {
        "metric": result.metric,
        "value": result.value,
        "before": result.before,
        "seconds": result.seconds,
        "best_step": result.best_step,
    }
    facts = CardFacts(
        run.name, title, run.prior, digest, training, result.steps, result.peak_memory, device, software_versions()
    )
    text = card(run.row, run.config, checked, facts)
    with atomic_path(run.folder / "card.md", overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    model = ""
    if register:
        model = register_model(_entry(run, checked, title, digest, result), result.weights, text).name
    result = replace(result, model=model, warnings=(*_sentences(checked), *result.warnings))
    write_json(vars(result), run.folder / "result.json", overwrite=True)
    return result


def _entry(run: Run, checked: CheckReport, title: str, digest: str, result: FinetuneResult) -> CatalogueEntry:
    """The catalogue's entry; memory is that of the prior or, unmeasured, that of the training."""
    memory = next((entry.memory_mb for entry in list_models() if entry.sha256 == run.prior["sha256"]), None)
    peak = max([*result.peak_memory.values(), 1_000_000])
    return CatalogueEntry(
        name=run.name,
        title=title,
        description=run.row.sentence,
        file="",
        sha256=digest,
        bytes=1,
        licence="that of your data",
        training_data=f"{checked.data}: {checked.count('training')} cases",
        memory_mb=memory or peak // 1_000_000,
        kind=run.adapter.kind,
        task=run.config.task,
        prior=run.prior["sha256"],
        run=run.id,
    )


def _sentences(checked: CheckReport | None) -> tuple[str, ...]:
    """The check's warnings, one sentence each."""
    warnings = checked.warnings if checked is not None else []
    return tuple(f"{finding.case}: {finding.cause}" if finding.case else finding.cause for finding in warnings)
