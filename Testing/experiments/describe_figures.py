"""Judges the sentences of ``describe`` by what others say of the same CTs: the figures of docs/results/describe.md.

    python -m Testing.experiments.describe_figures DATA --role TEST

DATA has an ``index.json`` with ``file``, ``role``, ``modality``, ``region`` (words that tell region and contrast
agent), ``spacing``, ``mask`` and ``labels`` of each scan, and ``<role>/text/*_nodules.json`` with nodules that readers
outlined. What these do not tell is judged by SimpleITK, with methods that share no code with the library.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import minimum_filter, uniform_filter

from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.multimodal.facts.grammar import write
from MedDiffFMLib.multimodal.facts.measure import measure

REGIONS = {
    "head and neck": r"head|neck|cranial", "chest": r"thorax|heart|lung nodule",
    "abdomen": r"abdomen|lumbar|liver case", "pelvis": r"pelvis|sacrum|thigh", "whole body": r"^trunk|neck base to",
}  # fmt: skip
"""What the words must hold for a region to be right, those of the margins left out."""
MARGINS = (
    r"\+ (?:upper abdomen|lung bases|lower thorax|thoracic inlet|neck base|liver dome)|to upper thorax|lower thorax to"
)
WITHOUT = r"non-contrast|low-dose PET|cadaver"
WITH = r"IV contrast|IV\+oral|portal venous|CTPA"
LEVELS = {
    "head": r"head|cranial", "neck": r"neck", "chest": r"thorax|thoracic|lung bases|trunk|neck base to|chest",
    "abdomen": r"abdomen|upper abdomen|liver|trunk|neck base to|lumbar", "pelvis": r"pelvis|trunk|neck base to|sacrum",
    "legs": r"thigh|leg",
}  # fmt: skip
HIT_MM = 10.0
LUNG_SHARE = 0.15
OF_BODIES = ("height", "body_volume", "fat", "fat_density", "soft_density", "lungs", "low_attenuation", "dense_lung")


class Truth:
    """What others say of one scan."""

    def __init__(self, folder: Path, row: dict[str, Any]) -> None:
        self.row, self.words = row, row["region"]
        self.image = sitk.ReadImage(str(folder / row["file"]))
        self.voxels = sitk.GetArrayFromImage(self.image).astype(np.int16)
        self.ml = float(np.prod(self.image.GetSpacing())) / 1000
        mask = folder / row["mask"] if row["mask"] else None
        self.labels = sitk.GetArrayFromImage(sitk.ReadImage(str(mask))) if mask and mask.exists() else None
        self.nodules = _nodules(folder, row)
        self.body = self._body()
        self.crop = bool(re.search(r"ROI|small field of view|box", self.words))
        """The field of view lies inside the body, which no threshold finds then."""

    def lungs(self, side: str = "") -> float | None:
        """Volume in ml of outlined lungs, else of air in the body by threshold; one side only if outlined."""
        words = rf"lung(?!\s).*{side}" if side else r"lung(?!\s)"
        numbers = [int(n) for n, name in self.row["labels"].items() if re.search(words, name)]
        if self.labels is not None and numbers:
            return float(np.isin(self.labels, numbers).sum()) * self.ml
        return None if side else self._air()

    def _body(self) -> np.ndarray:
        """Largest thing above -300 HU, holes filled slice by slice."""
        pixel, row, _ = self.image.GetSpacing()
        thick = sitk.BinaryMorphologicalOpening(self.image > -300, (round(2 / pixel), round(2 / row), 0))
        parts = sitk.RelabelComponent(sitk.ConnectedComponent(thick), sortByObjectSize=True)
        body = sitk.GetArrayFromImage(parts == 1)
        for number, plane in enumerate(body):
            body[number] = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(plane)))
        return body > 0

    def _air(self) -> float | None:
        """Of the largest pieces between -980 and -400 HU in the body, closed by 6 mm; bowel gas is smaller."""
        air = (self.voxels < -400) & (self.voxels > -980) & self.body
        image = sitk.GetImageFromArray(air.astype(np.uint8))
        image.CopyInformation(self.image)
        reach = [max(1, round(6 / step)) for step in self.image.GetSpacing()]
        parts = sitk.RelabelComponent(sitk.ConnectedComponent(image), sortByObjectSize=True)
        sizes = np.bincount(sitk.GetArrayViewFromImage(parts).ravel())[1:]
        kept = int((sizes > LUNG_SHARE * sizes.max(initial=0)).sum())
        closed = sitk.BinaryMorphologicalClosing((parts > 0) & (parts <= kept), reach)
        volume = float(sitk.GetArrayFromImage(closed).sum()) * self.ml
        return volume or None

    def lung_slices(self) -> tuple[bool, float]:
        """Whether a tenth of the body is air in any slice, and the height in mm below the lowest with a fiftieth."""
        body = np.maximum(self.body.sum((1, 2)), 1)
        share = ((self.voxels < -600) & self.body).sum((1, 2)) / body
        shown = np.flatnonzero(share > 0.02)
        below = float(shown[0]) * self.image.GetSpacing()[2] if shown.size else 0.0
        return bool((share > 0.1).any()), below

    def share(self, low: float, high: float, inside: np.ndarray | None = None) -> float:
        """Percent of the body (or of a mask) between two HU."""
        values = self.voxels[self.body if inside is None else inside]
        return 100 * float(((values >= low) & (values < high)).mean())


def _nodules(folder: Path, row: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Readers' nodules (those of the whole scan for a thinner version of it); None where no reader looked."""
    stem = Path(row["file"]).stem.replace("_1mm", "")
    path = folder / row["role"].lower() / "text" / f"{stem}_nodules.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    return found if isinstance(found, list) else found["nodules"]


