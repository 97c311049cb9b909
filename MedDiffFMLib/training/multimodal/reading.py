"""How well facts are read in images: answers beside the truth, the rules that they allow, and what these are worth."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...multimodal.aligned import AlignedEncoders
from ...multimodal.fact_calibration import interval_scale, lower_bound, precision_of, word_threshold
from ...multimodal.fact_flow import MODALITIES
from ...multimodal.fact_reader import USEFUL, FactReader, Rules, look
from ...multimodal.fact_slots import NUMBERS, PRESENT, READ, Key, Standing, shown, values_of
from ...multimodal.fact_summary import ABSENT, SHOWN, Summary
from ...multimodal.facts.fact import Statement
from ...multimodal.xray_piece import centered
from .box_pool import VIEWS, Boxes
from .whole_mrs import WholeMR

LIMB = "limb"
"""What shows no region of the trunk, nor of head and neck."""


@dataclass(frozen=True)
class Answer:
    """What is drawn of one image, and what is true of it.

    Attributes:
        real: whether a scanner made it.
    """

    patient: str
    summary: Summary
    facts: Sequence[Statement]
    real: bool = False

    @property
    def group(self) -> str:
        """Region of the body that it shows; limbs have none."""
        return str(values_of(self.facts).get(("region", "region"), LIMB))

    def truth(self, key: Key) -> Any:
        """Word or number of a slot; None where it is not known."""
        if key in PRESENT:
            return SHOWN if shown(key, self.facts) else ABSENT
        return values_of(self.facts).get(key)


def answers_on_xrays(reader: FactReader, encoders: AlignedEncoders, pool: Sequence[Boxes]) -> Iterator[Answer]:
    """Of one X-ray of each box in each view."""
    for boxes in pool:
        for view in range(len(VIEWS)):
            vectors = look(encoders, "xray", centered(boxes.xray[:, 2 * view]))
            summaries = reader.read_each(vectors, "xray")
            yield from (Answer(boxes.patient, *both) for both in zip(summaries, boxes.facts, strict=True))


def answers_on_mrs(reader: FactReader, encoders: AlignedEncoders, mrs: Sequence[WholeMR]) -> Iterator[Answer]:
    """Of whole MRs."""
    for mr in mrs:
        tiles = mr.tiles
        if tiles is not None:
            summary = reader.read(look(encoders, "mr", tiles.boxes), "mr", tiles.places)
            yield Answer(mr.patient, summary, mr.facts, mr.real)


@dataclass(frozen=True)
class Judged:
    """Answers to one slot where the truth is known.

    Attributes:
        patient: (n,) numbers.
        group: (n,) regions of the body.
        answer, truth: (n,) words or numbers.
        sure: (n,) sureness of the word, or expected error of the number.
    """

    patient: np.ndarray
    group: np.ndarray
    answer: np.ndarray
    truth: np.ndarray
    sure: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Of words."""
        return self.answer == self.truth


def judged(answers: Sequence[Answer], key: Key) -> Judged:
    """Answers to a slot."""
    names = {name: number for number, name in enumerate(sorted({one.patient for one in answers}))}
    rows = []
    for one in answers:
        truth, drawn = one.truth(key), {**one.summary.words, **one.summary.numbers}.get(key)
        if truth is not None and drawn is not None:
            rows.append((names[one.patient], one.group, drawn[0], truth, drawn[1]))
    patient, group, answer, truths, sure = zip(*rows, strict=True) if rows else ((),) * 5
    return Judged(np.array(patient, int), np.array(group), np.array(answer), np.array(truths), np.array(sure, float))


def rules_of(answers: Sequence[Answer], modality: str, standing: Standing) -> Rules:
    """How sure one has to be, by the answers about patients whom the flow was not trained on."""
    words, numbers = {}, {}
    for key in READ[modality]:
        found = judged(answers, key)
        if key in NUMBERS and key not in standing.lines:
            continue
        if key not in NUMBERS:
            words[key] = word_threshold(found.sure, found.right, found.patient, found.group)
            continue
        truth = found.truth.astype(float)
        error, usual = np.abs(found.answer.astype(float) - truth), np.abs(standing.middle(key) - truth)
        widest = USEFUL * standing.spread(key)
        numbers[key] = interval_scale(error, found.sure, found.patient, widest, group=found.group, usual=usual)
    return Rules(words, numbers)


