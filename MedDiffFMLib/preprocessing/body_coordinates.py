"""Universal body coordinates (arXiv 2501.19265): position in the body of each voxel of a partial scan.

A small network looks at the tissues that the whole scan shows and gives every place in it its coordinates: metres
above an adult's pelvic floor along the body, and -1 to 1 across it. A scan is rigid, so what the network says of its
parts is summed up by one robust line for each axis. How far the parts stray from it tells whether the network knows
what it sees, and the sign of a slope whether the scan is turned around.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..conditioning.region import body_mask
from ..imaging.volume import Box, Volume, thinned
from .remembered import remembering

if TYPE_CHECKING:
    from ..imaging.grid import Grid
    from ..networks.body_regressor import BodyRegressor

FORMAT = "meddifffm-body-1"
MODEL = "body-coordinates"
FINE_MM, CELL = 4.0, 4
SPACING_MM = FINE_MM * CELL
TISSUES_HU = ((-2000.0, -500.0), (-150.0, -20.0), (-20.0, 100.0), (100.0, 250.0), (250.0, 4000.0))
"""Air in the body, fat, soft tissue, what takes up contrast, bone: what cells of 16 mm are made of."""
REGION_SPANS = {"pelvis": (-0.10, 0.14), "abdomen": (0.14, 0.36), "chest": (0.36, 0.62), "head-neck": (0.62, 0.95)}
"""Metres above the pelvic floor."""
WHOLE_BODY_M = 0.6
SLOPES = (0.6, 1.6)
"""Metres of the coordinate that a metre of a patient may be: adults' bodies differ by less, children's are shorter."""
STRAY_M = 0.10
"""A scan whose slices stray further than this from a line was not understood."""
SHORT_MM = 90.0
"""A scan shorter than this along an axis does not tell the slope."""
TURNED_MM, TURNED_SLOPE, TURNED_LEAD = 150.0, 0.6, 0.4
"""A scan is upside down if it is this long, and its coordinates rise so fast, and so much faster, the other way up."""
TRUNK_M = (0.05, 0.62)
"""Body coordinates between which bone in the middle of a slice is mostly spine."""
BONE_HU, LEAST_BODY, LEAST_BONE, LEAST_SLICES = 250.0, 300, 12, 20
SPINE_LEAD, WIDE_MM = 0.09, 240.0
"""Part of the body's depth by which its middle bone must lie in front, and its least width. In 36 trunks it lay 0.26
behind to 0.02 in front of the middle (contrast medium in the heart counts as bone here), in shoulders up to 0.08 in
front. Legs that the network takes for a trunk are narrower."""
_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class BodyField:
    """Body coordinates of a box of voxels.

    Attributes:
        offset, slope: coordinate along (k, j, i) of voxel n is ``offset + slope * n``: head-feet in metres above the
            pelvic floor, front-back and right-left from -1 to 1.
    """

    offset: tuple[float, float, float]
    slope: tuple[float, float, float]

    def window(self, box: Box, stride: int = 1) -> torch.Tensor:
        """(3, d, h, w): coordinates of the voxels of a box, or of the middles of blocks of ``stride``^3 voxels."""
        lines = []
        for axis, part in enumerate(box):
            index = part.start + (stride - 1) / 2 + stride * torch.arange((part.stop - part.start) // stride)
            lines.append(self.offset[axis] + self.slope[axis] * index.float())
        return torch.stack(torch.meshgrid(*lines, indexing="ij"))

    def at(self, place: Sequence[np.ndarray]) -> torch.Tensor:
        """(3, N): coordinates of places (k, j, i) in voxels, each (N,)."""
        return torch.stack(
            [
                self.offset[axis] + self.slope[axis] * torch.from_numpy(line.astype(np.float32))
                for axis, line in enumerate(place)
            ]
        )


UNKNOWN = BodyField((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


@dataclass(frozen=True)
class BodyPosition:
    """Place of a scan in the body.

    Attributes:
        offset, slope: coordinate at position p mm along (superior, posterior, left) is ``offset + slope * p``.
        stray: (3,) mean distance of what the network says of the slices from these lines.
        span: coordinate of the lowest and the highest slice of the body.
        sizes: extent of the body along the three axes, mm.
    """

    offset: np.ndarray
    slope: np.ndarray
    stray: np.ndarray
    span: tuple[float, float]
    sizes: tuple[float, float, float]

    @property
    def understood(self) -> bool:
        """Whether the head-feet coordinate can be trusted."""
        return bool(self.stray[0] < STRAY_M) and self.sizes[0] >= SHORT_MM and min(self.sizes[1:]) >= 130

    @property
    def flipped(self) -> tuple[str, ...]:
        """Axes that run the wrong way: "head-feet" or "front-back".

        Left and right are not judged: what tells them apart, heart and liver, is in few scans and varies.
        """
        if not self.understood:
            return ()
        names = ("head-feet", "front-back")
        return tuple(name for n, name in enumerate(names) if self.slope[n] < 0)

    @property
    def region(self) -> str | None:
        """Region class of what is shown; None where it is not understood, or none fits."""
        if not self.understood or "head-feet" in self.flipped:
            return None
        low, high = self.span
        if high - low > WHOLE_BODY_M:
            return "whole-body"
        shown = {name: min(high, top) - max(low, bottom) for name, (bottom, top) in REGION_SPANS.items()}
        best = max(shown, key=lambda name: shown[name])
        return best if shown[best] > 0.4 * (high - low) else None

    def field(self, grid: Grid) -> BodyField:
        """The coordinates on a grid with axes to superior, posterior, left (oblique ones through their middle).

        All zero where the scan was not understood: coordinates that are made up would mislead more than none.
        """
        if not self.understood:
            return UNKNOWN
        middle = (np.array(grid.shape[::-1]) - 1) / 2
        offset, slope = [], []
        for axis in range(3):
            row = _LPS[2 - axis] * grid.ijk_to_ras[2 - axis]
            step = row[2 - axis]
            start = row[:3] @ middle + row[3] - step * middle[2 - axis]
            offset.append(float(self.offset[axis] + self.slope[axis] * start))
            slope.append(float(self.slope[axis] * step))
        return BodyField((offset[0], offset[1], offset[2]), (slope[0], slope[1], slope[2]))


def locate(volume: Volume, regressor: BodyRegressor | None = None) -> BodyPosition:
    """Find the place of a CT in the body; about a second for a large one.

    Args:
        regressor: the shipped one where it is not given.
    """
    return _locate(*_coarse(volume), regressor or shipped_regressor())


def _coarse(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """HU (k, j, i) at 4 mm along superior, posterior, left, and the place of voxel 0 in mm."""
    from ..imaging.grid import to_grid, working_grid

    coarse = thinned(volume, FINE_MM)  # so that large volumes are not smoothed in whole
    grid = working_grid(coarse, FINE_MM)
    return to_grid(coarse, grid), _LPS[::-1] * grid.ijk_to_ras[:3, 3][::-1]


def _locate(hounsfield: np.ndarray, first: np.ndarray, regressor: BodyRegressor) -> BodyPosition:
    shares, inside = tissue_shares(hounsfield)
    return fit_position(shares, inside, first + (CELL - 1) / 2 * FINE_MM, regressor)


def turned_around(volume: Volume) -> list[str]:
    """A sentence for each axis along which a CT seems to be turned around; at once for the scan of before."""
    return list(_turned_around(thinned(volume.whole or volume, FINE_MM)))


@remembering
def _turned_around(coarse: Volume) -> tuple[str, ...]:
    hounsfield, first = _coarse(coarse)
    place = _locate(hounsfield, first, shipped_regressor())
    axes = list(place.flipped)
    if place.understood and not axes:  # what stands on its head is more likely no trunk at all
        level = place.offset[0] + place.slope[0] * (first[0] + FINE_MM * np.arange(len(hounsfield)))
        trunk = (level > TRUNK_M[0]) & (level < TRUNK_M[1])
        axes += ["front-back"] if spine_in_front(hounsfield[trunk]) else []
    return tuple(f"The scan seems to be turned around ({axis}): check its orientation." for axis in axes)


def spine_in_front(trunk: np.ndarray) -> bool:
    """Whether the bone in the middle third of a trunk lies in front, where no patient has the spine.

    The network cannot tell: it has learned each end from the other.

    Args:
        trunk: HU (k, j, i) at 4 mm along superior, posterior, left.
    """
    body = body_mask(trunk) if trunk.size else np.zeros(trunk.shape, bool)
    behind, widths = [], []
    for inside, values in zip(body, trunk, strict=True):
        if np.count_nonzero(inside) < LEAST_BODY:
            continue
        columns, rows = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
        third = (columns[-1] + 1 - columns[0]) / 3
        widths.append(3 * FINE_MM * third)
        middle = slice(int(columns[0] + third), int(columns[-1] + 1 - third) + 1)
        bone = np.nonzero(inside[:, middle] & (values[:, middle] > BONE_HU))[0]
        if len(bone) >= LEAST_BONE:
            behind.append((bone.mean() - np.nonzero(inside)[0].mean()) / (rows[-1] + 1 - rows[0]))
    if len(behind) < LEAST_SLICES or np.median(widths) < WIDE_MM:
        return False
    return float(np.median(behind)) < -SPINE_LEAD


def tissue_shares(hounsfield: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """HU (k, j, i) at 4 mm -> share of each tissue (5, d, h, w) and of body (d, h, w) in cells of 16 mm, float32."""
    body = body_mask(hounsfield)
    pad = [(0, -n % CELL) for n in body.shape]

    def share(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, pad)
        d, h, w = (n // CELL for n in padded.shape)
        cells = padded.reshape(d, CELL, h, CELL, w, CELL)
        return cells.mean((1, 3, 5), dtype=np.float32)

    tissues = [share(body & (hounsfield >= low) & (hounsfield < high)) for low, high in TISSUES_HU]
    return np.stack(tissues), share(body)


def fit_position(shares: np.ndarray, body: np.ndarray, lowest: np.ndarray, regressor: BodyRegressor) -> BodyPosition:
    """The lines through what the network says of each slice.

    Args:
        shares, body: see :func:`tissue_shares`.
        lowest: (3,) mm, middle of cell 0.
    """
    inside = body if body.any() else np.ones_like(body)
    predicted, turned = _said(shares, inside, regressor)
    offset, slope, stray, sizes = np.zeros(3), np.zeros(3), np.zeros(3), []
    span = (0.0, 0.0)
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        used, level = _levels(predicted[axis], inside, others)
        position = lowest[axis] + SPACING_MM * used
        sizes.append(SPACING_MM * len(used))
        offset[axis], slope[axis] = _line(position, level, axis, turned)
        fitted = offset[axis] + slope[axis] * position
        stray[axis] = float(np.abs(level - fitted).mean())
        if axis == 0:
            ends = sorted((float(fitted[0]), float(fitted[-1])))
            span = (ends[0], ends[1])
    return BodyPosition(offset, slope, stray, span, (sizes[0], sizes[1], sizes[2]))


def _said(shares: np.ndarray, inside: np.ndarray, regressor: BodyRegressor) -> tuple[np.ndarray, bool]:
    """Prediction of the network for each cell (3, d, h, w), and whether the scan is upside down.

    It looks at the scan both ways up. Coordinates rise with the true height only in the right one: in the other they
    stay level, since few scans were upside down in training.
    """
    up, down = shares, shares[:, ::-1].copy()
    with torch.inference_mode():
        answers = [regressor(torch.from_numpy(view)[None])[0].numpy() for view in (up, down)]
    slopes = []
    for answer, body in zip(answers, (inside, inside[::-1]), strict=True):
        used, level = _levels(answer[0], body, (1, 2))
        slopes.append(1e3 * _slope(SPACING_MM * used, level) if SPACING_MM * len(used) >= TURNED_MM else 0.0)
    if slopes[1] > TURNED_SLOPE and slopes[1] > slopes[0] + TURNED_LEAD:
        return answers[1][:, ::-1], True
    return answers[0], False


def _levels(predicted: np.ndarray, inside: np.ndarray, others: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Slices along one axis that show enough of the body, and the mean coordinate of each."""
    count = inside.sum(others)
    used = np.flatnonzero(count > 0.2 * count.max())
    return used, (predicted * inside).sum(others)[used] / count[used]


