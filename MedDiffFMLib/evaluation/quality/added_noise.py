"""Noise of a known kind and level, added to a part of a CT: what denoising is asked, and what its estimate must be.

Kinds:

* ``projections``: Poisson and electronic noise of the rays, back-projected (:mod:`.low_dose_noise`): correlated,
  streaky, stronger in the middle of the body;
* ``ramp``: stationary, with the spectrum that filtered back-projection gives white noise of the projections, its power
  proportional to the frequency times the squared window (Riederer et al. 1978, Phys Med Biol 23:446);
* ``white``: independent in every voxel.

``dose`` is the older question: a quarter of the dose, on the whole volume.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...imaging.volume import Box, Volume, thinned
from ...preprocessing.noise_estimate import COARSE_MM
from .cases import LoadedCase
from .degradations import Plan, quarter_dose
from .low_dose_noise import incident_photons, low_dose_noise
from .own_noise import own_noise
from .regions import depth, soft_tissue

KINDS = ("dose", "projections", "ramp", "white")
BOX_MM = 40.0
BOX_SLICES = 16
BOX_PIXELS = 120
"""Extent of a part along the patient, slices in it at most, and pixels across: two windows of the network that share
eight. What is stored depends on it: raise ``degradations.VERSION`` with it."""
SCORED = 6
"""Slices in the middle that are scored: the network sees what lies beyond, and methods that work slice by slice are
spared the rest."""
TISSUE_MM = 4.0
FEWEST_VOXELS = 1000


@dataclass(frozen=True)
class NoisyPart:
    """A question of the denoising task.

    Attributes:
        group: its name in the report; empty for the quarter dose.
        clean, noisy: the truth and what a method gets, float32 HU (k, j, i).
        body: where PSNR and SSIM count.
        scored: the slices that count.
        told: standard deviation of the added noise over the body, HU.
        added: the same in soft tissue; NaN where there is too little.
        own: noise that the scan itself has there, estimated; NaN where there is too little soft tissue or pixels are so
            coarse that what stands out from a blur of one pixel is anatomy.
        tell: whether the model is run a second time, with the level given.
    """

    group: str
    clean: Volume
    noisy: np.ndarray
    body: np.ndarray
    scored: slice
    told: float
    added: float = float("nan")
    own: float = float("nan")
    tell: bool = False

    @property
    def noise(self) -> np.ndarray:
        """Noise that was added, HU."""
        return self.noisy - self.clean.voxels

    @property
    def total(self) -> float:
        """Added and own noise together: independent, so their squares add."""
        return float(np.hypot(self.added, self.own))


def noisy_voxels(loaded: LoadedCase, plan: Plan) -> dict[str, np.ndarray]:
    """``noisy``: int16 HU as a scanner stores it, of the question that ``plan`` has one of; slow for projections."""
    kind = plan.noise_kinds[0]
    if kind == "dose":
        return quarter_dose(loaded, plan)
    box = _box(loaded)
    slab = box[0]
    seed = plan.case_seed(loaded.case.name)
    noise = added_noise(
        loaded.volume.voxels[slab], loaded.volume.spacing, loaded.body[slab], kind, plan.noise_levels_hu[0], seed
    )
    noisy = np.clip(np.rint(loaded.volume.voxels[slab] + noise), -1024, 3071).astype(np.int16)
    return {"noisy": np.ascontiguousarray(noisy[:, box[1], box[2]])}


def noisy_part(loaded: LoadedCase, plan: Plan, noisy: np.ndarray) -> NoisyPart:
    """The question that ``plan`` has one of, from what :func:`noisy_voxels` made."""
    kind, noisy = plan.noise_kinds[0], noisy.astype(np.float32)
    if kind == "dose":
        level = float((noisy - loaded.volume.voxels)[loaded.body].std())
        return NoisyPart("", loaded.volume, noisy, loaded.body, slice(None), level)
    box = _box(loaded)
    voxels, body = np.ascontiguousarray(loaded.volume.voxels[box]), loaded.body[box]
    clean = Volume(voxels, _moved(loaded.volume.ijk_to_ras, box), whole=thinned(loaded.volume))
    first = (len(voxels) - SCORED + 1) // 2 if len(voxels) > SCORED else 0
    group = f"{kind} {plan.noise_levels_hu[0]:g} HU"
    level = float((noisy - voxels)[body].std()) if body.any() else float("nan")
    part = NoisyPart(group, clean, noisy, body, slice(first, first + SCORED), level, tell=bool(plan.told_levels_hu))
    added, own = _levels(loaded, part, box)
    return replace(part, added=added, own=own)


def added_noise(
    volume_hu: np.ndarray, spacing: tuple[float, float, float], body: np.ndarray, kind: str, level_hu: float, seed: int
) -> np.ndarray:
    """Noise of a kind, float32 HU (k, j, i).

    Args:
        volume_hu: whole axial slices, because every ray crosses the patient.
        body: mask over which the level of ``projections`` holds, as the root of the mean variance.
        level_hu: standard deviation.
    """
    if kind == "projections":
        # A quarter of the dose adds three times the variance of the full dose, and more where few photons arrive.
        incident = incident_photons(volume_hu, spacing, body, level_hu / np.sqrt(3))
        noise = low_dose_noise(volume_hu, spacing, incident, 0.25, seed)
        return noise * np.float32(level_hu / max(float(noise[body].std()), 1e-6))
    white = np.random.default_rng(seed).standard_normal(volume_hu.shape, dtype=np.float32)
    if kind == "white":
        return level_hu * white
    return level_hu * ramp_noise(white, spacing)


def ramp_noise(white: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """White noise of variance 1, (k, j, i), filtered slice by slice to the spectrum of filtered back-projection.

    The power is f (1/2 + 1/2 cos(pi f / f_N))^2, a ramp under a Hann window that ends at the Nyquist frequency f_N of
    the coarser pixel edge; scaled so that the variance stays 1.
    """
    from scipy.fft import irfft2, rfft2

    rows, columns = white.shape[1:]
    across, along = np.fft.rfftfreq(columns, spacing[0]), np.fft.fftfreq(rows, spacing[1])
    share = np.minimum(np.hypot(along[:, None], across[None]) * 2 * max(spacing[:2]), 1.0)
    response = np.sqrt(share) * (0.5 + 0.5 * np.cos(np.pi * share))
    # rfft2 holds one half of the plane; columns in between stand for two.
    twice = np.full(len(across), 2.0)
    twice[0] = 1.0
    if columns % 2 == 0:
        twice[-1] = 1.0
    response /= np.sqrt((response**2 * twice).sum() / (rows * columns))
    return irfft2(rfft2(white) * response.astype(np.float32), s=(rows, columns)).astype(np.float32)


def _levels(loaded: LoadedCase, part: NoisyPart, box: Box) -> tuple[float, float]:
    """``added`` and ``own`` in soft tissue away from its edges, where noise is estimated; NaN: it cannot be told."""
    spacing, whole = loaded.volume.spacing, loaded.volume.voxels[box[0]]
    tissue = depth(soft_tissue(whole, spacing, loaded.body[box[0]]), spacing)[:, box[1], box[2]] > TISSUE_MM
    if np.count_nonzero(tissue) < FEWEST_VOXELS:
        return float("nan"), float("nan")
    own = own_noise(part.clean.voxels, tissue) if max(spacing[:2]) < COARSE_MM else float("nan")
    return float(part.noise[tissue].std()), own


def _box(loaded: LoadedCase) -> Box:
    """Slices in the middle of the case, and the part around the middle of the body in them."""
    slices, rows, columns = loaded.volume.voxels.shape
    count = min(slices, BOX_SLICES, max(4, int(BOX_MM / loaded.volume.spacing[2] + 1e-3)))
    first = (slices - count) // 2
    body = loaded.body[first : first + count]
    middle = np.argwhere(body.any(axis=0)).mean(axis=0) if body.any() else np.array([rows, columns]) / 2
    j, i = (_around(float(m), n) for m, n in zip(middle, (rows, columns), strict=True))
    return slice(first, first + count), j, i


def _around(middle: float, length: int) -> slice:
    """At most :data:`BOX_PIXELS` of a line, around a place."""
    count = min(length, BOX_PIXELS)
    first = int(np.clip(round(middle - count / 2), 0, length - count))
    return slice(first, first + count)


def _moved(ijk_to_ras: np.ndarray, box: Box) -> np.ndarray:
    """Place of the part."""
    matrix = ijk_to_ras.copy()
    matrix[:3, 3] += ijk_to_ras[:3, :3] @ np.array([box[2].start, box[1].start, box[0].start], dtype=float)
    return matrix
