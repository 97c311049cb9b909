"""Body regions by name; imports no torch."""

from __future__ import annotations

REGIONS = ("head-neck", "chest", "abdomen", "pelvis", "whole-body")
NULL_REGION = len(REGIONS)
NO_REGION = "none"
"""What a user says to tell the model nothing about the region."""
REGION_CHOICES = (*REGIONS, NO_REGION)
"""What a user may say; without a word the region is guessed from the image."""
