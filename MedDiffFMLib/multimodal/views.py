"""Views: where source and detector stand around a body.

Pictures hang as usual: seen from the detector's side, so that the patient's right is on the picture's left; AP, with
the detector at the back, is seen from the source for the same reason, and so is the view of a camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError
from ..imaging.grid import Grid
from .beam import Beam
from .framing import Frame
from .names import CAMERA, MAX_PIXELS, MIN_PIXELS, Angles

MARGIN_MM = 10.0
"""Of air around the body's shadow."""
AIR_MM = 20.0
"""Least distance from the source to the body."""
_MIN_COMPLETE = 0.6
"""Share of the body's height that has to stay when rays that the scan's ends cut are left out."""


@dataclass(frozen=True)
class View:
    """A direction.

    Attributes:
        name: for files and titles.
        ahead: unit vector (RAS) from source to detector.
        right, down: unit vectors (RAS) along the picture's rows and columns.
        source: RAS mm of the source where the view says it, as a camera does.
    """

    name: str
    ahead: np.ndarray
    right: np.ndarray
    down: np.ndarray
    source: np.ndarray | None = None


@dataclass(frozen=True)
class Setup:
    """Distances and detector.

    Attributes:
        source_distance: mm from source to detector, None for parallel rays.
        gap: mm from the body to the detector.
        pixels: along the longer edge of the picture.
        field: mm of the longer edge at the detector, None for as much as the body's shadow takes.
        complete: leave out rows at the ends of the scan in which rays pass through a part of the body only.
    """

    source_distance: float | None = 1800.0
    gap: float = 50.0
    pixels: int = 512
    field: float | None = None
    complete: bool = True


def from_angles(angles: Angles) -> View:
    """View by the place of the detector."""
    a, b = np.radians(angles.left), np.radians(angles.up)
    ahead = np.array([-np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), np.sin(b)])
    right = np.array([-np.cos(a), -np.sin(a), 0.0])
    down = np.array([-np.sin(a) * np.sin(b), np.cos(a) * np.sin(b), -np.cos(b)])
    return View(angles.name, ahead, -right if angles.from_source else right, down)


def from_camera(position: tuple[float, ...], focal_point: tuple[float, ...], view_up: tuple[float, ...]) -> View:
    """View of a camera, RAS mm, with the source in its place: shadows lie where the camera sees what casts them.

    Raises:
        InputError: the camera looks nowhere, or along its own view up.
    """
    eye, target, up = (np.asarray(vector, float) for vector in (position, focal_point, view_up))
    ahead = target - eye
    right = np.cross(ahead, up)
    usable = np.isfinite([eye, target, up]).all() and np.linalg.norm(right) > 1e-6 * np.linalg.norm(ahead)
    if not usable:
        raise InputError(
            "The camera has no direction, or looks along its own view up.", "Give position, focal point and view up."
        )
    ahead, right = ahead / np.linalg.norm(ahead), right / np.linalg.norm(right)
    return View(CAMERA, ahead, right, np.cross(ahead, right), eye)


def aim(view: View, frame: Frame, setup: Setup) -> tuple[Beam, bool]:
    """Beam of a view whose detector stands behind the body and covers its shadow.

    Returns:
        The beam, and whether no ray passes through an end of the scan at which the body is cut off.

    Raises:
        InputError: the source would stand in the body, or the detector has too few pixels.
    """
    if not MIN_PIXELS <= setup.pixels <= MAX_PIXELS:
        raise InputError(
            f"A detector of {setup.pixels} pixels makes no picture.", f"Give {MIN_PIXELS} to {MAX_PIXELS} pixels."
        )
    unit = np.eye(4)
    unit[:3, :3] = np.column_stack([view.right, view.down, view.ahead])
    unit[:3, 3], source = _place(view, frame, setup)
    plane = Beam(Grid((1, 1, 1), unit), source)  # pixels of 1 mm, to measure shadows with
    low, high, complete = _window(plane, view, frame, setup)
    pixel = (high - low).max() / setup.pixels
    columns, rows = (max(MIN_PIXELS, round(float(length / pixel))) for length in high - low)
    first = (low + high - pixel * np.array([columns - 1, rows - 1])) / 2
    matrix = unit.copy()
    matrix[:3, 3] += unit[:3, :2] @ first
    matrix[:3, :2] *= pixel
    return Beam(Grid((1, rows, columns), matrix), source), complete


def _place(view: View, frame: Frame, setup: Setup) -> tuple[np.ndarray, np.ndarray | None]:
    """Point where the central ray meets the detector, and the source; RAS mm."""
    middle = frame.center if view.source is None else view.source
    depths = (frame.outline - middle) @ view.ahead
    target = middle + (depths.max() + setup.gap) * view.ahead
    if view.source is not None:
        source, distance = view.source, float(depths.max() + setup.gap)
    elif setup.source_distance is None:
        return target, None
    else:
        source, distance = target - setup.source_distance * view.ahead, setup.source_distance
    needed = float(np.ptp(depths)) + setup.gap
    if distance <= needed + AIR_MM:
        raise InputError(
            f"The source would stand inside the body: it is {distance:.4g} mm from the detector, and body and gap take "
            f"up {needed:.4g} mm.",
            f"Give a source distance of {needed + AIR_MM:.0f} mm or more, or move the camera away.",
        )
    return target, source


def _window(plane: Beam, view: View, frame: Frame, setup: Setup) -> tuple[np.ndarray, np.ndarray, bool]:
    """First and last mm (right, down) of the picture, and whether it leaves out all rays that are cut."""
    shadows = plane.shadows(frame.outline)
    low, high = shadows.min(0) - MARGIN_MM, shadows.max(0) + MARGIN_MM
    feet, head = (plane.shadows(end)[:, 1] for end in frame.ends)
    top = head.max() if len(head) else low[1]
    bottom = feet.min() if len(feet) else high[1]
    upright = view.down[2] < 0 and view.source is None
    complete = bool(upright and bottom - top >= _MIN_COMPLETE * (high[1] - low[1]))
    if complete and setup.complete:
        low[1], high[1] = top, bottom
    if setup.field is not None:
        middle = (low + high) / 2
        low, high = middle - setup.field / 2, middle + setup.field / 2
    cut = (len(head) and low[1] < top) or (len(feet) and high[1] > bottom)
    return low, high, not cut
