"""Stage of the training that reads facts: a flow over the slots of facts, given the vectors of the encoders.

Several flows are trained side by side: the one that is kept on all training patients, and one for each fold without
the patients in it. These say something about patients whom they were not trained on, by which it is calibrated what
may be said at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ...core.atomic_files import atomic_path
from ...core.errors import InputError
from ...core.progress import CancelToken
from ...datasets.prepared_cases import Case, open_cases
from ...multimodal.acquisitions import another_mr, another_xray
from ...multimodal.aligned import AlignedEncoders, load_encoders
from ...multimodal.boxes import byte_input
from ...multimodal.encoders import Vectors
from ...multimodal.fact_flow import MODALITIES, FactFlow, flow_loss
from ...multimodal.fact_reader import FactReader, save_reader
from ...multimodal.fact_slots import Standing, rows_of
from ...multimodal.pairs import Pair
from ...multimodal.xray_piece import centered
from ..fabric import Fabric
from ..loop import LoopConfig, TrainingLoop
from ..loss_plot import draw_curves, read_table
from ..pretrain.run import check_same_run, launch
from ..processes import Processes
from .align import Cancelling, read_pairs, read_pool
from .box_pool import Boxes
from .reading import Judges, calibrated
from .whole_mrs import whole_mrs

FOLDER = "text"
"""Of this stage in the folder of a run; the boxes are those of the whole run."""
FIGURES = "reading.json"
FOLDS = 5
LOOP = LoopConfig(
    steps=1500, learning_rate=2e-3, weight_decay=0.05, warmup=50, decay_share=0.5, ema=0.98, checkpoint_every=250,
    validate_every=500,
)  # fmt: skip


@dataclass(frozen=True)
class TextConfig:
    """Everything that decides what is trained; written into the run folder.

    Attributes:
        batch: images a step, of each modality and for each flow.
        folds: parts of the training patients that are left out in turn.
        encoders: SHA-256 of the encoders.
    """

    batch: int = 128
    seed: int = 0
    folds: int = FOLDS
    encoders: str = ""
    loop: LoopConfig = field(default_factory=lambda: LOOP)

    def record(self) -> dict[str, Any]:
        """What the run folder says of the run."""
        return asdict(self)


@dataclass(frozen=True)
class Seen:
    """Vectors of all acquisitions of the boxes of a pool, in half precision.

    Attributes:
        whole, parts: (n, acquisitions, ...).
        rows, known: (n, SIZE) of the facts.
        patient: (n,) numbers, by the names in ``patients``.
    """

    whole: dict[str, torch.Tensor]
    parts: dict[str, torch.Tensor]
    rows: torch.Tensor
    known: torch.Tensor
    patient: np.ndarray
    patients: list[str]

    def vectors(self, modality: str, rows: np.ndarray, takes: np.ndarray) -> Vectors:
        """Of some images."""
        return Vectors(self.whole[modality][rows, takes].float(), self.parts[modality][rows, takes].float())


class FoldedFlows(nn.Module):
    """The flow of all patients, the last one, and those of the folds."""

    def __init__(self, folds: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.flows = nn.ModuleList(FactFlow() for _ in range(folds + 1))

    def forward(self, seen: Seen, allowed: Sequence[np.ndarray], batch: int, step: int, seed: int) -> torch.Tensor:
        """Sum of the losses of a step's batches, which are a pure function of (seed, step).

        Args:
            allowed: for each flow the images that it may see.
        """
        total = torch.zeros(())
        for number, (flow, rows) in enumerate(zip(self.flows, allowed, strict=True)):
            rng = np.random.default_rng([seed, step, number])
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            for modality in MODALITIES:
                chosen = rng.choice(rows, batch)
                takes = rng.integers(seen.whole[modality].shape[1], size=batch)
                vectors = seen.vectors(modality, chosen, takes)
                total = total + flow_loss(
                    cast(FactFlow, flow), vectors, modality, seen.rows[chosen], seen.known[chosen], generator
                )
        return total


def train_text(
    cache: Path,
    pairs: Path | None,
    folder: Path,
    config: TextConfig,
    encoders: Path,
    *,
    report: Callable[[str], None] = lambda line: None,
    cancel: CancelToken | None = None,
) -> Path:
    """Train, or continue what ``folder`` holds, calibrate, and write ``folder/text/model.safetensors``.

    ``folder/text/reading.json`` tells for each slot what the calibration found, and what holds for the validation
    patients.

    Args:
        cache: folder made by ``meddifffm prepare``.
        pairs: datalist of CTs and MRs of the same patients.
        encoders: whose vectors are read.
        report: told what is being done.
        cancel: asks to stop, also while cases are prepared.

    Returns:
        Path of the weights; they are written only when the training is done.

    Raises:
        InputError: too few patients, or ``folder`` holds a run with other settings.
        ModelError: the encoders cannot be used, or the loss is no longer finite.
    """
    own = Path(folder) / FOLDER
    loaded = load_encoders(encoders)
    check_same_run(own, config.record())
    fabric = launch("cpu", 1, 1)
    if fabric.world_size > 1:
        raise InputError("This stage takes minutes of one core.", "Give the command without torchrun.")
    tell = Processes.of(fabric).telling(report, cancel)
    material = prepare_text(cache, pairs, Path(folder), loaded, config, tell)
    loop = _training(material, own, config, fabric, cancel)
    flows = [halved(flow) for flow in loop.run().flows]  # type: ignore[union-attr, arg-type]
    path = own / "model.safetensors"
    if loop.step < config.loop.steps:
        return path
    readers = [FactReader(flow, material.standing, {}, config.encoders) for flow in flows]
    reader, figures = calibrated(readers, loaded, material.learned, material.others, material.folds, tell)
    with atomic_path(own / FIGURES, overwrite=True) as temporary:
        temporary.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    facts = {
        "steps": loop.step, "batch": config.batch, "seed": config.seed, "patients": len(material.folds),
        "boxes": len(material.seen.rows), "mrs": len(material.learned.mrs),
        "seconds": round(float(read_table(own / "losses.csv")["seconds"].sum())),
    }  # fmt: skip
    save_reader(path, reader, facts)
    draw_curves(own)
    return path


@dataclass(frozen=True)
class Material:
    """What the stage trains and judges on.

    Attributes:
        seen: vectors of the training boxes.
        folds: training patient -> the fold without that patient.
        learned, others: images of the training patients, and of those held out.
    """

    seen: Seen
    standing: Standing
    folds: dict[str, int]
    learned: Judges
    others: Judges

    def allowed(self, folds: int) -> list[np.ndarray]:
        """For the flow of each fold, and the last one of all patients, the boxes that it may see."""
        fold = np.array([self.folds[name] for name in self.seen.patients])
        return [np.flatnonzero(fold[self.seen.patient] != number) for number in range(folds + 1)]


def prepare_text(
    cache: Path, pairs: Path | None, folder: Path, encoders: AlignedEncoders, config: TextConfig,
    tell: Callable[[str], None] = lambda line: None,
) -> Material:  # fmt: skip
    """Boxes and whole MRs, made where they are not in the folder of the run yet, and the vectors of the boxes.

    Raises:
        InputError: too few patients.
    """
    paired = read_pairs(pairs, folder / "pairs", tell)
    training, validation = read_pool(cache, paired, folder / "boxes", tell)
    patients = {boxes.patient for boxes in training}
    if len(patients) < config.folds:
        raise InputError(
            f"{cache} has {len(patients)} training patients; {config.folds} are the fewest that can be left out in "
            "turn.", "Prepare more cases.",
        )  # fmt: skip
    judging: list[Case | Pair] = [*open_cases(cache, "validation"), *paired[1]]
    held_out = {one.patient for one in judging}
    wholes = whole_mrs([*open_cases(cache, "training"), *paired[0], *judging], folder / "mrs", tell)
    standing = Standing.of([text for boxes in training for text in boxes.facts])
    seen = see(encoders, training, standing, config.seed)
    folds = dict(zip(seen.patients, fold_of(seen.patients, config.folds).tolist(), strict=True))
    learned = Judges(training, [mr for mr in wholes if mr.patient in patients])
    return Material(seen, standing, folds, learned, Judges(validation, [m for m in wholes if m.patient in held_out]))


def _training(
    material: Material, folder: Path, config: TextConfig, fabric: Fabric, cancel: CancelToken | None
) -> TrainingLoop:
    """The loop over all flows, where it stood; the folder says what the run is."""
    allowed = material.allowed(config.folds)

    def loss_of(module: nn.Module, step: int) -> torch.Tensor:
        loss: torch.Tensor = module(material.seen, allowed, config.batch, step, config.seed)
        return loss

    module = FoldedFlows(config.folds, config.seed)
    loop = TrainingLoop(module, loss_of, None, config.loop, folder, fabric, Cancelling(cancel))
    loop.resume()
    with atomic_path(folder / "config.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(config.record(), indent=1), encoding="utf-8")
    return loop


def halved(flow: FactFlow) -> FactFlow:
    """The flow with weights as its file keeps them, so that what is calibrated is what ships."""
    return flow.half().float().eval().requires_grad_(False)


def fold_of(patients: Sequence[str], folds: int) -> np.ndarray:
    """Fold of each patient, by a hash of the name, all folds alike in size."""
    order = sorted(range(len(patients)), key=lambda n: hashlib.sha256(patients[n].encode()).hexdigest())
    fold = np.empty(len(patients), int)
    fold[order] = np.arange(len(patients)) % folds
    return fold


def see(encoders: AlignedEncoders, pool: Sequence[Boxes], standing: Standing, seed: int) -> Seen:
    """Vectors of the boxes as they are, and of as many other acquisitions."""
    generator = torch.Generator().manual_seed(seed)
    changes = {"mr": another_mr, "xray": another_xray}
    found: dict[str, list[Vectors]] = {name: [] for name in MODALITIES}
    for boxes in pool:
        for name, change in changes.items():
            images = centered(boxes.xray) if name == "xray" else boxes.mr
            takes = [byte_input(images[:, n]) for n in range(images.shape[1])]
            takes += [change(one, generator) for one in takes]
            with torch.inference_mode():
                each = [getattr(encoders, name)(one) for one in takes]
            found[name].append(
                Vectors(*(torch.stack([getattr(one, part) for one in each], 1).half() for part in Vectors._fields))
            )
    patients = sorted({boxes.patient for boxes in pool})
    rows, known = rows_of([text for boxes in pool for text in boxes.facts], standing)
    number = np.concatenate([np.full(len(boxes.ct), patients.index(boxes.patient)) for boxes in pool])
    whole, parts = ({n: torch.cat([getattr(o, p) for o in each]).clone() for n, each in found.items()}
                    for p in Vectors._fields)  # fmt: skip
    return Seen(whole, parts, torch.from_numpy(rows), torch.from_numpy(known), number, patients)
