"""Body layout of a synthesis: grid, body box and organ labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError
from ...imaging.grid import Grid, to_grid, working_grid
from ...imaging.volume import Volume

if TYPE_CHECKING:
    from ...conditioning.condition import Condition
    from ...preprocessing.body_localization import BodyLocalization
    from .bent_body import BentBody
    from .fitted_body import Measures
    from .mapped_body import MappedBody

FEWEST_VOXELS = 8  # along each edge
MOST_VOXELS = 400_000_000  # about 12 GB of whole-volume arrays
FIELD_OVER_BODY = 1.05
"""In-plane size of the volume over that of the body in it; along the patient a scan is cut out of the body."""
SPLEEN_AT_MOST = 0.05
"""Share of the volume above which label 1 alone, the spleen, must be meant as the body."""
NOT_FILLED = "No anatomy template of this region has contrast agent in its vessels: they are shown without it."


@dataclass(frozen=True)
class Layout:
    """Layout that is fixed before the first voxel.

    Attributes:
        grid: the finest working grid; axes along left, posterior, superior.
        body: body box and region.
        target: volume with labels whose grid the result has; None for ``grid`` itself.
        warnings: sentences for the user.
        anatomy: body whose expected image the first stage starts from; None to let the network invent one.
    """

    grid: Grid
    body: BodyLocalization
    target: Volume | None = None
    warnings: list[str] = field(default_factory=list)
    anatomy: BentBody | MappedBody | None = None

    def condition(self, grid: Grid) -> Condition:
        """Condition of the network on a grid over the same box."""
        import torch

        from ...conditioning.condition import Condition
        from ...conditioning.regions import NULL_REGION, REGIONS

        k, j, i = (torch.from_numpy(line) for line in self.body.coordinates(grid))
        region = NULL_REGION if self.body.guessed is None else REGIONS.index(self.body.guessed)
        labels = tissue = None
        if self.target is not None:
            labels = torch.from_numpy(to_grid(self.target, grid, order=0, fill=0).astype(np.uint8))
        if self.anatomy is not None:
            tissue = torch.from_numpy(self.anatomy.tissue(grid))
        return Condition(grid.spacing[::-1], (k, j, i), region, labels, tissue=tissue)


def free_grid(size: tuple[float, float, float], spacing: float) -> Grid:
    """Cubic voxels along left, posterior, superior around 0.

    Args:
        size: edges right-left, front-back, feet-head in mm, met to half a voxel.

    Raises:
        InputError: fewer voxels than make an image, or more than fit into memory.
    """
    count = [round(edge / spacing) for edge in size]
    edges = " x ".join(f"{edge:g}" for edge in size)
    if min(count) < FEWEST_VOXELS:
        raise InputError(
            f"A size of {edges} mm holds only {' x '.join(map(str, count))} voxels of {spacing:g} mm; "
            f"at least {FEWEST_VOXELS} are needed along each edge.",
            "Give a larger size or a finer spacing.",
        )
    _check_room(int(np.prod(count)))
    matrix = np.diag([-spacing, -spacing, spacing, 1.0])
    matrix[:3, 3] = np.array([1.0, 1.0, -1.0]) * (np.array(count) - 1) / 2 * spacing
    return Grid((count[2], count[1], count[0]), matrix)


def free_layout(
    size: tuple[float, float, float], spacing: float, region: str | None, warnings: list[str] | None = None
) -> Layout:
    """A body that fills the box of :func:`free_grid`."""
    grid = free_grid(size, spacing)
    return Layout(grid, _filling(grid, region), warnings=warnings or [])


def bent_layout(
    size: tuple[float, float, float] | None,
    spacing: float,
    region: str,
    seed: int,
    contrast: bool | None = None,
    asked: Measures | None = None,
) -> Layout | None:
    """A body bent from a template; None where none shows the region in such a box.

    Args:
        asked: what the body shall measure, where no size is given.
    """
    from .bent_body import bent_body, own_size

    body = bent_body(region, size, seed, contrast, asked)
    if body is None:
        return None
    grid = free_grid(own_size(body, region) if size is None else size, spacing)
    warnings = [NOT_FILLED] if contrast and not body.template.contrast else []
    return Layout(grid, _filling(grid, region), warnings=warnings, anatomy=body)


def anatomy_layout(volume: Volume, labels: np.ndarray, region: str | None, expect: bool = True) -> Layout:
    """A body like the labels (k, j, i) on the grid of ``volume``.

    Args:
        expect: begin with the image that is expected of the labels, where these tell the body's outline and an organ.

    Raises:
        InputError: no label at all, numbers that are no labels, or more voxels than fit into memory.
    """
    from ...conditioning.anatomy import BODY_LABEL, check_labels
    from ...conditioning.region import body_box
    from ...preprocessing.body_localization import BodyLocalization, box_in_mm

    labels = check_labels(labels)
    if not labels.any():
        raise InputError("The anatomy map is empty: no voxel is above 0.", "Choose another label map.")
    _check_room(labels.size)
    warnings = []
    if labels.max() == 1 and labels.mean() > SPLEEN_AT_MOST:
        labels = labels * np.uint8(BODY_LABEL)
        warnings.append(
            f"The anatomy map holds label 1 alone, in a large volume: it is taken as the body ({BODY_LABEL})."
        )
    target = Volume(labels, volume.ijk_to_ras, "mask")
    grid = working_grid(target, None)
    body = _filling(grid, region)
    if (labels == BODY_LABEL).any():  # without it the outline of the body is not known
        body = BodyLocalization(*box_in_mm(grid, *body_box(to_grid(target, grid, order=0, fill=0) > 0)), body.guessed)
    from .mapped_body import MappedBody, shows_a_body

    return Layout(grid, body, target, warnings, MappedBody(target) if expect and shows_a_body(labels) else None)


def _filling(grid: Grid, region: str | None) -> BodyLocalization:
    """The box of a body that fills a grid."""
    from ...preprocessing.body_localization import BodyLocalization, box_in_mm, choose_region

    low, high = box_in_mm(grid, np.zeros(3), np.array(grid.shape) - 1.0)
    half = (high - low) / 2 / np.array([1.0, FIELD_OVER_BODY, FIELD_OVER_BODY])
    middle = (low + high) / 2
    name = choose_region(region, BodyLocalization(low, high, None))
    return BodyLocalization(middle - half, middle + half, name)


def _check_room(voxels: int) -> None:
    if voxels > MOST_VOXELS:
        raise InputError(
            f"The result would have {voxels / 1e6:.0f} million voxels, more than {MOST_VOXELS / 1e6:.0f} million.",
            "Choose a coarser spacing or a smaller size.",
        )
