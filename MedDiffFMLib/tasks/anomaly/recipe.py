"""Anomaly map: how unusual each place of a CT is, as a z-score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InputError, ModelError
from ..base import Case, Run, TaskResult
from .spec import Anomaly

if TYPE_CHECKING:
    from ...core.progress import ProgressMeter
    from ...inference.engine import Engine
    from ...models.checkpoint import FoundationModel
    from ...preprocessing.working_image import WorkingImage
    from .detector import Detector


HEALTHY_STEPS = 1
LOOKING = 1
"""The detector takes about as long as a network evaluation of what was found."""
HEALTHY_MARGIN_MM = 4.0


def anomaly(parameters: Anomaly, case: Case, run: Run) -> TaskResult:
    """Mark what the prior would not expect.

    By default the detector judges each voxel by what the CT looks like around it (``detector``). With ``cubes`` the
    prior does: cubes of each calibrated size are hidden in turn, the model says what it expects in them, and the
    difference is divided by what it leaves on normal tissue; the map is the root mean square over the sizes.
    What is listed is then filled, as ``inpaint`` would, to show the tissue that the model expects there.

    Args:
        case: its mask is where to search; the whole body when None.

    Returns:
        ``anomaly`` (z-score, 0 outside the body), ``healthy`` (HU, the input with its findings filled),
        ``uncertainty`` (HU, how far normal tissue of that kind usually is from what the model expects), on the
        input's grid, and a table of findings, most conspicuous first, each with the reason.

    Raises:
        ModelError: the weights carry no calibration.
    """
    from ...conditioning.region import body_mask
    from ...preprocessing.working_image import changed, working_image
    from .detector import shipped_detector
    from .findings import find_regions
    from .masked_prediction import lattices
    from .reasons import reasons
    from .z_score import usual_spread

    volume, model = case.scan, run.model
    settings = _settings(model)
    image = working_image(volume, settings["spacing"], region=run.region, anatomy=case.anatomy)
    body = body_mask(image.hounsfield)
    search = _search_area(image, body, case.mask)
    if parameters.method == "cubes":
        edges = [float(key) for key in settings["levels"]]
        evaluations = len(edges) * lattices(settings["sets"]) + HEALTHY_STEPS
        meter = run.meter(evaluations)
        score, usual = _cubes_score(image, model.engine, settings, search, run.seed, meter)
        facts: dict[str, Any] = {"cube_edges_mm": edges}
        detector = None
    else:
        evaluations = HEALTHY_STEPS
        meter = run.meter(LOOKING + HEALTHY_STEPS, "looking at each place")
        detector = shipped_detector()
        score = _detector_score(detector, image, body, search, meter)
        usual = usual_spread(image.hounsfield, settings, image.region, image.spacing_kji) * search
        facts = {"detector_sha256": detector.sha256}
    volumes = {"anomaly": image.on_input(score)}
    found = find_regions(
        volumes["anomaly"], volume, parameters.threshold, parameters.minimum_volume, case.anatomy, parameters.at_most
    )
    meter.stage = "filling what was found"
    numbered = _numbers_on_grid(image, found.numbered)
    change = expected_change(image, numbered > 0, model, run.seed, meter)
    why = reasons(detector, image.hounsfield, change, body, numbered, image.spacing_kji)
    for row in found.rows:
        row["reason"] = why.get(row["number"], "")
    image = image.without_voxels()
    volumes["healthy"] = changed(volume, image.slabs_on_input(change)) if change.any() else np.array(volume.voxels)
    volumes["uncertainty"] = image.on_input(usual)
    facts |= {
        "region": image.region,
        "method": parameters.method,
        "working_spacing_mm": settings["spacing"],
        "findings": len(found.rows),
        "regions_above_threshold": found.count,
        "network_evaluations": evaluations,
    }
    return TaskResult(volumes, {"findings": found.rows}, facts=facts, regions={"findings": found.numbered})


def _detector_score(
    detector: Detector, image: WorkingImage, body: np.ndarray, search: np.ndarray, meter: ProgressMeter
) -> np.ndarray:
    """z-score of a detector, 0 outside the search area."""
    from .detector import smoothed_odds
    from .local_features import NAMES

    def looked() -> None:
        meter.advance(LOOKING / len(NAMES))

    odds = smoothed_odds(detector, image.hounsfield, body, search, image.spacing_kji, looked)
    score = np.zeros(image.shape, np.float32)
    score[search] = detector.z_score(odds[:, search])
    return score


def _numbers_on_grid(image: WorkingImage, numbered: np.ndarray) -> np.ndarray:
    """Numbers on the input's voxels -> int32 on the working grid: that of the input voxel at each listed place."""
    result = np.zeros(image.shape, np.int32)
    voxels = np.argwhere(image.mask_on_grid(numbered > 0) > 0.5)
    to_input = np.linalg.inv(image.volume.ijk_to_ras) @ image.grid.ijk_to_ras
    there = np.rint(voxels[:, ::-1] @ to_input[:3, :3].T + to_input[:3, 3]).astype(int)[:, ::-1]
    there = np.clip(there, 0, np.array(numbered.shape) - 1)
    result[tuple(voxels.T)] = numbered[tuple(there.T)]
    return result


