"""First stage of the training of many modalities: the encoders, by central alignment and the visual invariant."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core.atomic_files import atomic_path
from ...core.errors import InputError
from ...core.progress import CancelToken
from ...datasets.datalist import read_datalist
from ...datasets.prepared_cases import Case, open_cases
from ...multimodal.aligned import AlignedEncoders, load_encoders, save_encoders
from ...multimodal.pairs import Pair, prepare_pairs
from ...multimodal.sentence_encoder import SentenceEncoder
from ...multimodal.text_codecs import find_codec
from ..loop import LoopConfig, Observer, TrainingLoop
from ..loss_plot import draw_curves, read_table
from ..pretrain.run import check_same_run, launch
from ..processes import Processes
from .align_batches import BoxBatches
from .align_loss import AlignLoss
from .box_pool import Boxes, prepare_boxes
from .retrieval import embed, figures

ALONE = Processes()

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
        initial: SHA-256 of the encoders it goes on from; "" for fresh ones.
        codec: name and version of the codec that reads texts; "" for the grammar of facts.
    """

    batch: int = 128
    seed: int = 0
    links: bool = True
    invariant: bool = True
    initial: str = ""
    codec: str = ""
    loop: LoopConfig = field(default_factory=lambda: LOOP)

    def record(self) -> dict[str, Any]:
        """What the run folder says of the run."""
        return asdict(self)


def align(
    cache: Path,
    pairs: Path | None,
    folder: Path,
    config: AlignConfig,
    *,
    initial: Path | None = None,
    codec: str | None = None,
    accelerator: str = "auto",
    report: Callable[[str], None] = lambda line: None,
    cancel: CancelToken | None = None,
) -> Path:
    """Train, or continue what ``folder`` holds, and write ``folder/model.safetensors``.

    Under torchrun the processes share preparation and batches, and follow the curve that one would.

    Args:
        cache: folder made by ``meddifffm prepare``.
        pairs: datalist of CTs and MRs of the same patients, for training and for validation. CTs of the latter are not
            trained on either.
        initial: encoders to go on from.
        codec: name of the text codec of fresh encoders; None for the grammar of facts.
        report: called by the first process.
        cancel: asks to stop, also while cases are prepared.

    Returns:
        Path of the averaged weights in half precision.

    Raises:
        InputError: no training cases, ``folder`` holds a run with other settings, or the initial encoders read texts by
            another codec.
        ModelError: the checkpoint or the initial encoders do not fit, or the loss is no longer finite.
        DependencyError: a text codec that is not installed.
    """
    folder = Path(folder)
    encoders = _begin(initial, codec, config.seed)
    config = replace(config, codec=_codec_of(encoders))
    check_same_run(folder, config.record())
    fabric = launch(accelerator, 1, 1, partly=True)
    processes = Processes.of(fabric)
    tell = processes.telling(report, cancel)
    paired = read_pairs(pairs, folder / "pairs", tell, processes)
    training, validation = read_pool(cache, paired, folder / "boxes", tell, processes)
    module = AlignLoss(encoders, config.links, config.invariant, processes)
    batches = BoxBatches(training, config.batch, config.seed, encoders.texts)

    def loss_of(module: nn.Module, step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed((config.seed + 1) * 1_000_003 + step)
        return module(batches(step).to(fabric.device), generator)

    def validate(module: nn.Module) -> dict[str, float]:  # all processes go by the first one's
        return figures(embed(module.encoders, validation)) if processes.first else {}  # type: ignore[arg-type]

    loop = TrainingLoop(
        module, loss_of, validate if validation else None, config.loop, folder, fabric, Cancelling(cancel)
    )
    loop.resume()
    if processes.first:
        with atomic_path(folder / "config.json", overwrite=True) as temporary:
            temporary.write_text(json.dumps(config.record(), indent=1), encoding="utf-8")
    averaged = loop.run()
    path = folder / "model.safetensors"
    if processes.first:
        seconds = read_table(folder / "losses.csv")["seconds"].sum()
        facts = {
            "steps": loop.step, "batch": config.batch, "seconds": round(float(seconds)), "seed": config.seed,
            "patients": len({boxes.patient for boxes in training}), "boxes": batches.count,
        }  # fmt: skip
        save_encoders(path, averaged.encoders, facts)  # type: ignore[arg-type]
        draw_curves(folder)
    processes.wait()
    return path


def _begin(initial: Path | None, codec: str | None, seed: int) -> AlignedEncoders:
    """Encoders before the first step."""
    torch.manual_seed(seed)
    if initial is None:
        encoders = AlignedEncoders(None if codec is None else find_codec(codec))
    else:
        encoders = load_encoders(initial)
        if codec is not None and codec != (own := _codec_of(encoders).rpartition(" ")[0]):
            raise InputError(
                f"{initial.name} reads texts by {f'the codec {own}' if own else 'the grammar of facts'}, not {codec}.",
                "Leave --text-codec out, or train fresh encoders with it.",
            )
    return encoders.float().requires_grad_(True).train()


def _codec_of(encoders: AlignedEncoders) -> str:
    """Name and version of the codec that reads texts; "" for the grammar of facts."""
    texts = encoders.texts
    return f"{texts.codec.name} {texts.codec.version}" if isinstance(texts, SentenceEncoder) else ""


class Cancelling(Observer):
    """Ends the training where the user cancelled."""

    def __init__(self, cancel: CancelToken | None) -> None:
        self.cancel = cancel

    def wants_stop(self) -> bool:
        return self.cancel is not None and self.cancel.cancelled


def read_pool(
    cache: Path,
    pairs: tuple[Sequence[Pair], Sequence[Pair]],
    folder: Path,
    report: Callable[[str], None] = lambda line: None,
    processes: Processes = ALONE,
) -> tuple[list[Boxes], list[Boxes]]:
    """Boxes for training and for validation, made where they are not in ``folder`` yet; no patient is in both.

    Raises:
        InputError: nothing to train on.
    """
    held_out = {case.patient for case in open_cases(cache, "validation")} | {pair.patient for pair in pairs[1]}
    cases = [case for case in open_cases(cache, "training") if case.patient not in held_out]
    known = [pair for pair in pairs[0] if pair.patient not in held_out]
    judging = open_cases(cache, "validation")
    sources: list[Case | Pair] = [*cases, *known, *judging, *pairs[1]]
    processes.make(sources, lambda mine: prepare_boxes(*_kinds(mine), folder, report))
    training = prepare_boxes(cases, known, folder, report)
    if not training:
        raise InputError(f"{cache} holds no training cases.", "Run `meddifffm prepare` with a datalist first.")
    return training, prepare_boxes(judging, pairs[1], folder, report)


def _kinds(sources: Sequence[Case | Pair]) -> tuple[list[Case], list[Pair]]:
    """Cases and pairs apart."""
    pairs = [one for one in sources if isinstance(one, Pair)]
    return [one for one in sources if not isinstance(one, Pair)], pairs


def read_pairs(
    datalist: Path | None,
    folder: Path,
    report: Callable[[str], None] = lambda line: None,
    processes: Processes = ALONE,
) -> tuple[list[Pair], list[Pair]]:
    """Aligned pairs of a datalist for training and for validation, kept in a folder; none without a list."""
    if datalist is None:
        return [], []
    entries = read_datalist(datalist)
    processes.make(entries, lambda mine: prepare_pairs(mine, folder, report))
    split: dict[bool, list[Pair]] = {True: [], False: []}
    for entry, pair in zip(entries, prepare_pairs(entries, folder, report), strict=True):
        split[entry.split == "training"].append(pair)
    return split[True], split[False]
