"""Body regions by name; imports no torch."""

from __future__ import annotations

REGIONS = ("head-neck", "chest", "abdomen", "pelvis", "whole-body")
NULL_REGION = len(REGIONS)
