"""PNG files of radiographs, 16 bits a pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WHITE = 65535
MM_PER_INCH = 25.4


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
