"""First stage of the training of many modalities: the encoders, by central alignment and the visual invariant."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core.errors import InputError
from ...datasets.datalist import read_datalist
from ...datasets.prepared_cases import open_cases
from ...multimodal.aligned import AlignedEncoders, save_encoders
from ...multimodal.pairs import Pair, prepare_pairs
from ..loop import LoopConfig, TrainingLoop
from ..loss_plot import draw_curves, read_table
from ..pretrain.run import check_same_run, launch
from .align_batches import BoxBatches
from .align_loss import AlignLoss
from .box_pool import Boxes, prepare_boxes
from .retrieval import embed, figures

LOOP = LoopConfig(
    steps=1000,
    learning_rate=3e-3,
    weight_decay=0.05,
    warmup=50,
    decay_share=0.5,
    ema=0.98,
    checkpoint_every=100,
    validate_every=200,
)


@dataclass(frozen=True)
class AlignConfig:
    """Everything that decides what is trained; written into the run folder.

    Attributes:
        batch: boxes a step.
        links, invariant: whether each of the two ideas is used; off for comparison.
    """

    batch: int = 128
    seed: int = 0
    links: bool = True
    invariant: bool = True
    loop: LoopConfig = field(default_factory=lambda: LOOP)

    def record(self) -> dict[str, Any]:
        """What the run folder says of the run."""
        return asdict(self)


def align(
    cache: Path,
    pairs: tuple[Sequence[Pair], Sequence[Pair]],
    folder: Path,
    config: AlignConfig,
    *,
    initial: AlignedEncoders | None = None,
    accelerator: str = "auto",
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train, or continue what ``folder`` holds, and write ``folder/model.safetensors``.

    Args:
        cache: folder made by ``meddifffm prepare``.
        pairs: CT and MR of the same patients, for training and for validation. CTs of the latter are not trained on
            either.
        initial: encoders to go on from instead of random ones.

    Returns:
        Path of the averaged weights in half precision.

    Raises:
        InputError: no training cases, or ``folder`` holds a run with other settings.
        ModelError: the checkpoint does not fit, or the loss is no longer finite.
    """
    folder = Path(folder)
    check_same_run(folder, config.record())
    fabric = launch(accelerator, 1, 1)
    training, validation = read_pool(cache, pairs, folder / "boxes", report)
    torch.manual_seed(config.seed)
    encoders = (initial or AlignedEncoders()).requires_grad_(True).train()
    module = AlignLoss(encoders, config.links, config.invariant)
    batches = BoxBatches(training, config.batch, config.seed, encoders.texts)

    def loss_of(module: nn.Module, step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed((config.seed + 1) * 1_000_003 + step)
        return module(batches(step), generator)

    def validate(module: nn.Module) -> dict[str, float]:
        return figures(embed(module.encoders, validation))  # type: ignore[arg-type]

    loop = TrainingLoop(module, loss_of, validate if validation else None, config.loop, folder, fabric)
    loop.resume()
    (folder / "config.json").write_text(json.dumps(config.record(), indent=1), encoding="utf-8")
    averaged = loop.run()
    path = folder / "model.safetensors"
    seconds = read_table(folder / "losses.csv")["seconds"].sum()
    save_encoders(
        path,
        averaged.encoders,  # type: ignore[arg-type]
        {
            "steps": loop.step, "batch": config.batch, "seconds": round(float(seconds)), "seed": config.seed,
            "patients": len({boxes.patient for boxes in training}), "boxes": batches.count,
        },
    )  # fmt: skip
    draw_curves(folder)
    return path


def read_pool(
    cache: Path,
    pairs: tuple[Sequence[Pair], Sequence[Pair]],
    folder: Path,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[list[Boxes], list[Boxes]]:
    """Boxes for training and for validation, made where they are not in ``folder`` yet; no patient is in both.

    Raises:
        InputError: nothing to train on.
    """
    held_out = {case.patient for case in open_cases(cache, "validation")} | {pair.patient for pair in pairs[1]}
    cases = [case for case in open_cases(cache, "training") if case.patient not in held_out]
    known = [pair for pair in pairs[0] if pair.patient not in held_out]
    training = prepare_boxes(cases, known, folder, report)
    if not training:
        raise InputError(f"{cache} holds no training cases.", "Run `meddifffm prepare` with a datalist first.")
    return training, prepare_boxes(open_cases(cache, "validation"), pairs[1], folder, report)


def read_pairs(
    datalist: Path | None, folder: Path, report: Callable[[str], None] = lambda line: None
) -> tuple[list[Pair], list[Pair]]:
    """Aligned pairs of a datalist for training and for validation, kept in a folder; none without a list."""
    if datalist is None:
        return [], []
    entries = read_datalist(datalist)
    split: dict[bool, list[Pair]] = {True: [], False: []}
    for entry, pair in zip(entries, prepare_pairs(entries, folder, report), strict=True):
        split[entry.split == "training"].append(pair)
    return split[True], split[False]