def figures_of(answers: Sequence[Answer], reader: FactReader, modality: str) -> dict[str, dict[str, float]]:
    """For each slot how often something is said, and how often it holds."""
    said = [reader.sayable(one.summary, modality) for one in answers]
    rows = {}
    for key in (key for key in READ[modality] if key not in NUMBERS):
        pairs = [(one, told.words.get(key)) for one, told in zip(answers, said, strict=True)]
        rows[".".join(key).rstrip(".")] = _of_words([pair for pair in pairs if pair[0].truth(key) is not None], key)
    for key in reader.standing.lines:
        ends = [(one, told.numbers.get(key)) for one, told in zip(answers, said, strict=True)]
        known = [pair for pair in ends if pair[0].truth(key) is not None]
        rows[".".join(key)] = _of_numbers(known, key, reader.standing)
    return rows


def _of_words(pairs: Sequence[tuple[Answer, str | None]], key: Key) -> dict[str, float]:
    truth = [one.truth(key) for one, _ in pairs]
    right = np.array([one.summary.words[key][0] == true for (one, _), true in zip(pairs, truth, strict=True)], bool)
    usual = max((truth.count(word) for word in set(truth)), default=0) / max(len(truth), 1)
    told = np.array([word is not None for _, word in pairs], bool)
    patient = np.array([one.patient for one, _ in pairs])
    precision, patients = precision_of(right[told], patient[told])
    return {
        "images": len(pairs), "patients": len(set(patient.tolist())), "right": _mean(right), "usual": usual,
        "said": _mean(told), "said_patients": patients, "precision": precision,
        "lower_bound": lower_bound(precision, patients) if patients else float("nan"),
    }  # fmt: skip


def _of_numbers(
    pairs: Sequence[tuple[Answer, tuple[float, float, float] | None]], key: Key, standing: Standing
) -> dict[str, float]:
    truth = np.array([float(one.truth(key)) for one, _ in pairs])
    value = np.array([one.summary.numbers[key][0] for one, _ in pairs])
    told = np.array([interval is not None for _, interval in pairs], bool)
    ends = np.array([interval[1:] for _, interval in pairs if interval is not None]).reshape(-1, 2)
    inside = (truth[told] >= ends[:, 0]) & (truth[told] <= ends[:, 1])
    patient = np.array([one.patient for one, _ in pairs])
    held, patients = precision_of(inside, patient[told])
    usual = np.abs(standing.middle(key) - truth)
    return {
        "images": len(pairs), "patients": len(set(patient.tolist())), "error": _mean(np.abs(value - truth)),
        "usual_error": _mean(usual), "said": _mean(told), "said_patients": patients,
        "precision": held, "lower_bound": lower_bound(held, patients) if patients else float("nan"),
        "width": _mean(ends[:, 1] - ends[:, 0]), "told_error": _mean(np.abs(value - truth)[told]),
        "told_usual_error": _mean(usual[told]),
    }  # fmt: skip


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def halves(answers: Sequence[Answer]) -> tuple[list[Answer], list[Answer]]:
    """The answers of two halves of the patients, by a hash of their names."""
    first = {one.patient for one in answers if zlib.crc32(one.patient.encode()) % 2}
    return [one for one in answers if one.patient in first], [one for one in answers if one.patient not in first]


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


def calibrated(
    readers: Sequence[FactReader], encoders: AlignedEncoders, learned: Judges, others: Judges, folds: dict[str, int],
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[FactReader, dict[str, Any]]:  # fmt: skip
    """The last reader with the rules that the others' answers allow, and what is right by these rules.

    Args:
        readers: of the folds in their order, then that of all patients.
        learned, others: images of the training patients, and of those held out.
        folds: see :func:`cross_fitted`.
    """
    answers = cross_fitted(readers, encoders, learned, folds, tell)
    standing = readers[-1].standing
    reader = replace(readers[-1], rules={name: rules_of(each, name, standing) for name, each in answers.items()})
    tell("judging")
    held_out = others.answers(reader, encoders)
    return reader, {
        "calibration": {name: figures_of(each, reader, name) for name, each in answers.items()},
        "halves": {name: half_figures(each, reader, name) for name, each in answers.items()},
        "real": {"mr": figures_of([one for one in answers["mr"] if one.real], reader, "mr")},
        "validation": {name: figures_of(each, reader, name) for name, each in held_out.items()},
    }
