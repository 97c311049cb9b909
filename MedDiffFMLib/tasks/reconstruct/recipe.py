"""CT from X-rays: pose, exposure, hull of the body, then the expected image of the prior under exact consistency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ...conditioning.regions import NO_REGION, NULL_REGION, REGIONS
from ...core.json_files import json_ready
from ...multimodal.names import ATTENUATION
from ...multimodal.shadow_hull import Hull, hull_of
from ...preprocessing.body_localization import BodyLocalization, box_in_mm
from ..base import Case, Run, TaskResult
from .given import GivenXray, given_xrays
from .spec import Reconstruct

if TYPE_CHECKING:
    import torch

    from ...imaging.grid import Grid
    from ...inference.sliding_window import SlidingWindowDenoiser
    from ...models.checkpoint import FoundationModel
    from ...multimodal.beam import Beam
    from ...multimodal.xray_consistency import XrayConsistency
    from ...multimodal.xray_regression import ExpectedChest
    from .expected_image import Reconstruction

WHOLE = 32
"""Voxels along an edge of the coarse grid where no companion says otherwise."""
CHEST = "chest"
WITH_LUNGS = 0.78
"""Evenness below which lungs are seen."""
TRIED = (CHEST, "abdomen", "pelvis")
"""Regions that are tried where none is named."""
SPREAD_SCALE = 2.4
"""Error over the deviation of the draws, on three validation patients: 2.3 to 2.7."""
MET = 0.5
"""Percent of an X-ray that may be missing before a sentence says so."""
ONE_SIDE = "X-rays from one side leave the depth open: the body is taken to be as deep as bodies of its width are."
NOT_EXPOSED = (
    "The exposure of the X-rays is not known, and was chosen so that they show a usual body: not validated. "
    "Trust no HU."
)
NOT_POSED = "Where source and detector stood was guessed from the names of the views: not validated."
MISSED = "X-ray {number} ({name}): {share:.1f} % of it is not met. Its pose or exposure may be wrong."


def reconstruct(task: Reconstruct, case: Case, run: Run) -> TaskResult:
    """CT whose projections are X-rays.

    Returns:
        ``ct`` (HU, int16) and ``uncertainty`` (HU, float32) on cubic voxels around the body; ``residual`` and
        ``residual_<name>``: attenuation that the CT lacks in each X-ray, on its pixels.
        facts: ``region``; ``companion``; ``views``: for each residual the pose, ``missed_percent`` with pixels as large
        as voxels and ``missed_fine_percent`` with all pixels; ``windows``.

    Raises:
        InputError: an X-ray without a pose, X-rays of nothing in common, or more voxels than fit.
    """
    import torch

    from .expected_image import LEVELS, bettered

    meter = run.meter(len(LEVELS) + 2 + int(task.detail), "outlining the body")
    meter.check()
    xrays = given_xrays(task, case)
    hull = hull_of([xray.shadow for xray in xrays], task.spacing)
    meter.advance(stage="drawing usual bodies")
    seed = torch.Generator().manual_seed(run.seed)
    with _inventor(run.model) as (edge, companion):
        grid = _coarse_grid(hull.grid, edge)
        region = _region(run, grid, hull, xrays)
        found, consistency, fits = _coarse_image(task, run, (grid, hull, region), xrays, seed, meter)
    image = found.image
    if task.detail:
        meter.stage = "adding detail"
        image = bettered(image, _denoiser(run.model, hull, hull.grid, region), consistency, seed)
        meter.advance()
    facts = {"region": region, "companion": companion, "spacing_mm": task.spacing}
    result = _volumes(hull, image, found.spread)
    result.facts = {**facts, "views": {}, "windows": {}}
    _add_residuals(result, xrays, fits, image, hull, consistency)
    if hull.one_side:
        result.warnings.append(ONE_SIDE)
    if task.pixels != ATTENUATION:
        result.warnings.append(NOT_EXPOSED)
    if task.views:
        result.warnings.append(NOT_POSED)
    return result


@contextmanager
def _inventor(model: FoundationModel) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Context in which the engine runs the network that knows whole bodies: edge of its windows, and its facts."""
    from ...models.companion import find_companion, load_companion

    name = find_companion(model)
    if name is None:
        yield WHOLE, None
        return
    denoiser, window, facts = load_companion(name, model)
    with model.engine.running(denoiser):
        yield window, facts


def _coarse_grid(grid: Grid, edge: int) -> Grid:
    from ...imaging.grid import same_box

    k, j, i = (min(edge, n) for n in grid.shape)
    return same_box(grid, (k, j, i))


def _denoiser(model: FoundationModel, hull: Hull, grid: Grid, region: str | None) -> SlidingWindowDenoiser:
    """Prior of the body in the hull on a grid."""
    import torch

    from ...conditioning.condition import Condition
    from ...inference.sliding_window import SlidingWindowDenoiser

    body = BodyLocalization(*box_in_mm(hull.grid, *hull.box), region)
    k, j, i = (torch.from_numpy(line) for line in body.coordinates(grid))
    number = NULL_REGION if region is None else REGIONS.index(region)
    condition = Condition(grid.spacing[::-1], (k, j, i), number)
    return SlidingWindowDenoiser(model.engine, condition, grid.shape)


