"""Averages of the weights over training: exponential ones, and power-function ones whose length is chosen afterwards.

Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (arXiv 2312.02696), section 3
and appendix C. A power-function average weighs step t in proportion to t^gamma. Its relative width, sigma_rel (standard
deviation of that profile over the length of the training so far), says how long it remembers: 0.1 is about the last
third. From snapshots of two of them the average of any other width, at any step, is a least-squares combination.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

SNAPSHOTS = "averages"
"""Folder of a run that keeps the snapshots."""


def gamma_of(width: float) -> float:
    """Exponent of the power function of relative width ``width`` (equation 126 solved for gamma).

    Raises:
        ValueError: not between 0 and 0.2886, the width of the plain mean of all steps.
    """
    if not 0 < width < 12**-0.5:
        raise ValueError(f"a relative width of {width:g} is not between 0 and {12**-0.5:.4f}")
    s = width**-2
    roots = np.roots([1, 7, 16 - s, 12 - s])
    return float(max(root.real for root in roots if abs(root.imag) < 1e-9))


class Average:
    """Running average of a module's floating-point weights.

    Args:
        module: begins with its weights; itself not changed.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    def decay_at(self, step: int) -> float:
        """Share of the average that stays when the weights after step ``step`` (from 0) are taken in."""
        raise NotImplementedError

    def update(self, source: nn.Module, step: int) -> None:
        """Take in the weights after step ``step``, counted from 0."""
        import torch

        own, current = (
            [t for t in part.state_dict().values() if t.is_floating_point()] for part in (self.module, source)
        )
        with torch.no_grad():
            torch._foreach_lerp_(own, [t.to(m) for m, t in zip(own, current, strict=True)], 1 - self.decay_at(step))


class ExponentialAverage(Average):
    """Exponential moving average; young ones forget faster."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module)
        self.decay = decay

    def decay_at(self, step: int) -> float:
        return min(self.decay, (1 + step) / (10 + step))


class PowerAverage(Average):
    """Average whose profile is a power of the step (equation 127).

    Args:
        width: relative width sigma_rel.
    """

    def __init__(self, module: nn.Module, width: float) -> None:
        super().__init__(module)
        self.width, self.gamma = width, gamma_of(width)

    def decay_at(self, step: int) -> float:
        return (1 - 1 / (step + 1)) ** (self.gamma + 1)


def profile_product(t_a: np.ndarray, gamma_a: np.ndarray, t_b: np.ndarray, gamma_b: np.ndarray) -> np.ndarray:
    """Inner product of the profiles of two power averages, each seen at its step (appendix C, algorithm 3).

    Args:
        t_a, t_b: steps; gamma_a, gamma_b: exponents; broadcast against each other.
    """
    ratio = t_a / t_b
    exponent = np.where(t_a < t_b, gamma_b, -gamma_a)
    largest = np.maximum(t_a, t_b)
    return (gamma_a + 1) * (gamma_b + 1) * ratio**exponent / ((gamma_a + gamma_b + 1) * largest)


def combination(steps: Sequence[float], widths: Sequence[float], step: float, width: float) -> np.ndarray:
    """Weights of snapshots whose sum comes closest to the power average of ``width`` at ``step`` (equation 134).

    Args:
        steps, widths: of each snapshot.

    Returns:
        (n,) float64 whose sum is 1, so that weights at rest stay what they are; not all of them positive.
    """
    t, gamma = np.asarray(steps, dtype=np.float64), np.array([gamma_of(w) for w in widths])
    target_t, target_gamma = np.float64(step), np.float64(gamma_of(width))
    matrix = profile_product(t[:, None], gamma[:, None], t[None], gamma[None])
    right = profile_product(t, gamma, target_t, target_gamma)
    # The profiles of neighboring snapshots are nearly the same: least squares of small norm, not an exact solution.
    weights: np.ndarray = np.linalg.lstsq(matrix, right, rcond=1e-10)[0]
    return weights / weights.sum()


@dataclass(frozen=True)
class Snapshot:
    """One average on disk.

    Attributes:
        step: optimizer steps taken.
        width: relative width.
    """

    path: Path
    step: int
    width: float


def snapshot_path(folder: Path, step: int, width: float) -> Path:
    """File of a snapshot inside a run's folder."""
    return folder / SNAPSHOTS / f"{step:08d}-{width:.3f}.safetensors"


def save_snapshot(folder: Path, average: PowerAverage, step: int) -> Path:
    """Write an average in half precision, atomically."""
    import torch
    from safetensors.torch import save_file

    from ..core.atomic_files import atomic_path

    path = snapshot_path(folder, step, average.width)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        name.replace("_orig_mod.", ""): (t.half() if t.is_floating_point() else t).contiguous().clone()
        for name, t in average.module.state_dict().items()
        if isinstance(t, torch.Tensor)
    }
    with atomic_path(path, overwrite=True) as temporary:
        save_file(state, str(temporary))
    return path


def find_snapshots(folder: Path) -> list[Snapshot]:
    """All snapshots of a run, earliest first."""
    snapshots = []
    for path in sorted((folder / SNAPSHOTS).glob("*.safetensors")):
        step, _, width = path.stem.partition("-")
        if step.isdigit() and width.replace(".", "", 1).isdigit():
            snapshots.append(Snapshot(path, int(step), float(width)))
    return snapshots


def averaged_state(snapshots: Sequence[Snapshot], step: int, width: float) -> dict[str, torch.Tensor]:
    """Weights (float32) of the power average of ``width`` at ``step``, from the snapshots up to that step.

    Raises:
        InputError: there is none.
    """
    from safetensors.torch import load_file

    from ..core.errors import InputError

    used = [s for s in snapshots if s.step <= step]
    if not used:
        raise InputError(f"No average was kept up to step {step}.", "Choose a later step, or train with --averages.")
    shares = combination([s.step for s in used], [s.width for s in used], step, width)
    total: dict[str, torch.Tensor] = {}
    for share, snapshot in zip(shares, used, strict=True):
        for name, tensor in load_file(str(snapshot.path)).items():
            if not tensor.is_floating_point():
                total[name] = tensor
            elif name in total:
                total[name].add_(tensor.double(), alpha=float(share))
            else:
                total[name] = tensor.double() * float(share)
    return {name: t.float() if t.is_floating_point() else t for name, t in total.items()}
