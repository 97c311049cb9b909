"""Radiographs as secondary captures: they were calculated, or came in another format than DICOM."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...imaging.volume import Volume
from .images import decimals, put_pixels
from .shell import Purpose, code, shell
from .study import Study, new_uid

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_GRAY = 65535


def radiograph(
    volume: Volume, study: Study, purpose: Purpose, window: tuple[float, float], calculated: bool = True
) -> Any:
    """A plane (1, j, i) with its own window.

    Args:
        window: values that are shown black and white.
        calculated: from a volume; else only the format was changed.
    """
    made = shell(study, purpose, SECONDARY_CAPTURE, "OT", new_uid(), study.next_number(), 1)
    del made.FrameOfReferenceUID, made.PositionReferenceIndicator  # a projection lies in no frame
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    scale = _GRAY / max(high - low, 1e-12)
    put_pixels(made, np.round((volume.voxels[0].astype(np.float64) - low) * scale).astype(np.uint16))
    made.ConversionType = "SYN" if calculated else "WSD"
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.DerivationDescription = purpose.derivation
    if calculated:
        made.DerivationCodeSequence = [code("113074", "DCM", "Volume rendering")]
    made.PatientOrientation = ""
    black, white = ((value - low) * scale for value in window)
    made.WindowCenter, made.WindowWidth = decimals(((black + white) / 2, max(white - black, 1.0)))
    made.NominalScannedPixelSpacing = decimals((volume.spacing[1], volume.spacing[0]))
    made.BurnedInAnnotation = "NO"
    return made
