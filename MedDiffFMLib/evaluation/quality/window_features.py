"""Feature vectors of CT windows, for comparing sets of CTs.

The shipped space, "Haar and HU statistics", needs no trained network. A window of 96 mm at 3 mm becomes

* 16 shares of its voxels by HU, from air to metal, as square roots;
* for each of 7 detail bands of the orthonormal Haar transform at 4 scales (6 to 48 mm) the logarithm of its energy and
  its sparsity (mean absolute over root mean square value);
* the means of its 4 x 4 x 4 cubes of 24 mm: layout.

It sees tissue composition, coarse texture, sharpness and layout. It sees nothing finer than 3 mm, no organ as such, and
cannot tell whether an anatomy is possible. A network given as a TorchScript file may; see :class:`NetworkFeatures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...core.errors import InputError
from ...imaging.intensity import HU_LIMIT
from ...imaging.volume import Volume

WINDOW_MM = 96.0
STRIDE_MM = 48.0
LEAST_TISSUE = 0.4
"""Share of a window's voxels that must be denser than :data:`TISSUE_HU`."""
TISSUE_HU = -960.0
"""Between lung and the air around a patient."""
HU_EDGES = (-950, -850, -700, -500, -300, -150, -100, -50, 0, 30, 60, 100, 150, 300, 700)
SCALES = 4
CUBES = 4
SMALLEST_HU = 2.0
"""Energy below that of so many HU counts as none."""


class FeatureSpace(Protocol):
    """A way to describe windows.

    Attributes:
        name: for the report.
        spacing: of the windows' voxels in mm.
        frechet: whether a Frechet distance is reported in it.
    """

    @property
    def name(self) -> str: ...

    @property
    def spacing(self) -> float: ...

    @property
    def frechet(self) -> bool: ...

    def __call__(self, windows: np.ndarray) -> dict[str, np.ndarray]:
        """(B, D, H, W) HU -> view -> (samples, features)."""
        ...


