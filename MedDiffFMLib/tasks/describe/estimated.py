"""Estimates about an MR or an X-ray: what the flow of facts reads in it, as far as it was calibrated to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InputError
from ...multimodal.facts.estimated import number_sentence, rounded, word_sentence
from ...multimodal.facts.fact import Statement
from ...multimodal.facts.grammar import write
from ...multimodal.facts.kinds import KINDS, STRANGE, VAGUE
from ...multimodal.facts.slots import Number
from ..base import Case, Run, TaskResult
from .spec import MR, Describe

if TYPE_CHECKING:
    from ...imaging.volume import Volume
    from ...multimodal.encoders import Vectors
    from ...multimodal.fact_reader import Said
    from ...multimodal.fact_summary import Places

HEADING = (
    "Estimated in this {kind} by a small network, not measured, and not validated: such a sentence is right in nine of "
    "ten patients like those of its training. No radiology report. What is not said was not looked for."
)
STAGES = ("reading the image", "looking", "drawing facts")
BODY, COLOR = "body", (177, 122, 101)
_FAINT = "Nothing of a body is seen in the image."


@dataclass(frozen=True)
class Looked:
    """An image that was looked at.

    Attributes:
        body: uint8 on the image's grid, 1 where the body is.
        point: RAS mm of its middle.
        vectors, places: of its tiles; None where nothing is read in it.
        reason: why not, one of ``kinds.REASONS``.
        strangeness: above 1 an MR is unlike those in training; None for an X-ray.
    """

    body: np.ndarray
    point: tuple[float, float, float]
    vectors: Vectors | None
    places: Places | None
    reason: str = ""
    strangeness: float | None = None


def estimate(task: Describe, case: Case, run: Run) -> TaskResult:
    """Estimates about an MR or an X-ray.

    Returns:
        As :func:`.recipe.describe`; ``facts`` have ``estimated`` and, where they are numbers, an ``interval``.
        ``facts["reader"]`` has name and SHA-256 of what read them.

    Raises:
        InputError: an image without a body, or a mask or organ map beside it.
        ModelError: the reader of facts cannot be used.
    """
    from ...multimodal.fact_calibration import PRECISION
    from ...multimodal.fact_reader import find_reader

    if case.mask is not None or case.anatomy is not None:
        raise InputError(
            "A mask or an organ map is described in a CT only.", "Leave --mask and --anatomy out, or give a CT."
        )
    meter = run.meter(len(STAGES), STAGES[0])
    meter.check()
    reader, encoders = find_reader(task.reader)
    see = _look_at_mr if task.modality == MR else _look_at_xray
    looked = see(case.scan, encoders, meter)
    meter.advance(stage=STAGES[2])
    rows: list[dict[str, Any]] = []
    missing = sorted({key[0] for key in _asked(task.modality)}, key=list(KINDS).index)
    if looked.vectors is not None and looked.places is not None and task.certainty <= PRECISION:
        said = reader.sayable(reader.read(looked.vectors, task.modality, looked.places), task.modality)
        rows = _rows(said, looked, PRECISION)
        missing = [kind for kind in missing if kind not in {row["fact"] for row in rows}]
    meter.advance()
    reason = looked.reason or VAGUE
    unknown = [write(Statement(kind, unknown=reason)) for kind in missing]
    heading = HEADING.format(kind="MR" if task.modality == MR else "X-ray")
    return TaskResult(
        volumes={"evidence": looked.body},
        tables={"facts": [_table_row(number, row) for number, row in enumerate(rows, 1)]},
        texts={"description": "\n".join([heading, "", *(row["sentence"] for row in rows), *unknown, ""])},
        facts={
            "facts": rows,
            "not_assessed": [{"fact": kind, "reason": reason} for kind in missing],
            "labels": _labels(case.scan, looked.body),
            "strangeness": looked.strangeness,
            "reader": reader.facts(),
        },
    )


def _asked(modality: str) -> tuple[tuple[str, str], ...]:
    from ...multimodal.fact_slots import READ

    return READ[modality]


def _look_at_mr(volume: Volume, encoders: Any, meter: Any) -> Looked:
    """An MR on voxels of 4 mm, tile by tile; not one that is unlike those that were trained on."""
    from ...imaging.grid import from_grid
    from ...multimodal.boxes import resampled
    from ...multimodal.fact_reader import look
    from ...multimodal.familiarity import strangeness
    from ...multimodal.flow_file import shipped_flows
    from ...multimodal.mr_intensity import FAT
    from ...multimodal.mr_tiles import tiles_of
    from ...multimodal.pairs import SPACING_MM
    from ...multimodal.prepared import prepare_mr

    prepared = prepare_mr(volume)
    if not prepared.body.any():
        raise InputError(_FAINT, "Give an MR that shows one.")
    meter.advance(stage=STAGES[1])
    distance = shipped_flows("cpu").familiarity.distance(prepared.image, prepared.body, SPACING_MM)
    strange = round(strangeness(distance, prepared.body, prepared.fat_from_peak), 3)
    body = from_grid(prepared.body, prepared.grid, volume, order=0).astype(np.uint8)
    index = np.argwhere(prepared.body).mean(0)[::-1]
    point = _point(prepared.grid.ijk_to_ras, index)
    tiles = tiles_of(resampled(FAT.to_values(prepared.image), np.full(3, SPACING_MM))) if strange <= 1 else None
    if tiles is None:
        return Looked(body, point, None, None, STRANGE, strange)
    return Looked(body, point, look(encoders, "mr", tiles.boxes), tiles.places, strangeness=strange)


def _look_at_xray(picture: Volume, encoders: Any, meter: Any) -> Looked:
    """An X-ray of a piece in air."""
    from ...multimodal.exposure import SHADOW
    from ...multimodal.fact_reader import look
    from ...multimodal.fact_summary import ALONE
    from ...multimodal.xray_piece import piece_of

    body = (np.asarray(picture.voxels, np.float32) > SHADOW).astype(np.uint8)
    middle = np.argwhere(body).mean(0) if body.any() else (np.array(body.shape) - 1) / 2
    point = _point(picture.ijk_to_ras, middle[::-1])
    meter.advance(stage=STAGES[1])
    piece, reason = piece_of(picture)
    if piece is None:
        return Looked(body, point, None, None, reason)
    return Looked(body, point, look(encoders, "xray", piece[None]), ALONE)


def _point(ijk_to_ras: np.ndarray, index_ijk: np.ndarray) -> tuple[float, float, float]:
    r, a, s, _ = ijk_to_ras @ [*index_ijk, 1.0]
    return float(r), float(a), float(s)


def _rows(said: Said, looked: Looked, certainty: float) -> list[dict[str, Any]]:
    """Records of what is said, in the order of the kinds."""
    evidence = {"kind": "mask", "point_ras_mm": [round(x, 1) for x in looked.point], "mask": BODY}
    common = {"certainty": certainty, "evidence": evidence, "estimated": True}
    rows: list[dict[str, Any]] = []
    for (kind, slot), word in said.words.items():
        sentence = word_sentence(kind, slot, word)
        rows.append({"fact": kind, "values": {slot or "shown": word}, "units": {}, "sentence": sentence, **common})
    without_lung = said.words.get(("lungs", "")) != "shown"
    for (kind, slot), (value, low, high) in said.numbers.items():
        if kind == "lungs" and without_lung:
            continue
        number = KINDS[kind].slots[slot]
        assert isinstance(number, Number)
        about, *ends = rounded(kind, slot, value, low, high)
        rows.append({
            "fact": kind, "values": {slot: about}, "units": {slot: number.unit}, "interval": {slot: ends},
            "sentence": number_sentence(kind, slot, about, *ends), **common,
        })  # fmt: skip
    return sorted(rows, key=lambda row: list(KINDS).index(row["fact"]))


def _table_row(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """A sentence as a row of the table."""
    (slot, value), = row["values"].items()  # fmt: skip
    r, a, s = row["evidence"]["point_ras_mm"]
    return {
        "number": number, "sentence": row["sentence"], "fact": KINDS[row["fact"]].title, "value": value,
        "unit": row["units"].get(slot, ""), "certainty": row["certainty"], "evidence": BODY,
        "r_mm": r, "a_mm": a, "s_mm": s,
    }  # fmt: skip


def _labels(volume: Volume, body: np.ndarray) -> list[dict[str, Any]]:
    """What the numbers of the map stand for."""
    count = int(body.sum())
    return [{
        "value": 1, "name": BODY, "color": list(COLOR), "terminology": "",
        "volume_ml": round(count * volume.voxel_volume / 1000, 3), "uncertainty": None,
    }] if count else []  # fmt: skip