def _cubes_score(
    image: WorkingImage,
    engine: Engine,
    settings: dict[str, Any],
    search: np.ndarray,
    seed: int,
    meter: ProgressMeter,
) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square of the z-scores over the sizes of cubes, and mean of the usual spreads in HU; 0 elsewhere."""
    from .masked_prediction import predict_masked
    from .z_score import z_score

    squares, usual = np.zeros(image.shape, np.float32), np.zeros(image.shape, np.float32)
    edges = [float(key) for key in settings["levels"]]
    for n, edge in enumerate(edges):
        meter.stage = f"looking at hidden cubes, size {n + 1} of {len(edges)}"
        found = predict_masked(
            image,
            engine,
            edge,
            smoothing=settings["smoothing"],
            sets=settings["sets"],
            seed=seed,
            meter=meter,
            wanted=search,
        )
        z, spread = z_score(found, settings, image.region, image.spacing_kji)
        squares += np.square(z, out=z)
        usual += spread
    return np.sqrt(squares / len(edges)) * search, usual / len(edges) * search


def expected_change(
    image: WorkingImage, found: np.ndarray, model: FoundationModel, seed: int, meter: ProgressMeter
) -> np.ndarray:
    """Change that filling the found voxels would make, HU on the working grid; zeros where nothing was found."""
    import torch

    from ...conditioning.region import grown
    from ...inference.sliding_window import SlidingWindowDenoiser
    from ..inpaint.recipe import sample_filling
    from ..inpaint.spec import Inpaint

    if not found.any():
        meter.advance(HEALTHY_STEPS)
        return np.zeros(image.shape, dtype=np.float32)
    hole = torch.from_numpy(grown(found, HEALTHY_MARGIN_MM, image.spacing_kji))[None, None].float()
    known = image.network_input()
    condition = image.condition.filling(known[0, 0], hole[0, 0])
    denoiser = SlidingWindowDenoiser(model.engine, condition, image.shape, meter, wanted=hole[0, 0] > 0)
    settings = Inpaint(steps=HEALTHY_STEPS)
    generator = torch.Generator().manual_seed(seed)
    filled = sample_filling(denoiser, known, hole, condition, settings, generator)
    return (filled - known).mul_(1000)[0, 0].numpy()


def _settings(model: FoundationModel) -> dict[str, Any]:
    """The calibration, which also fixes spacing, cubes and smoothing: other settings would not be comparable."""
    if not model.calibration or "sets" not in model.calibration:
        raise ModelError(
            f"The model {model.name} carries no calibration of this version on normal tissue, so there is no z-score.",
            "Run `meddifffm calibrate` on it, or choose a calibrated model.",
        )
    return model.calibration


def _search_area(image: WorkingImage, body: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Area to search: the body less its rim, inside the mask."""
    from .detector import search_area

    inside = search_area(body, image.spacing_kji)
    if mask is not None:
        inside &= image.mask_on_grid(mask) > 0.5
        if not inside.any():
            raise InputError("The mask does not overlap the body.", "Paint the mask inside the body, or leave it out.")
    return inside
