"""Slices of volumes as pictures: radiological orientation, windows, heat maps, outlines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..imaging.axis_order import AxisOrder
from ..imaging.volume import Volume

LUNG_WINDOW, SOFT_WINDOW = (-1350.0, 150.0), (-160.0, 240.0)
LUNG_HU, LUNG_SHARE = (-950, -600), 0.12
"""A slice with at least this share of such voxels is shown in the window of the lungs."""
MOST_PIXELS = 640
"""Along an edge of a picture."""
SIDES = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
"""Plane -> letters at left, right, top and bottom."""
_ACROSS_ROWS_COLUMNS = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
"""Plane -> array axis (k, j, i) across it, along its rows and along its columns."""

# Anchors of Matplotlib's "inferno" and of a blue-white-red, so that no package is needed for them.
_HEAT = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))
_SIGNED = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))


def colors(anchors: tuple[tuple[int, int, int], ...], count: int = 256) -> np.ndarray:
    """A color table (count, 3) uint8 between anchors."""
    at, steps = np.linspace(0, 1, count), np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(at, steps, channel) for channel in np.array(anchors, float).T], 1).astype(np.uint8)


HEAT, SIGNED = colors(_HEAT), colors(_SIGNED)
GRAY = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


@dataclass(frozen=True)
class Cut:
    """Where a picture is taken.

    Attributes:
        point: RAS mm that the plane goes through.
        plane: "axial", "coronal" or "sagittal".
        reach: mm shown around the point; None for the whole width.
    """

    point: tuple[float, float, float]
    plane: str
    reach: float | None = None


@dataclass(frozen=True)
class Slice:
    """Part of a plane with square pixels, rows downward as radiologists look.

    Attributes:
        values: (rows, columns).
        edge: of a pixel, mm.
        at: row and column of the point that the plane goes through.
    """

    values: np.ndarray
    edge: float
    at: tuple[float, float]


def slice_of(volume: Volume, cut: Cut, nearest: bool = False) -> Slice:
    """The slice of a volume.

    Args:
        nearest: labels are not mixed.
    """
    order = AxisOrder.of(volume.ijk_to_ras)
    turned = order.turn(volume.voxels)
    matrix = volume.ijk_to_ras @ order.matrix(volume.voxels.shape)
    point = (np.linalg.inv(matrix) @ [*cut.point, 1.0])[2::-1]
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)[::-1]
    across, *axes = _ACROSS_ROWS_COLUMNS[cut.plane]
    number = int(np.clip(round(point[across]), 0, turned.shape[across] - 1))
    image, at = np.take(turned, number, axis=across), [point[axis] for axis in axes]
    if cut.plane != "axial":
        image, at[0] = image[::-1], image.shape[0] - 1 - at[0]
    edges = [float(spacing[axis]) for axis in axes]
    if cut.reach is not None:
        shown = [_around(a, cut.reach / edge, n) for a, edge, n in zip(at, edges, image.shape, strict=True)]
        image, at = image[tuple(shown)], [a - part.start for a, part in zip(at, shown, strict=True)]
    return _square(image, at, edges, nearest)


def _around(at: float, reach: float, count: int) -> slice:
    """Voxels of a line around one."""
    start = int(np.clip(round(at - reach), 0, count - 1))
    return slice(start, int(np.clip(round(at + reach) + 1, start + 1, count)))


def _square(image: np.ndarray, at: list[float], edges: list[float], nearest: bool) -> Slice:
    """With square pixels, no more than fit a picture."""
    from scipy.ndimage import map_coordinates

    lengths = [n * edge for n, edge in zip(image.shape, edges, strict=True)]
    edge = max(min(edges) / 2, max(lengths) / MOST_PIXELS)
    counts = [max(2, round(length / edge)) for length in lengths]
    scales = [n / m for n, m in zip(image.shape, counts, strict=True)]
    lines = [(np.arange(m) + 0.5) * scale - 0.5 for m, scale in zip(counts, scales, strict=True)]
    values = image.astype(np.uint16 if nearest else np.float32)
    drawn = map_coordinates(values, np.meshgrid(*lines, indexing="ij"), order=0 if nearest else 1, mode="nearest")
    row, column = ((a + 0.5) / scale - 0.5 for a, scale in zip(at, scales, strict=True))
    return Slice(drawn, edge, (row, column))


def window_for(hounsfield: np.ndarray) -> tuple[float, float]:
    """That of the lungs where a slice shows enough of them, else that of soft tissue."""
    low, high = LUNG_HU
    share = np.mean((hounsfield > low) & (hounsfield < high))
    return LUNG_WINDOW if share >= LUNG_SHARE else SOFT_WINDOW


def shaded(values: np.ndarray, low: float, high: float, table: np.ndarray = GRAY) -> np.ndarray:
    """Values as (rows, columns, 3) uint8, from the first color to the last."""
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return table[np.rint(share * (len(table) - 1)).astype(int)]


def over(below: np.ndarray, above: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """One picture over another, with an opacity (rows, columns) of 0 to 1."""
    mixed = below + (above.astype(float) - below) * opacity[..., None]
    return np.rint(mixed).astype(np.uint8)


def outlined(picture: np.ndarray, inside: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """A picture with the outline of a region, two pixels wide."""
    from scipy.ndimage import binary_dilation, binary_erosion

    rim = binary_dilation(inside, iterations=1) & ~binary_erosion(inside, iterations=1)
    drawn = picture.copy()
    drawn[rim] = color
    return drawn


def ringed(picture: np.ndarray, at: tuple[float, float], radius: float, color: tuple[int, int, int]) -> np.ndarray:
    """A picture with a circle around a place (row, column), in pixels."""
    rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
    distance = np.hypot(rows - at[0], columns - at[1])
    drawn = picture.copy()
    drawn[np.abs(distance - radius) < 1.2] = color
    return drawn
