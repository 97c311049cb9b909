"""Bad input and the exact words that the user then reads: one list for the tests and for docs/reference/bad-input.md.

Add a case with the decorator in the module whose subject it is; the test runs every case and compares the page, on
which modules stand in the order below. To write the page anew, from the repository's root:
``python -m Testing.unit.bad_input``.
"""

from __future__ import annotations

# isort: off
from . import image_files, dicom, volumes, synthesis, xrays, modalities, weights, adapters, requests
from . import outputs, nodes, comparisons

# isort: on
from .rows import CASES, PAGE, BadInput, page

__all__ = [
    "CASES", "PAGE", "BadInput", "adapters", "comparisons", "dicom", "image_files", "modalities", "nodes", "outputs",
    "page", "requests", "synthesis", "volumes", "weights", "xrays",
]  # fmt: skip