def judge(kind: str, values: dict[str, Any], point: tuple[float, float, float], truth: Truth) -> bool | None:
    """Whether a sentence is right; None where nobody can tell."""
    if truth.crop and kind in OF_BODIES:
        return None
    columns, rows, slices = truth.image.GetSize()
    pixel, row_mm, apart = truth.image.GetSpacing()
    words, area = truth.words, truth.body.sum((1, 2))
    inside = np.flatnonzero(area > 0.1 * area.max())
    if kind == "region":
        return bool(re.search(REGIONS[values["region"]], re.sub(MARGINS, "", words)))
    if kind == "reach":
        shown, below = truth.lung_slices()
        words += " lung bases" if shown else ""
        words += " upper abdomen" if "thorax" in words and below > 20 else ""
        return all(bool(re.search(LEVELS[values[end]], words)) for end in ("from", "to"))
    if kind == "contrast":
        known = "without" if re.search(WITHOUT, words) else "with" if re.search(WITH, words) else None
        return None if known is None else known == values["contrast"]
    if kind == "slices":
        return (values["slices"], values["columns"], values["rows"]) == (slices, columns, rows)
    if kind == "slice_spacing":
        given = truth.row["spacing"][2]
        level = "thin" if given <= 1.5 else "of medium thickness" if given <= 3.0 else "thick"
        return abs(values["spacing"] - given) < 0.02 and values["thickness"] == level
    if kind == "pixel_size":
        return abs(values["edge"] - truth.row["spacing"][0]) < 0.011
    if kind == "field_of_view":
        return abs(values["width"] - columns * pixel) < 1 and abs(values["depth"] - rows * row_mm) < 1
    if kind == "noise":
        return _near(values["noise"], _noise(truth), 0.35, 3)
    if kind == "height":
        return _near(values["height"], len(inside) * apart, 0.05, 8)
    if kind == "body_volume":
        return _near(1000 * values["volume"], float(truth.body.sum()) * truth.ml, 0.07, 100)
    if kind in ("body_width", "body_depth"):
        axis, step = (1, pixel) if kind == "body_width" else (2, row_mm)
        widest = max(np.ptp(np.flatnonzero(plane.any(axis - 1))) + 1 for plane in truth.body[inside])
        return _near(values[kind[5:]], widest * step, 0.05, 8)
    if kind == "body_area":
        return _near(values["area"], float(area.max()) * pixel * row_mm / 100, 0.05, 5)
    if kind == "fat":
        return _near(values["share"], truth.share(-190, -30), 0.15, 4)
    if kind == "fat_density":
        return _near(values["hu"], float(np.median(_between(truth, -190, -30))), 0.1, 5)
    if kind == "soft_density":
        return _near(values["hu"], float(np.median(_between(truth, -30, 160))), 0.1, 10)
    if kind == "lungs":
        return _near_or_none(values["volume"], truth.lungs())
    if kind in ("lung_right", "lung_left"):
        return _near_or_none(values["volume"], truth.lungs(kind[5:]))
    if kind == "lung_balance":
        right, both = truth.lungs("right"), truth.lungs()
        return None if right is None or not both else _near(values["share"], 100 * right / both, 0, 4)
    if kind in ("low_attenuation", "dense_lung"):
        air = truth.body & (truth.voxels < -400)
        limits = (-2000, -950) if kind == "low_attenuation" else (-700, -400)
        return _near(values["share"], truth.share(*limits, air), 0.25, 2.5)
    if kind == "nodule":
        return _nodule(values, point, truth)
    return None


