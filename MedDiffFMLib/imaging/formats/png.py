"""PNG files of radiographs: written with 16 bits a pixel, read with any."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core.errors import InputError
from ..source import Reading
from ..volume import Volume
from .common import damaged, parsing

WHITE = 65535
MM_PER_INCH = 25.4


def read_png(path: Path, modality: str, reading: Reading) -> Volume:
    """Gray values of a picture, (1, j, i) float32, with the pixel size that its resolution tells.

    Raises:
        InputError: the picture is wanted as anything but an X-ray, or is damaged.
    """
    from PIL import Image

    if modality != "XR":
        raise InputError(f"'{path.name}' is a picture, which can only be an X-ray.", "Give a file with voxels.")
    refused = parsing(lambda error: damaged(path.name, "PNG", "its pixels cannot be decoded"))
    with refused, reading.open(path) as file, Image.open(file, formats=("PNG",)) as image:
        resolution = image.info.get("dpi")
        deep = image.mode.startswith("I")
        pixels = np.asarray(image if deep else image.convert("L"), np.float32)
    notes = []
    if not resolution or min(resolution) <= 0:
        resolution = (MM_PER_INCH, MM_PER_INCH)
        notes.append(f"'{path.name}' does not say how large its pixels are: 1 mm is assumed, --pixel corrects it.")
    column, row = (MM_PER_INCH / float(dots) for dots in resolution)
    return Volume(pixels[None], plane_matrix(column, row), modality, tuple(notes))


def plane_matrix(column_mm: float, row_mm: float) -> np.ndarray:
    """Geometry of a picture that stands nowhere in particular: 4x4, 1 mm thick."""
    return np.diag([-column_mm, -row_mm, 1.0, 1.0])


def write_png(path: Path, pixels: np.ndarray, window: tuple[float, float], spacing_mm: float, note: str) -> None:
    """Write pixels as gray values; the lower end of the window is black, the upper end white.

    Args:
        pixels: (j, i).
        spacing_mm: edge of a pixel, kept as the file's resolution.
        note: text stored in the file as its description.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    low, high = window
    gray = np.clip((np.asarray(pixels, np.float64) - low) / max(high - low, 1e-12), 0, 1)
    described = PngInfo()
    described.add_text("Description", note)
    resolution = MM_PER_INCH / spacing_mm
    image = Image.fromarray(np.round(gray * WHITE).astype(np.uint16))
    image.save(path, format="PNG", dpi=(resolution, resolution), pnginfo=described)