def _slope(position: np.ndarray, level: np.ndarray) -> float:
    """Theil-Sen, the median slope of all pairs of points; 0 where two points are all there is.

    The positions rise. As ``scipy.stats.theilslopes``, whose import takes longer than all else here together.
    """
    if len(position) <= 2:
        return 0.0
    first, second = np.triu_indices(len(position), 1)
    heights = level.astype(float)
    return float(np.median((heights[second] - heights[first]) / (position[second] - position[first])))


def _line(position: np.ndarray, level: np.ndarray, axis: int, turned: bool) -> tuple[float, float]:
    """Offset and slope per mm of a robust line; a short scan along the body gets a slope of 1 m a metre."""
    slope = _slope(position, level)
    if axis == 0:
        metre = 1.0 if np.ptp(position) < SHORT_MM else float(np.clip(1e3 * abs(slope), *SLOPES))
        slope = -1e-3 * metre if turned else 1e-3 * metre
    return float(np.median(level - slope * position)), slope


def save_regressor(path: Path, regressor: BodyRegressor, facts: dict[str, Any]) -> str:
    """Write a trained regressor in eight bits, which moves no scan by more than 1 mm, atomically; returns the SHA-256.

    Raises:
        OutputError: the file cannot be written.
    """
    from ..models.checkpoint import write_weights

    metadata = {"format": FORMAT, "config": json.dumps(regressor.config()), "training": json.dumps(facts)}
    return write_weights(path, regressor.state_dict(), metadata, eight_bits=True)