def _near(value: float, true: float, share: float, least: float) -> bool:
    return abs(value - true) <= max(share * abs(true), least)


def _near_or_none(value: float, true: float | None) -> bool | None:
    return None if true is None else _near(value, true, 0.1, 30)


def _between(truth: Truth, low: float, high: float) -> np.ndarray:
    values = truth.voxels[truth.body]
    return values[(values >= low) & (values < high)]


def _noise(truth: Truth) -> float:
    """Mode of the deviations in 7 x 7 windows of soft tissue (Christianson et al. 2015, AJR 205), as published."""
    voxels, size = truth.voxels.astype(np.float32), (1, 7, 7)
    mean, square = uniform_filter(voxels, size), uniform_filter(voxels * voxels, size)
    soft = minimum_filter(((voxels > -150) & (voxels < 250)).view(np.uint8), size) > 0
    deviation = np.sqrt(np.maximum(square - mean * mean, 0))[soft & (mean > 0) & (mean < 150)]
    counts, edges = np.histogram(deviation, bins=np.arange(0, 80, 0.5))
    return float(edges[np.convolve(counts, np.ones(5), "same").argmax()])


def _nodule(values: dict[str, Any], point: tuple[float, float, float], truth: Truth) -> bool | None:
    """Whether readers outlined a nodule there, on that side (the patient's left is positive in LPS)."""
    if truth.nodules is None:
        return None
    place = np.array(point) * (-1, -1, 1)
    near = [n for n in truth.nodules if np.linalg.norm(place - n["centroid_lps_mm"]) < HIT_MM]
    return any(_near(values["size"], n["equiv_diameter_mm"], 0.25, 4) for n in near)


def main() -> None:
    """Print the table, and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--role", nargs="+", default=["DEMO"])
    parser.add_argument("--match", default="", help="only files with this in their names (a regular expression)")
    options = parser.parse_args()
    right, wrong, missing, seconds = Counter(), Counter(), Counter(), []
    rows = json.loads((options.data / "index.json").read_text())
    rows = [row for row in rows if row["modality"] == "CT" and row["role"] in options.role]
    for row in rows:
        if not re.search(options.match, row["file"]):
            continue
        truth = Truth(options.data, row)
        start = time.process_time()
        measured = measure(read_volume(options.data / row["file"]))
        seconds.append(time.process_time() - start)
        for fact in measured.facts:
            said = fact.statement
            if fact.evidence is None:
                missing[said.kind] += 1
                continue
            verdict = judge(said.kind, said.values, fact.evidence.point, truth)
            (right if verdict else wrong if verdict is False else missing)[
                said.kind if verdict is not None else f"{said.kind} (not judged)"
            ] += 1
            if verdict is False:
                print(f"{row['file']} [{row['region']}]: {write(said)}", flush=True)
    print(f"{len(seconds)} scans, processor seconds: median {np.median(seconds):.1f}, most {max(seconds):.1f}")
    for kind in sorted({*right, *wrong, *missing}):
        total = right[kind] + wrong[kind]
        print(f"{kind:28} {right[kind]:4} of {total:4} right; not assessed or not judged {missing[kind]}")
    print(f"precision {sum(right.values())} of {sum(right.values()) + sum(wrong.values())}")


if __name__ == "__main__":
    main()
