"""How well facts are read in images: answers beside the truth, the rules that they allow, and what these are worth."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...multimodal.aligned import AlignedEncoders
from ...multimodal.fact_calibration import interval_scale, lower_bound, precision_of, word_threshold
from ...multimodal.fact_reader import USEFUL, FactReader, Rules, look
from ...multimodal.fact_slots import NUMBERS, PRESENT, READ, Key, Standing, shown, values_of
from ...multimodal.fact_summary import ABSENT, SHOWN, Summary
from ...multimodal.facts.fact import Statement
from ...multimodal.xray_piece import centered
from .box_pool import VIEWS, Boxes
from .whole_mrs import WholeMR


@dataclass(frozen=True)
class Answer:
    """What is drawn of one image, and what is true of it."""

    patient: str
    summary: Summary
    facts: Sequence[Statement]

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
            yield Answer(mr.patient, reader.read(look(encoders, "mr", tiles.boxes), "mr", tiles.places), mr.facts)


@dataclass(frozen=True)
class Judged:
    """Answers to one slot where the truth is known.

    Attributes:
        patient: (n,) numbers.
        answer, truth: (n,) words or numbers.
        sure: (n,) sureness of the word, or expected error of the number.
    """

    patient: np.ndarray
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
            rows.append((names[one.patient], drawn[0], truth, drawn[1]))
    patient, answer, truths, sure = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Judged(np.array(patient, int), np.array(answer), np.array(truths), np.array(sure, float))


def rules_of(answers: Sequence[Answer], modality: str, standing: Standing) -> Rules:
    """How sure one has to be, by the answers about patients whom the flow was not trained on."""
    words, numbers = {}, {}
    for key in READ[modality]:
        found = judged(answers, key)
        if key in NUMBERS and key not in standing.lines:
            continue
        if key not in NUMBERS:
            words[key] = word_threshold(found.sure, found.right, found.patient)
            continue
        error = np.abs(found.answer.astype(float) - found.truth.astype(float))
        numbers[key] = interval_scale(error, found.sure, found.patient, USEFUL * standing.spread(key))
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
    middle = float(standing.to_value(key, np.zeros(1))[0])
    return {
        "images": len(pairs), "patients": len(set(patient.tolist())), "error": _mean(np.abs(value - truth)),
        "usual_error": _mean(np.abs(middle - truth)), "said": _mean(told), "said_patients": patients,
        "precision": held, "width": _mean(ends[:, 1] - ends[:, 0]),
    }  # fmt: skip


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def halves(answers: Sequence[Answer]) -> tuple[list[Answer], list[Answer]]:
    """The answers of two halves of the patients, by a hash of their names."""
    first = {one.patient for one in answers if zlib.crc32(one.patient.encode()) % 2}
    return [one for one in answers if one.patient in first], [one for one in answers if one.patient not in first]