def windows_of(volume: Volume, spacing: float, always: bool = False) -> np.ndarray:
    """Windows of :data:`WINDOW_MM`, half overlapping, that hold enough of the patient: float32 HU (B, D, H, W).

    Args:
        spacing: of the windows' voxels in mm.
        always: take all windows where none holds enough, so that a synthetic volume of air is judged too.

    A volume that is thinner than a window along an axis is continued there by reflection if it has at least half.
    """
    from ...imaging.grid import to_grid, working_grid

    grid = working_grid(volume, spacing)
    size, stride = round(WINDOW_MM / spacing), round(STRIDE_MM / spacing)
    hounsfield = np.clip(to_grid(volume, grid), -HU_LIMIT, HU_LIMIT)
    if min(hounsfield.shape) < size // 2:
        return np.zeros((0, size, size, size), np.float32)
    lacking = [(max(size - n, 0) // 2, -(-max(size - n, 0) // 2)) for n in hounsfield.shape]
    hounsfield = np.pad(hounsfield, lacking, mode="reflect")
    windows = list(_cut(hounsfield, size, stride))
    filled = [w for w in windows if np.mean(w > TISSUE_HU) >= LEAST_TISSUE] or (windows if always else [])
    return np.stack(filled) if filled else np.zeros((0, size, size, size), np.float32)


def _cut(array: np.ndarray, size: int, stride: int) -> Iterator[np.ndarray]:
    """Cubes every ``stride`` voxels, the grid of them centered."""
    starts = []
    for n in array.shape:
        line = np.arange(0, n - size + 1, stride)
        starts.append(line + (n - size - line[-1]) // 2)
    for k in starts[0]:
        for j in starts[1]:
            for i in starts[2]:
                yield array[k : k + size, j : j + size, i : i + size]


@dataclass(frozen=True)
class HaarStatistics:
    """The shipped space; see the top of this file."""

    name: str = "Haar and HU statistics"
    spacing: float = 3.0
    frechet: bool = False

    def __call__(self, windows: np.ndarray) -> dict[str, np.ndarray]:
        """(B, D, H, W) HU -> one view of (B, 136)."""
        return {"": np.concatenate([_shares(windows), _bands(windows), _layout(windows)], axis=1)}


def _shares(windows: np.ndarray) -> np.ndarray:
    """(B, 16): square roots of the shares of voxels between :data:`HU_EDGES`."""
    bins = np.digitize(windows, HU_EDGES).reshape(len(windows), -1)
    return np.sqrt(np.stack([(bins == n).mean(axis=1) for n in range(len(HU_EDGES) + 1)], axis=1))


def _bands(windows: np.ndarray) -> np.ndarray:
    """(B, 56): log energy in units of 1000 HU, and sparsity, of each detail band at each scale."""
    smooth, figures = np.asarray(windows, dtype=np.float64) / HU_LIMIT, []
    for _ in range(SCALES):
        bands = haar_bands(smooth)
        smooth = bands[0] / np.sqrt(8.0)  # the mean of 2 x 2 x 2 voxels, so that HU stay HU
        for band in bands[1:]:
            flat = band.reshape(len(windows), -1)
            energy = np.mean(flat**2, axis=1)
            figures += [np.log10(energy + (SMALLEST_HU / HU_LIMIT) ** 2), _sparsity(flat, energy)]
    return np.stack(figures, axis=1)


def _sparsity(values: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Mean absolute over root mean square value: 1 for equal sizes, small where few coefficients hold the energy."""
    floor = SMALLEST_HU / HU_LIMIT
    return (np.abs(values).mean(axis=1) + floor) / (np.sqrt(energy) + floor)


def haar_bands(windows: np.ndarray) -> np.ndarray:
    """Orthonormal 2 x 2 x 2 Haar transform: (B, D, H, W) -> (8, B, D/2, H/2, W/2), the smooth band first."""
    bands = [windows]
    for axis in (1, 2, 3):
        halves = [
            (np.take(b, range(0, b.shape[axis], 2), axis), np.take(b, range(1, b.shape[axis], 2), axis)) for b in bands
        ]
        bands = [part for even, odd in halves for part in ((even + odd) / np.sqrt(2), (even - odd) / np.sqrt(2))]
    return np.stack(bands)


def _layout(windows: np.ndarray) -> np.ndarray:
    """(B, 64): means of cubes, in units of 1000 HU."""
    count, *shape = windows.shape
    edge = [n // CUBES for n in shape]
    cubes = windows.reshape(count, CUBES, edge[0], CUBES, edge[1], CUBES, edge[2])
    return cubes.mean(axis=(2, 4, 6), dtype=np.float64).reshape(count, -1) / HU_LIMIT


@dataclass(frozen=True)
class NetworkFeatures:
    """Features of a TorchScript module, for example MedicalNet (volumes) or RadImageNet (slices).

    Attributes:
        module: takes float32 in [-1, 1], HU / 1000, and returns (B, F) or (B, F, ...), which is averaged over the rest.
            What else a network wants (size, mean, scale) belongs into the module.
        slices: False gives it (B, 1, D, H, W). True gives it (B, 3, H, W), the same slice in three channels, from each
            of three planes; figures are averaged over the planes, as in a 2.5-D FID.
    """

    module: Any
    name: str
    slices: bool = False
    spacing: float = 1.5
    frechet: bool = True

    def __call__(self, windows: np.ndarray) -> dict[str, np.ndarray]:
        """(B, D, H, W) HU -> view -> (samples, features)."""
        import torch

        images = torch.from_numpy(np.clip(windows / HU_LIMIT, -1, 1).astype(np.float32))
        if not self.slices:
            return {"": self._features(images[:, None])}
        views = {}
        for axis, plane in enumerate(("axial", "coronal", "sagittal"), start=1):
            quarters = torch.tensor([images.shape[axis] * n // 4 for n in (1, 2, 3)])
            planes = images.index_select(axis, quarters).movedim(axis, 1).flatten(0, 1)
            views[plane] = self._features(planes[:, None].expand(-1, 3, -1, -1))
        return views

    def _features(self, images: Any) -> np.ndarray:
        import torch

        with torch.inference_mode():
            batches = [self.module(part) for part in images.split(8)]
        features = torch.cat(batches).float()
        if features.ndim < 2:
            raise InputError(
                f"{self.name} returns an array of shape {tuple(features.shape)}.",
                "A feature network returns (windows, features).",
            )
        return features.flatten(2).mean(-1).double().numpy() if features.ndim > 2 else features.double().numpy()


def load_network(path: str | Path, slices: bool = False) -> NetworkFeatures:
    """A feature network from a TorchScript file.

    Raises:
        InputError: no such file, or no TorchScript.
    """
    import hashlib

    import torch

    path = Path(path)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        module = torch.jit.load(str(path), map_location="cpu").eval()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a TorchScript module ({str(error).splitlines()[0]}).",
            "Make it with torch.jit.script or torch.jit.trace and save it with module.save(path).",
        ) from error
    view = "2.5-D slices" if slices else "3-D windows"
    return NetworkFeatures(module, f"{path.name} ({digest}), {view}", slices)
