"""X-ray attenuation of a body that is known in Hounsfield units: water and bone, three energies.

A voxel is water of any density up to ``SOFT_HU``, and above it a mixture of soft tissue and cortical bone whose share
grows linearly until the voxel is all bone. The mixture keeps what the scanner measured: at ``CT_KEV`` every voxel
attenuates exactly (1 + HU / 1000) times as much as water, so with one energy nothing but the CT matters, and bone only
decides how the other energies differ. Scatter, and contrast agent and metal as materials of their own, are left out.

Coefficients: Hubbell and Seltzer, Tables of X-Ray Mass Attenuation Coefficients, NIST Standard Reference Database 126,
table 4 (water, liquid; bone, cortical, ICRU-44).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

KEV = (40.0, 50.0, 60.0, 80.0, 100.0)
WATER = (0.2683, 0.2269, 0.2059, 0.1837, 0.1707)
BONE = (0.6655, 0.4242, 0.3148, 0.2229, 0.1855)
"""Photon energies, and mass attenuation coefficients at them in cm2/g."""
BONE_DENSITY = 1.92
"""Of cortical bone, g/cm3."""
CT_KEV = 70.0
"""Effective energy of a CT at 120 kV."""
SOFT_HU = 100.0
"""Densest tissue without mineral; blood with contrast agent lies above it and counts as a little bone."""
SPECTRUM = {40.0: 0.3, 60.0: 0.45, 80.0: 0.25}
"""Energy -> share of the detected signal without a patient: a beam of about 100 kV, its detector more sensitive to low
energies. Three lines for a continuum: enough for the beam to harden in bone, too few for dosimetry."""


def mass_attenuation(material: tuple[float, ...], kev: float) -> float:
    """cm2/g of ``WATER`` or ``BONE`` at an energy from 40 to 100 keV, linear between logarithms."""
    return float(np.exp(np.interp(np.log(kev), np.log(KEV), np.log(material))))


def _all_bone_hu() -> float:
    """HU of cortical bone in a CT of energy ``CT_KEV``."""
    ratio = BONE_DENSITY * mass_attenuation(BONE, CT_KEV) / mass_attenuation(WATER, CT_KEV)
    return 1000.0 * (ratio - 1.0)


def densities(hounsfield: torch.Tensor) -> torch.Tensor:
    """Water and bone in each voxel.

    Args:
        hounsfield: any shape, floating point; below -1000 counts as air.

    Returns:
        (2, ...) g/cm3 of water (and soft tissue, as water) and of cortical bone.
    """
    import torch

    bone_hu = _all_bone_hu()
    share = ((hounsfield - SOFT_HU) / (bone_hu - SOFT_HU)).clamp(0, 1)
    soft = (1 + hounsfield.clamp(-1000, SOFT_HU) / 1000) * (1 - share)
    denser = ((1000 + hounsfield) / (1000 + bone_hu)).clamp_min(1)  # metal, as bone of a density that no bone has
    return torch.stack([soft, BONE_DENSITY * share * denser])


def attenuation(areal: torch.Tensor, spectrum: dict[float, float] | None = None) -> torch.Tensor:
    """Attenuation of a beam, -ln(I / I0).

    Args:
        areal: (2, j, i) g/cm2 of water and of bone along each ray.
        spectrum: energy in keV -> share of the detected signal; ``SPECTRUM`` where it is left out.

    Returns:
        (j, i), without unit.
    """
    import torch

    lines = spectrum or SPECTRUM
    water, bone = areal
    total = sum(lines.values())
    exponents = [
        float(np.log(share / total)) - mass_attenuation(WATER, kev) * water - mass_attenuation(BONE, kev) * bone
        for kev, share in lines.items()
    ]
    return -torch.logsumexp(torch.stack(exponents), 0)
