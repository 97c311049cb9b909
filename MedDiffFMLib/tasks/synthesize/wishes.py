"""Wishes of a prompt: what steers the sampler, what is done to its image, and what was met in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InputError
from ...imaging.grid import Grid
from ...multimodal.facts.fact import Fact, Statement
from ...multimodal.facts.kinds import KINDS, REGION_WORDS, THICK, WITH
from ...multimodal.facts.prompt import understand_prompt
from ...multimodal.facts.slots import Number
from .body_layout import FIELD_OVER_BODY, Layout
from .fitted_body import Measures
from .spec import STEERED

if TYPE_CHECKING:
    from ...multimodal.fact_guidance import FactGuidance, TissueWish

DEPTH_OVER_WIDTH = 0.7
"""Of a trunk."""
LENGTH_MM = 300.0
"""Of a body whose width alone is asked for, which networks invent."""
THICK_MM = 5.0
NOISE_HU = {"low": 8.0, "moderate": 18.0, "high": 35.0}
CONTRAST_SHARE, NATIVE_SHARE = 0.12, 0.003
"""Of the body, that is brighter than soft tissue without contrast agent."""
NEAR = 0.15
"""A number within so much of what was asked for counts as met."""
DEEP = 0.85
"""Part of the body's half axes within which lung is counted."""


@dataclass(frozen=True)
class Wishes:
    """A prompt as it was understood.

    Attributes:
        statements: what was asked for.
        told: a sentence about it.
        ignored: titles of facts that nothing steers.
    """

    statements: list[Statement] = field(default_factory=list)
    told: str = ""
    ignored: list[str] = field(default_factory=list)

    def asked(self, kind: str, slot: str) -> Any:
        """Value of a slot, None where it was not asked for."""
        return next((one.values[slot] for one in self.statements if one.kind == kind and slot in one.values), None)

    @property
    def region(self) -> str | None:
        """Region class."""
        words = {text: name for name, text in REGION_WORDS.items()}
        return words.get(self.asked("region", "region"))

    @property
    def size(self) -> tuple[float, float, float] | None:
        """Edges in mm of a volume around a body of the width asked for, where networks invent it."""
        width = self.asked("body_width", "width")
        if width is None:
            return None
        edge = FIELD_OVER_BODY * float(width)
        return edge, DEPTH_OVER_WIDTH * edge, LENGTH_MM

    @property
    def measures(self) -> Measures:
        """Of a body that is bent from a template."""
        width, lungs = self.asked("body_width", "width"), self.asked("lungs", "volume")
        return Measures(None if width is None else float(width), None if lungs is None else float(lungs))

    @property
    def contrast(self) -> bool | None:
        """Whether vessels shall be filled with contrast agent; None where nothing is said of it."""
        asked = self.asked("contrast", "contrast")
        return None if asked is None else bool(asked == WITH)

    @property
    def slice_mm(self) -> float | None:
        """Distance of slices, None for that of the voxels."""
        spacing = self.asked("slice_spacing", "spacing")
        if spacing is None and self.asked("slice_spacing", "thickness") == THICK:
            return THICK_MM
        return None if spacing is None else float(spacing)

    def voxel_mm(self, usual: float) -> float:
        """Edge of the voxels near the usual one of which a whole number makes a slice."""
        return usual if self.slice_mm is None else self.slice_mm / max(1, round(self.slice_mm / usual))

    @property
    def noise(self) -> float | None:
        """Noise in HU."""
        level = self.asked("noise", "noise")
        return NOISE_HU.get(self.asked("noise", "level")) if level is None else float(level)

    def guidance(self, layout: Layout, grid: Grid) -> FactGuidance | None:
        """Hook of the sampler on a grid; None where no tissue is asked for."""
        import torch

        from ...multimodal.fact_guidance import FactGuidance

        wishes = self._tissues(float(np.prod(grid.spacing)) / 1000, layout.anatomy is None)
        if not wishes:
            return None
        lines = [torch.from_numpy(line) for line in layout.body.coordinates(grid)]
        k, j, i = torch.meshgrid(*lines, indexing="ij")
        deep = (j.square() + i.square() <= DEEP**2) & (k.abs() <= 1)
        return FactGuidance(wishes, deep.float())

    def _tissues(self, voxel_ml: float, vessels: bool) -> list[TissueWish]:
        """Tissue asked for; that of vessels only where no anatomy has them."""
        from ...multimodal.fact_guidance import TissueWish

        found = []
        if (lungs := self.asked("lungs", "volume")) is not None:
            found.append(TissueWish(-0.97, -0.5, 0.02, voxels=float(lungs) / voxel_ml, deep=True))
        if (fat := self.asked("fat", "share")) is not None:
            found.append(TissueWish(-0.2, -0.03, 0.02, share=float(fat) / 100))
        if (bone := self.asked("bone", "share")) is not None:
            found.append(TissueWish(0.2, 2.0, 0.04, share=float(bone) / 100))
        if vessels and self.contrast is not None:
            share = CONTRAST_SHARE if self.contrast else NATIVE_SHARE
            found.append(TissueWish(0.11, 0.5, 0.03, share=share))
        return found


