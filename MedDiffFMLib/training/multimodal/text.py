"""Stage of the training that reads facts: a flow over the slots of facts, given the vectors of the encoders.

Several flows are trained side by side: the one that is kept on all training patients, and one for each fold without
the patients in it. These say something about patients whom they were not trained on, by which it is calibrated what
may be said at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from ..loop import LoopConfig, TrainingLoop
from ..loss_plot import draw_curves, read_table
from ..pretrain.run import check_same_run, launch
from ..processes import Processes
from .align import Cancelling, read_pairs, read_pool
from .box_pool import Boxes
from .reading import Answer, answers_on_mrs, answers_on_xrays, figures_of, halves, rules_of
from .whole_mrs import WholeMR, whole_mrs

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
    paired = read_pairs(pairs, folder / "pairs", tell)
    training, validation = read_pool(cache, paired, folder / "boxes", tell)
    patients = {boxes.patient for boxes in training}
    if len(patients) < config.folds:
        raise InputError(
            f"{cache} has {len(patients)} training patients; {config.folds} are the fewest that can be left out in "
            "turn.", "Prepare more cases.",
        )  # fmt: skip
    held_out = {case.patient for case in open_cases(cache, "validation")} | {pair.patient for pair in paired[1]}
    sources: list[Case | Pair] = [
        *open_cases(cache, "training"),
        *paired[0],
        *open_cases(cache, "validation"),
        *paired[1],
    ]
    wholes = whole_mrs(sources, folder / "mrs", tell)
    standing = Standing.of([text for boxes in training for text in boxes.facts])
    seen = see(loaded, training, standing, config.seed)
    fold = fold_of(seen.patients, config.folds)
    module = FoldedFlows(config.folds, config.seed)
    allowed = [np.flatnonzero(fold[seen.patient] != number) for number in range(config.folds + 1)]

    def loss_of(module: nn.Module, step: int) -> torch.Tensor:
        loss: torch.Tensor = module(seen, allowed, config.batch, step, config.seed)
        return loss

    loop = TrainingLoop(module, loss_of, None, config.loop, own, fabric, Cancelling(cancel))
    loop.resume()
    with atomic_path(own / "config.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(config.record(), indent=1), encoding="utf-8")
    flows = [halved(flow) for flow in loop.run().flows]  # type: ignore[union-attr, arg-type]
    path = own / "model.safetensors"
    if loop.step < config.loop.steps:
        return path
    others = Judges(validation, [mr for mr in wholes if mr.patient in held_out])
    learned = Judges(training, [mr for mr in wholes if mr.patient in patients])
    readers = [FactReader(flow, standing, {}, config.encoders) for flow in flows]
    folds = dict(zip(seen.patients, fold.tolist(), strict=True))
    answers = cross_fitted(readers, loaded, learned, folds, tell)
    reader = replace(readers[-1], rules={name: rules_of(each, name, standing) for name, each in answers.items()})
    tell("judging")
    record = {
        "calibration": {name: figures_of(each, reader, name) for name, each in answers.items()},
        "halves": {name: half_figures(each, reader, name) for name, each in answers.items()},
        "validation": {name: figures_of(each, reader, name) for name, each in others.answers(reader, loaded).items()},
    }
    with atomic_path(own / FIGURES, overwrite=True) as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    facts = {
        "steps": loop.step, "batch": config.batch, "seed": config.seed, "patients": len(patients),
        "boxes": len(seen.rows), "mrs": len(learned.mrs),
        "seconds": round(float(read_table(own / "losses.csv")["seconds"].sum())),
    }  # fmt: skip
    save_reader(path, reader, facts)
    draw_curves(own)
    return path


@dataclass(frozen=True)
class Judges:
    """Images of some patients, on which is judged what is said."""

    boxes: Sequence[Boxes]
    mrs: Sequence[WholeMR]

    def of(self, allowed: Callable[[str], bool]) -> Judges:
        """Those of the patients of whom a function of the name says so."""
        return Judges([one for one in self.boxes if allowed(one.patient)], [o for o in self.mrs if allowed(o.patient)])

    def answers(self, reader: FactReader, encoders: AlignedEncoders) -> dict[str, list[Answer]]:
        """What a reader draws of them, by modality."""
        return {
            "mr": list(answers_on_mrs(reader, encoders, self.mrs)),
            "xray": list(answers_on_xrays(reader, encoders, self.boxes)),
        }


def cross_fitted(
    readers: Sequence[FactReader], encoders: AlignedEncoders, judges: Judges, folds: dict[str, int],
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, list[Answer]]:  # fmt: skip
    """Answers about each training patient by the reader of the fold without that patient.

    Args:
        readers: of the folds in their order; further ones are not asked.
        folds: patient -> fold; a patient of whom there are no boxes was seen by none.
    """
    found: dict[str, list[Answer]] = {name: [] for name in MODALITIES}
    for number in range(max(folds.values()) + 1):
        tell(f"calibrating, fold {number + 1} of {max(folds.values()) + 1}")
        own = judges.of(lambda name, number=number: folds.get(name, 0) == number)  # type: ignore[misc]
        for name, answers in own.answers(readers[number], encoders).items():
            found[name] += answers
    return found


def half_figures(answers: Sequence[Answer], reader: FactReader, modality: str) -> list[dict[str, dict[str, float]]]:
    """Figures of each half of the patients by the rules that the other half allows."""
    first, second = halves(answers)
    found = []
    for calibrating, judging in ((first, second), (second, first)):
        rules = {modality: rules_of(calibrating, modality, reader.standing)}
        found.append(figures_of(judging, replace(reader, rules=rules), modality))
    return found


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
