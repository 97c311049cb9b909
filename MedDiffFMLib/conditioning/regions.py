"""Body regions by name; imports no torch."""

from __future__ import annotations

from typing import Any

from ..core.errors import InputError

REGIONS = ("head-neck", "chest", "abdomen", "pelvis", "whole-body")
NULL_REGION = len(REGIONS)
NO_REGION = "none"
"""Word by which a user tells the model nothing about the region."""
REGION_CHOICES = (*REGIONS, NO_REGION)
"""Words that a user may say; without one the region is guessed from the image."""


def check_region(region: Any) -> None:
    """Refuse what is neither a choice nor None.

    Raises:
        InputError: it is no region.
    """
    if region is not None and (not isinstance(region, str) or region not in REGION_CHOICES):
        raise InputError(f"There is no region {region!r:.80}.", f"Known are: {', '.join(REGION_CHOICES)}.")