def load_regressor(path: Path, sha256: str | None = None) -> BodyRegressor:
    """Read a regressor, on the CPU.

    Args:
        sha256: what its bytes must have, None for any.

    Raises:
        ModelError: missing, damaged, a pickle, or something else.
    """
    from ..core.errors import ModelError
    from ..models.checkpoint import read_weights
    from ..networks.body_regressor import BodyRegressor

    weights = read_weights(path, sha256)
    if weights.metadata.get("format") != FORMAT:
        raise ModelError(f"{path.name} holds no body coordinates of this version.", "Install MedDiff-FM again.")
    try:
        regressor = BodyRegressor(**json.loads(weights.metadata["config"]))
        regressor.load_state_dict(weights.state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(
            f"The weights in {path.name} do not fit their description ({first}).", "Install MedDiff-FM again."
        ) from error
    return regressor.eval().requires_grad_(False)


@functools.cache
def shipped_regressor() -> BodyRegressor:
    """The regressor of the catalogue, read once a process."""
    from ..models.catalogue import resolve

    _, path, expected = resolve(MODEL)
    return load_regressor(path, expected)


def shipped_sha256() -> str:
    """SHA-256 of the shipped regressor's file, as the catalogue has it."""
    from ..models.catalogue import resolve

    return str(resolve(MODEL)[2])
