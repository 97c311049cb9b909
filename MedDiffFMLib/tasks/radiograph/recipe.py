"""X-rays of a CT, view by view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.json_files import json_ready
from ...multimodal.names import UNITS
from ...multimodal.views import Setup, View, aim, from_angles, from_camera
from ..base import Case, Run, TaskResult
from .spec import Radiograph

if TYPE_CHECKING:
    from ...multimodal.radiograph import Radiograph as Shot

CUT_OFF = (
    "{view}: toward the ends of the scan rays pass through a part of the body only, so that the X-ray fades there."
)
CROPPED = "The scan is cut out of the body: what lay around it is missing in the X-rays."


def radiograph(task: Radiograph, case: Case, run: Run) -> TaskResult:
    """X-rays of a CT on detectors that stand behind the body.

    Returns:
        ``radiograph`` and ``radiograph_<view>``: (1, j, i) float32, each with the geometry of its detector.
        facts: ``unit``; ``views``: for each output the view's name, source (RAS mm, None for parallel rays), distance
        from source to detector, pixel edge, corners of the detector, and whether the scan's ends cut no ray;
        ``windows``: for each output the values to show as black and as white.

    Raises:
        InputError: the scan holds air alone, or the source would stand in the body.
    """
    from ...multimodal.radiograph import Patient

    views = _views(task)
    meter = run.meter(len(views) + 1, "finding the body")
    meter.check()
    patient = Patient(case.scan, task.table, run.device)
    setup = Setup(None if task.parallel else task.source_distance, task.gap, task.pixels, task.field, task.complete)
    for view in views:
        aim(view, patient.frame, setup)  # all of them can be taken, or none is
    meter.advance(stage=views[0].name)
    result = TaskResult(facts={"unit": UNITS[task.look], "views": {}, "windows": {}})
    if patient.frame.cropped:
        result.warnings.append(CROPPED)
    for number, view in enumerate(views):
        name = task.outputs[0].name if number == 0 else f"{task.outputs[0].name}_{view.name}"
        shot = patient.radiograph(view, setup, task.look)
        result.volumes[name] = shot.picture.pixels[None]
        result.ijk_to_ras[name] = shot.beam.picture_to_ras
        result.facts["views"][name] = _facts(shot)
        result.facts["windows"][name] = list(shot.picture.window)
        if not shot.complete:
            result.warnings.append(CUT_OFF.format(view=view.name))
        meter.advance(stage=views[min(number + 1, len(views) - 1)].name)
    return result


def _views(task: Radiograph) -> list[View]:
    """Directions of the views that are asked for."""
    camera = task.camera or (0.0,) * 9
    return [
        from_camera(camera[:3], camera[3:6], camera[6:]) if angles is None else from_angles(angles)
        for angles in task.angles()
    ]


def _facts(shot: Shot) -> dict[str, Any]:
    """Facts of where an X-ray was taken from, JSON-ready."""
    beam = shot.beam
    return json_ready(
        {
            "view": shot.view.name,
            "source_ras_mm": beam.source,
            "source_to_detector_mm": None if beam.source is None else beam.source_depth,
            "detector_corners_ras_mm": beam.frustum(),
            "pixel_mm": float(np.linalg.norm(beam.picture_to_ras[:3, 0])),
            "complete": shot.complete,
        }
    )
