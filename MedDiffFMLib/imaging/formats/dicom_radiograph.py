"""One DICOM radiograph (CR, DX, or any single image): gray values, more attenuation brighter, and its pixel size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core.errors import InputError
from ..source import Reading
from ..volume import Volume
from .common import damaged, parsing
from .dicom import parse_dataset
from .png import plane_matrix


def read_radiograph(path: Path, reading: Reading) -> Volume:
    """Radiograph of a DICOM file, (1, j, i) float32; where it stood in the patient it does not say.

    Raises:
        InputError: several frames, color, no pixel size, or pixels that cannot be decoded.
    """
    with parsing(lambda error: damaged(path.name, "DICOM", "its pixels cannot be decoded")):
        with reading.open(path) as plain:
            header = parse_dataset(path, plain)
        stored = header.pixel_array
    if stored.ndim != 2:
        raise InputError(f"'{path.name}' holds more than one gray image.", "Choose a file with one radiograph.")
    spacing = header.get("ImagerPixelSpacing") or header.get("PixelSpacing")
    if not spacing:
        raise InputError(f"'{path.name}' does not give the size of its pixels.", "Save it as PNG and give --pixel.")
    row, column = (float(edge) for edge in spacing)
    pixels = stored.astype(np.float32)
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = pixels.max() - pixels
    view = header.get("ViewPosition")
    notes = (f"The file says that its view is {str(view):.20}.",) if view else ()
    return Volume(pixels[None], plane_matrix(column, row), "XR", notes)