def understand(prompt: str) -> Wishes:
    """Wishes of a prompt.

    Raises:
        InputError: it says nothing.
    """
    if not any(letter.isalnum() for letter in prompt):
        raise InputError("The prompt says nothing.", "Write what to make, such as: chest CT with contrast.")
    found = understand_prompt(prompt)
    ignored = [KINDS[one.kind].title for one in found.statements if one.kind not in STEERED]
    return Wishes(found.statements, found.told(), ignored)


def acquired(hounsfield: np.ndarray, grid: Grid, wishes: Wishes, rng: np.random.Generator) -> tuple[np.ndarray, Grid]:
    """Image as it would be acquired: noise is added up to the level asked for, and slices averaged.

    Args:
        hounsfield: (k, j, i).
    """
    factor = 1 if wishes.slice_mm is None else max(1, round(wishes.slice_mm / grid.spacing[2]))
    slices = len(hounsfield) // factor
    if factor > 1 and slices >= 4:
        k, j, i = slices, *hounsfield.shape[1:]
        hounsfield = hounsfield[: k * factor].reshape(k, factor, j, i).mean(1)
        change = np.diag([1.0, 1.0, factor, 1.0])
        change[2, 3] = (factor - 1) / 2
        grid = Grid((k, j, i), grid.ijk_to_ras @ change)
    if wishes.noise is not None:
        from ...preprocessing.noise_estimate import estimate_noise

        present = estimate_noise(hounsfield.astype(np.float32), slice_mm=grid.spacing[2]) or 0.0
        added = max(wishes.noise**2 - present**2, 0.0) ** 0.5
        hounsfield = hounsfield + rng.normal(0, added, hounsfield.shape) * (hounsfield > -995)
    return np.rint(hounsfield).astype(np.int16), grid


def met(wishes: Wishes, facts: Iterable[Fact]) -> list[dict[str, Any]]:
    """A row for each value asked for: what ``describe`` measures of it in the result."""
    measured: Mapping[str, Statement] = {fact.statement.kind: fact.statement for fact in facts}
    rows = []
    for asked in wishes.statements:
        kind, found = KINDS[asked.kind], measured.get(asked.kind)
        for slot, value in asked.values.items():
            about = kind.slots[slot]
            unit = about.unit if isinstance(about, Number) else ""
            seen = None if found is None or found.unknown else found.values.get(slot)
            rows.append(
                {"fact": kind.title, "value": slot, "asked": value,
                 "measured": "not assessed" if seen is None else seen, "unit": unit,
                 "met": _close(value, seen), "steered": _yes(slot in STEERED.get(asked.kind, ()))}
            )  # fmt: skip
    return rows


def _close(asked: Any, seen: Any) -> str:
    if seen is None:
        return ""
    if isinstance(asked, str) or isinstance(seen, str):
        return _yes(asked == seen)
    return _yes(abs(float(seen) - float(asked)) <= NEAR * max(abs(float(asked)), 1e-6))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
