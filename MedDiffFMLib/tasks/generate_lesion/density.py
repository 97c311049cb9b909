"""Density of a lesion: mean and spread of HU that are asked for, and the correction by which the result has them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...core.errors import ModelError
from .spec import KINDS, GenerateLesion

ALIKE = 5
"""Training lesions with the most similar surroundings, one of which lends its density."""
LEAST_CORE = 27
"""A smaller core, in voxels, has no spread worth setting."""
LARGEST_CHANGE = 4.0
"""Factor by which texture is raised or lowered at most."""
MEAN_TOLERANCE_HU, SPREAD_TOLERANCE = 1.0, 0.05
"""Results within these (the spread's is a share of it) have what was asked for."""


class Density(NamedTuple):
    """Density of a lesion, HU.

    Attributes:
        mean: over the mask.
        spread: standard deviation in the core; None leaves it to the model.
    """

    mean: float
    spread: float | None = None


def asked_density(
    parameters: GenerateLesion, around: float, known: list[list[float]], rng: np.random.Generator
) -> Density:
    """Density that the lesion shall have.

    Args:
        around: median HU of its surroundings.
        known: of each training lesion the surroundings' median and the lesion's mean, HU.

    Raises:
        ModelError: it shall be like a training lesion, and the ControlNet names none.
    """
    spread = parameters.spread
    if parameters.mean is not None:
        return Density(parameters.mean, spread)
    if parameters.contrast is not None:
        return Density(around + parameters.contrast, spread)
    preset = KINDS[parameters.kind]
    if preset is not None:
        return Density(preset[1] if preset[0] == "mean" else around + preset[1], spread)
    if not known:
        raise ModelError("The ControlNet does not say how dense its training lesions were.", "Give a kind or a mean.")
    alike = sorted(known, key=lambda pair: abs(pair[0] - around))[:ALIKE]
    return Density(float(alike[rng.integers(len(alike))][1]), spread)


def hold(values: np.ndarray, lesion: np.ndarray, core: np.ndarray, asked: Density) -> np.ndarray:
    """The same voxels with the mean and, where one is asked for and the core is large enough, the spread asked for.

    Texture keeps its pattern: it is raised or lowered in the core; then all of the lesion is shifted.

    Args:
        values: (n,) HU.
        lesion: (n,) bool, the mask.
        core: (n,) bool, see :func:`.lesion_extent.core_inside`.
    """
    held = values.astype(np.float64)
    if asked.spread is not None and core.sum() >= LEAST_CORE:
        factor = np.clip(asked.spread / max(held[core].std(), 1e-6), 1 / LARGEST_CHANGE, LARGEST_CHANGE)
        held[core] += (factor - 1) * (held[core] - held[core].mean())
    held[lesion] += asked.mean - held[lesion].mean()
    return held.astype(np.float32)


def density_facts(values: np.ndarray, lesion: np.ndarray, core: np.ndarray, asked: Density) -> dict[str, float | None]:
    """What was asked for and what a result has, HU; the arrays as for :func:`hold`.

    ``spread_hu_after`` is None for a core that is too small to have one.
    """
    inner = values[core]
    return {
        "mean_hu_wished": round(asked.mean, 1),
        "mean_hu_after": round(float(values[lesion].mean()), 1),
        "spread_hu_wished": None if asked.spread is None else round(asked.spread, 1),
        "spread_hu_after": round(float(inner.std()), 1) if inner.size >= LEAST_CORE else None,
    }


def density_warnings(facts: dict[str, float | None]) -> list[str]:
    """A sentence for each part of the density that a result does not have, from its :func:`density_facts`."""
    warnings = []
    mean, after = facts["mean_hu_wished"], facts["mean_hu_after"]
    if mean is not None and after is not None and abs(after - mean) > MEAN_TOLERANCE_HU:
        warnings.append(f"The lesion's mean is {after:.0f} HU instead of {mean:.0f}: voxels at the end of the range.")
    wished, spread = facts["spread_hu_wished"], facts["spread_hu_after"]
    if wished is not None and spread is None:
        warnings.append("The spread was left to the model: the lesion has no core, it is too small for its voxels.")
    elif wished is not None and spread is not None and abs(spread - wished) > SPREAD_TOLERANCE * wished + 0.5:
        warnings.append(f"The spread of HU in the lesion is {spread:.0f} HU instead of {wished:.0f}.")
    return warnings