def _region(run: Run, grid: Grid, hull: Hull, xrays: Sequence[GivenXray]) -> str | None:
    """The region as named; else the chest where lungs are seen, or the one whose average body casts a shadow most like
    the X-rays: that alone took two chests for pelves."""
    import torch

    from .expected_image import FIRST_SIGMA

    if run.region is not None:
        return None if run.region == NO_REGION else run.region
    if _evenness(hull, xrays) < WITH_LUNGS:
        return CHEST
    noise = FIRST_SIGMA * torch.randn((1, 1, *grid.shape), generator=torch.Generator().manual_seed(run.seed))
    unlike = {}
    for region in TRIED:
        body = _denoiser(run.model, hull, grid, region)(noise, FIRST_SIGMA)
        shadows = _cast(body, hull, [xray.coarse_beam for xray in xrays])
        pairs = [(x.coarse.absolute(x.coarse.fit(shadow)), shadow) for x, shadow in zip(xrays, shadows, strict=True)]
        unlike[region] = sum(float(np.square(mine - usual).mean()) for mine, usual in pairs)
    return min(unlike, key=lambda region: unlike[region])


def _evenness(hull: Hull, xrays: Sequence[GivenXray]) -> float:
    """How even the bodies in the X-rays are, see :meth:`XrayConsistency.evenness`."""
    import torch

    from ...multimodal.xray_consistency import XrayConsistency, XrayView

    views = [XrayView(xray.coarse_beam, torch.from_numpy(xray.coarse.relative).float()) for xray in xrays]
    return XrayConsistency(views, hull.grid, torch.from_numpy(hull.room)).evenness()


def _cast(body: torch.Tensor, hull: Hull, beams: Sequence[Beam]) -> list[np.ndarray]:
    """Attenuation (j, i) that a coarse body (1, 1, k, j, i) in the hull would cast into each beam."""
    import torch

    from ...multimodal.xray_consistency import shadow_of
    from ..synthesize.cascade import upsample

    image = upsample(body, hull.grid.shape)[0, 0]
    image = torch.where(torch.from_numpy(hull.room), image, -1.0)
    return [shadow_of(image, hull.grid, beam).numpy() for beam in beams]


def _coarse_image(
    task: Reconstruct,
    run: Run,
    place: tuple[Grid, Hull, str | None],
    xrays: Sequence[GivenXray],
    seed: torch.Generator,
    meter: Any,
) -> tuple[Reconstruction, XrayConsistency, list[tuple[float, float]]]:
    """Expected image, what holds it to the X-rays, and the exposure of each."""
    import torch

    from ...multimodal.xray_consistency import EXACT, LOOSE, XrayConsistency, XrayView
    from .expected_image import average_body, expected_image

    grid, hull, region = place
    denoise = _denoiser(run.model, hull, grid, region)
    bodies = average_body(denoise, grid.shape, task.draws, seed)
    meter.advance(stage="meeting the X-rays")
    shadows = _cast(bodies.mean(0, keepdim=True), hull, [xray.coarse_beam for xray in xrays])
    fits = [xray.coarse.fit(shadow) for xray, shadow in zip(xrays, shadows, strict=True)]
    views = [
        XrayView(xray.coarse_beam, torch.from_numpy(xray.coarse.absolute(fit)).float())
        for xray, fit in zip(xrays, fits, strict=True)
    ]
    damping = EXACT if task.pixels == ATTENUATION else LOOSE
    consistency = XrayConsistency(views, hull.grid, torch.from_numpy(hull.room), damping=damping)
    guess = _regressed(hull, consistency) if region == CHEST else None
    return expected_image(bodies, denoise, consistency, seed, meter, guess), consistency, fits


def _regressed(hull: Hull, consistency: XrayConsistency) -> ExpectedChest | None:
    """What the regression expects of a frontal and a lateral X-ray; None of others."""
    from ...multimodal.xray_regression import expected_chest, shipped_regression

    return expected_chest(shipped_regression(), hull, consistency)


def _volumes(hull: Hull, image: torch.Tensor, spread: torch.Tensor) -> TaskResult:
    """CT and uncertainty in the planes that rays pass through."""
    matrix = hull.grid.ijk_to_ras.copy()
    matrix[:3, 3] += hull.shown.start * matrix[:3, 2]
    hounsfield = np.rint(1000 * image[hull.shown].numpy()).astype(np.int16)
    uncertainty = (1000 * SPREAD_SCALE * spread.numpy() * hull.room)[hull.shown].astype(np.float32)
    return TaskResult(
        {"ct": hounsfield, "uncertainty": uncertainty}, ijk_to_ras={"ct": matrix, "uncertainty": matrix.copy()}
    )


def _add_residuals(
    result: TaskResult,
    xrays: Sequence[GivenXray],
    fits: Sequence[tuple[float, float]],
    image: torch.Tensor,
    hull: Hull,
    consistency: XrayConsistency,
) -> None:
    """Residual of each view as a picture and in percent, and a sentence where it is large."""
    from ...multimodal.xray_consistency import shadow_of

    for number, (xray, fit, missed) in enumerate(zip(xrays, fits, consistency.relative(image), strict=True), 1):
        name = "residual" if number == 1 else f"residual_{xray.name}"
        measured = xray.exposure.absolute(fit)
        lacking = (measured - shadow_of(image, hull.grid, xray.beam).numpy()).astype(np.float32)
        fine = float(np.linalg.norm(lacking) / max(np.linalg.norm(measured), 1e-6))
        limit = max(float(np.percentile(np.abs(lacking), 99)), 1e-3)
        result.volumes[name] = lacking[None]
        result.ijk_to_ras[name] = xray.picture.ijk_to_ras
        result.facts["windows"][name] = [-limit, limit]
        result.facts["views"][name] = json_ready(
            {
                "source_ras_mm": xray.beam.source,
                "detector_corners_ras_mm": xray.beam.frustum(),
                "missed_percent": round(100 * missed, 3),
                "missed_fine_percent": round(100 * fine, 3),
                "exposure": {"scale": fit[0], "offset": fit[1]},
            }
        )
        if 100 * missed > MET:
            result.warnings.append(MISSED.format(number=number, name=xray.name, share=100 * missed))
