"""Packages of the extras ``[dicom]`` and ``[pacs]``, as the rooms of DICOM ask for them."""

from ..core.extras import needed

__all__ = ["needed"]
