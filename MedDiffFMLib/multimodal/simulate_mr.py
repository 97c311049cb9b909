"""T1-weighted MR images simulated from CTs: endless pairs whose geometry is exact by construction.

Each tissue class has a signal drawn from a range, and muscle-like tissue a contrast that follows its HU, smoothed, so
that the CT's noise does not become the MR's. Bone is dark where it is compact and marrow inside. Then come what an MR
scanner adds: blur along the slices, a bias field, a gamma, Rician noise. Signals are in units of fat; ranges are those
of spoiled and spin-echo T1 images at 1.5 and 3 T.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIGNAL = {
    "outside": (0.0, 0.0),
    "lung": (0.01, 0.08),
    "airway": (0.0, 0.02),
    "fat": (0.95, 1.05),
    "muscle and soft tissue": (0.24, 0.42),
    "contrast-filled": (0.10, 0.45),
    "bone": (0.02, 0.10),
}
"""Range of the signal of each tissue class, in units of fat."""
MARROW = (0.45, 0.95)
"""Of what lies inside a bone; the largest is fat's."""
COMPACT_HU = (200.0, 600.0)
"""Bone is marrow below the first and compact above the second."""
GAS_REACH_MM = 3.0
"""So near to gas a voxel of the fat class is taken for tissue that is mixed with gas."""
SLOPE = (-0.004, 0.002)
"""Change of the signal of muscle-like tissue per HU around 50 HU: fluid is dark on T1."""


@dataclass(frozen=True)
class MRContrast:
    """Contrast of one simulated scanner and sequence.

    Attributes:
        signal: of the seven tissue classes, in units of fat.
        marrow: signal of marrow.
        slope: change of soft tissue's signal per HU.
        gamma: exponent on the signal.
        bias: largest change of the bias field, as a factor.
        noise: standard deviation of each of the two channels of the Rician noise.
        blur_mm: standard deviations (k, j, i) of the blur.
    """

    signal: tuple[float, ...]
    marrow: float
    slope: float
    gamma: float
    bias: float
    noise: float
    blur_mm: tuple[float, float, float]


def draw_contrast(generator: np.random.Generator) -> MRContrast:
    """A random scanner and sequence."""
    low, high = np.array(list(SIGNAL.values())).T
    return MRContrast(
        signal=tuple(generator.uniform(low, high).tolist()),
        marrow=float(generator.uniform(*MARROW)),
        slope=float(generator.uniform(*SLOPE)),
        gamma=float(np.exp(generator.uniform(-0.2, 0.2))),
        bias=float(np.exp(generator.uniform(0, 0.4))),
        noise=float(generator.uniform(0.005, 0.04)),
        blur_mm=(float(generator.uniform(0, 1.5)), *generator.uniform(0, 0.6, 2).tolist()),
    )


def simulate_mr(
    hounsfield: np.ndarray,
    tissue: np.ndarray,
    spacing_kji: tuple[float, float, float],
    contrast: MRContrast,
    generator: np.random.Generator,
) -> np.ndarray:
    """T1-weighted image of a CT's anatomy, (k, j, i) float32 in units of fat, on the CT's grid.

    Args:
        hounsfield: (k, j, i) HU.
        tissue: classes 1 to 7 of :func:`conditioning.tissue.classify_tissue`; 0 counts as outside.
        spacing_kji: voxel size in mm.
        generator: of bias field and noise.
    """
    from scipy.ndimage import gaussian_filter

    signal = clean_signal(hounsfield, tissue, spacing_kji, contrast)
    signal = gaussian_filter(signal, np.divide(contrast.blur_mm, spacing_kji), mode="nearest")
    signal = np.clip(signal, 0, None) ** contrast.gamma * bias_field(signal.shape, contrast.bias, generator)
    real, imaginary = (generator.normal(0, contrast.noise, signal.shape) for _ in range(2))
    return np.hypot(signal + real, imaginary).astype(np.float32)


def clean_signal(
    hounsfield: np.ndarray, tissue: np.ndarray, spacing_kji: tuple[float, float, float], contrast: MRContrast
) -> np.ndarray:
    """Signal without blur, bias field and noise; voxels at a boundary are the mixture that their HU says they are."""
    from ..conditioning.tissue import BONE, CONTRAST, FAT, MUSCLE

    smooth = _smoothed_within(hounsfield, tissue, spacing_kji)
    signal = np.array((0.0, *contrast.signal), np.float32)[tissue]
    muscle = np.clip(contrast.signal[MUSCLE - 1] + contrast.slope * (smooth - 50), 0.05, 0.6)
    signal = np.where(np.isin(tissue, (MUSCLE, FAT)), muscle, signal)
    beside_gas = _beside_gas(tissue, spacing_kji)  # there, low HU are a mixture with gas and no fat
    lipid = np.where(beside_gas, 0, np.clip((-20 - smooth) / 60, 0, 1))  # -80 HU is fat alone
    with_fat = lipid * contrast.signal[FAT - 1] + (1 - lipid) * signal
    signal = np.where(np.isin(tissue, (FAT, MUSCLE, CONTRAST)), with_fat, signal)
    density = np.clip((hounsfield + 1000) / 1050, 0, 1)
    signal = np.where(beside_gas & np.isin(tissue, (FAT, MUSCLE)), density * muscle, signal)
    compact = np.clip((smooth - COMPACT_HU[0]) / (COMPACT_HU[1] - COMPACT_HU[0]), 0, 1)
    bone = compact * contrast.signal[BONE - 1] + (1 - compact) * contrast.marrow
    return np.where(tissue == BONE, bone, signal).astype(np.float32)


def _beside_gas(tissue: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Voxels within ``GAS_REACH_MM`` of a lung or an airway, bool (k, j, i)."""
    from scipy.ndimage import maximum_filter

    from ..conditioning.tissue import AIRWAY, LUNG

    gas = np.isin(tissue, (LUNG, AIRWAY))
    return maximum_filter(gas, [2 * max(round(GAS_REACH_MM / step), 1) + 1 for step in spacing])


def _smoothed_within(hounsfield: np.ndarray, tissue: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """HU without the CT's noise: the mean of a voxel's neighbors of its own class, 2 mm around (1 mm in bone)."""
    from scipy.ndimage import gaussian_filter

    from ..conditioning.tissue import BONE

    result = np.array(hounsfield, np.float32)
    for value in np.unique(tissue):
        own = tissue == value
        width = np.divide(1.0 if value == BONE else 2.0, spacing)
        weight = gaussian_filter(own.astype(np.float32), width)
        mean = gaussian_filter(np.where(own, hounsfield, np.float32(0)), width) / np.maximum(weight, 1e-6)
        result[own] = mean[own]
    return result


def bias_field(shape: tuple[int, ...], strength: float, generator: np.random.Generator) -> np.ndarray:
    """Smooth positive field (k, j, i) with geometric mean about 1; between 1/strength and strength."""
    from scipy.ndimage import zoom

    coarse = generator.normal(0, 1, (3, 4, 4))
    field = zoom(coarse.astype(np.float32), np.divide(shape, coarse.shape), order=2, grid_mode=True, mode="nearest")
    field = field[tuple(slice(n) for n in shape)]
    return (strength ** np.tanh(field - field.mean())).astype(np.float32)
