"""A task with outputs of every kind, and its result on any grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedDiffFMLib.dicom.out.export import Export
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.runner.outputs import located
from MedDiffFMLib.tasks.base import Task, TaskResult
from MedDiffFMLib.tasks.output_kinds import Output, OutputKind

LIVER = "Segmentation category and type~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Anatomic codes~^^~^^"
LABELS = [{"value": 1, "name": "Liver", "color": [221, 130, 101], "terminology": LIVER}, {"value": 3, "name": "tumor"}]


def oblique_is_quick(geometries: Iterable[str]) -> list[Any]:
    """Parameters of a fixture that exports a scan: the quick tests are content with the hardest geometry."""
    return [name if name == "oblique" else pytest.param(name, marks=pytest.mark.slow) for name in geometries]


class Toy(Task):
    """Everything that a task may give."""

    name, title, sentence = "toy", "Toy", "Gives an output of every kind."
    outputs = (
        Output("denoised", OutputKind.CT),
        Output("filled", OutputKind.CT, invented=True),
        Output("noise", OutputKind.DIFFERENCE),
        Output("mr", OutputKind.MR),
        Output("radiograph", OutputKind.XRAY),
        Output("z", OutputKind.Z_SCORE, "anomaly"),
        Output("usual", OutputKind.HU_SPREAD),
        Output("lesion", OutputKind.MASK),
        Output("organs", OutputKind.LABELS),
        Output("findings", OutputKind.POINTS),
        Output("figures", OutputKind.TABLE),
        Output("words", OutputKind.TEXT),
    )


def scan(matrix: np.ndarray) -> Volume:
    """A CT of noise with metal in it."""
    voxels = np.random.default_rng(0).integers(-1024, 400, (9, 12, 11)).astype(np.int16)
    voxels[4, 5, 6] = 30000
    return Volume(voxels, matrix)


def result_on(volume: Volume) -> TaskResult:
    """Something of every kind; the lesion has a hole, an island in it and a second piece."""
    rng, shape = np.random.default_rng(1), volume.voxels.shape
    lesion, organs, regions = np.zeros(shape, bool), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    lesion[2:7, 2:10, 1:9] = True
    lesion[3:5, 3:8, 3:8] = False
    lesion[3:5, 5, 5] = lesion[5, 0, 0] = True
    organs[1:4], organs[5:, 3:] = 1, 3
    regions[2:4, 2:4, 2:4], regions[6:8, 7:9, 5:7] = 1, 2
    place = dict(zip(("r_mm", "a_mm", "s_mm"), (volume.ijk_to_ras @ [2.5, 2.5, 2.5, 1])[:3].tolist(), strict=True))
    row = {"where": "here", "volume_mm3": 10.5, "peak_z": 4.25, "mean_hu": -5.0, **place}
    volumes = {
        "denoised": volume.voxels + rng.normal(0, 3, shape).astype(np.float32),
        "filled": volume.voxels.copy(),
        "noise": rng.normal(0, 9, shape).astype(np.float32),
        "mr": rng.random(shape).astype(np.float32),
        "radiograph": rng.random((1, 30, 20)).astype(np.float32),
        "z": rng.random(shape).astype(np.float32) * 5,
        "usual": rng.random(shape).astype(np.float32) * 20,
        "lesion": lesion,
        "organs": organs,
    }
    tables = {
        "findings": [{"number": n, **row} for n in (1, 2)],
        "figures": [{"name": "left", "volume_ml": 3.0, "r_mm": None, "a_mm": "", "s_mm": None}],
    }
    elsewhere = {"radiograph": np.diag([2.0, 2.0, 1.0, 1.0])}
    return TaskResult(volumes, tables, {"words": "A text."}, {"labels": LABELS}, [], elsewhere, {"findings": regions})


def export_of(
    volume: Volume, source: Sequence[Path] = (), name: str = "case", result: TaskResult | None = None
) -> Export:
    """An export of the toy's result, or of one that is given."""
    result = result_on(volume) if result is None else result
    report = {
        "synthetic": False,
        "settings": {"task": "toy", "parameters": {"strength": 0.5}, "seed": 3},
        "model": {"name": "starter-ct", "sha256": "0123456789abcdef"},
    }
    return Export(Toy, name, volume, result, report, lambda output: located(output, volume, result), source)
