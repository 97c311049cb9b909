"""Windows for the flows of translation: of real pairs of CT and MR, and of MRs simulated from CTs.

Window n is a pure function of (seed, n). In a simulated one the geometry is exact; a real one may be some voxels off,
which the loss tolerates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...conditioning.tissue import OUTSIDE
from ...datasets.prepared_cases import Case
from ...imaging.intensity import to_network
from ...imaging.resampling import resample_box
from ...multimodal.local_guess import Example, LocalGuess
from ...multimodal.mr_body import mr_body
from ...multimodal.mr_intensity import FAT
from ...multimodal.pairs import SPACING_MM, Pair
from ...multimodal.simulate_mr import bias_field, draw_contrast, simulate_mr

ZOOM = 1.12
"""Largest factor on the patient's size, both ways."""
AIR_WEIGHT = 0.1
"""Of voxels outside of the body in the loss."""


@dataclass(frozen=True)
class Window:
    """Both modalities of a place, (1, D, H, W) float32 tensors each.

    Attributes:
        ct, mr: in the network's range.
        seen: 1 where the scanners saw something.
        ct_body, mr_body: the body as each of the images shows it.
        guess: first guess of the CT from the MR, network range.
        weight: of each voxel in the loss.
        real: whether the MR is a scanner's.
    """

    ct: torch.Tensor
    mr: torch.Tensor
    seen: torch.Tensor
    ct_body: torch.Tensor
    mr_body: torch.Tensor
    weight: torch.Tensor
    guess: torch.Tensor
    real: bool


@dataclass(frozen=True)
class RealPair:
    """A pair with the body as its MR shows it.

    Attributes:
        guess: first guess of the CT, network range; None before there is one.
    """

    pair: Pair
    mr_body: np.ndarray
    guess: np.ndarray | None = None

    @staticmethod
    def of(pair: Pair) -> RealPair:
        """The body is found once."""
        return RealPair(pair, mr_body(pair.mr, (SPACING_MM,) * 3) & pair.seen)

    @property
    def image(self) -> np.ndarray:
        """The MR in the network's range, float32 (k, j, i)."""
        return FAT.to_network(np.where(self.pair.seen, self.pair.mr, 0))

    def example(self) -> Example:
        """What teaches the first guess: what both images show as body."""
        used = self.pair.seen & self.pair.body & self.mr_body
        return Example(self.image, self.mr_body, used, to_network(self.pair.hounsfield), self.pair.patient)

    def guessed(self, guess: LocalGuess) -> RealPair:
        """With the first guess of its CT."""
        return replace(self, guess=guess.of_image(self.image, self.mr_body, SPACING_MM))


class TranslationWindows:
    """Draws windows.

    Args:
        pairs: real ones.
        cases: prepared CTs with tissue classes, from which MRs are simulated.
        size: (D, H, W) voxels of ``SPACING_MM``.
        guess: for simulated MRs; the real ones bring theirs.
    """

    def __init__(
        self,
        pairs: Sequence[RealPair],
        cases: Sequence[Case],
        size: tuple[int, int, int],
        seed: int,
        guess: LocalGuess,
    ) -> None:
        self.pairs, self.cases, self.size, self.seed, self.guess = pairs, cases, size, seed, guess
        # Half of the simulated windows come from the patients of the pairs, whose anatomy translation is for.
        patients = {pair.pair.patient for pair in pairs}
        volume = np.array([np.prod(case.levels[0].shape) for case in cases], dtype=float) ** 0.5
        own = np.array([case.patient in patients for case in cases], dtype=bool)
        chances = np.where(own, volume / max(volume[own].sum(), 1), volume / max(volume[~own].sum(), 1))
        self.chances = chances / chances.sum() if len(cases) else chances
        self._bodies: dict[int, np.ndarray] = {}

    def draw(self, number: int, real_share: float) -> Window:
        """Window ``number`` of the run."""
        rng = np.random.default_rng([self.seed, number])
        real = not self.cases or rng.random() < real_share
        window = self._real(rng) if real else self._simulated(rng)
        flipped = [axis for axis in (1, 3) if rng.random() < 0.5]
        turned: dict[str, Any] = {
            name: torch.flip(value, flipped) for name, value in vars(window).items() if isinstance(value, torch.Tensor)
        }
        return replace(window, **turned)

    def _real(self, rng: np.random.Generator) -> Window:
        row = self.pairs[int(rng.integers(len(self.pairs)))]
        pair = row.pair
        start, step = self._place(np.argwhere(pair.body[::2, ::2, ::2]) * 2, pair.body.shape, np.ones(3), rng)
        assert row.guess is not None
        hounsfield, signal, seen, body, other, guess = (
            resample_box(array, start, step, self.size)
            for array in (pair.hounsfield, pair.mr, pair.seen, pair.body, row.mr_body, row.guess)
        )
        inside = _inside(start, step, self.size, pair.body.shape)
        gain, gamma, strength = np.exp(rng.normal(0, 0.08)), np.exp(rng.normal(0, 0.1)), np.exp(rng.uniform(0, 0.2))
        signal = np.clip(signal, 0, None) ** gamma * gain * bias_field(self.size, strength, rng)
        seen = (seen > 0.99) & inside
        return _window(hounsfield, signal, seen, body > 0.5, (other > 0.5) & seen, guess, True)

    def _simulated(self, rng: np.random.Generator) -> Window:
        from scipy.ndimage import gaussian_filter

        number = int(rng.choice(len(self.cases), p=self.chances))
        case = self.cases[number]
        level = case.levels[case.level_for(np.full(3, SPACING_MM))]
        tissue = level.tissue
        assert tissue is not None
        if number not in self._bodies:
            thin = [max(int(8 / edge), 1) for edge in level.spacing]
            self._bodies[number] = np.argwhere(tissue[tuple(slice(None, None, n) for n in thin)] > OUTSIDE) * thin
        start, step = self._place(self._bodies[number], level.shape, SPACING_MM / level.spacing, rng)
        hounsfield = resample_box(level.voxels, start, step, self.size)
        index = [
            np.clip(np.rint(start[a] + step[a] * np.arange(self.size[a])), 0, level.shape[a] - 1).astype(int)
            for a in range(3)
        ]
        classes = np.asarray(tissue[np.ix_(*index)])
        edges = (SPACING_MM,) * 3
        signal = simulate_mr(hounsfield, classes, edges, draw_contrast(rng), rng) * np.exp(rng.normal(0, 0.08))
        signal = gaussian_filter(signal, rng.uniform(0.3, 0.8))  # classes of whole voxels have steps for edges
        body = classes > OUTSIDE
        seen = _inside(start, step, self.size, level.shape) & _field(self.size, rng)
        hounsfield = np.where(body, hounsfield, np.minimum(hounsfield, -700))  # the table
        image = FAT.to_network(np.where(seen, signal, 0))
        guess = self.guess.of_image(image, body & seen, SPACING_MM)
        return _window(hounsfield, signal, seen, body, body & seen, guess, False)

    def _place(
        self, body: np.ndarray, shape: tuple[int, ...], step: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """First voxel and step of a window that shows a voxel of the body near its middle."""
        step = step * np.exp(rng.uniform(-1, 1) * np.log(ZOOM))
        extent = step * (np.array(self.size) - 1)
        center = body[int(rng.integers(len(body)))] if len(body) else np.array(shape) / 2
        start = center - extent / 2 + rng.uniform(-0.2, 0.2, 3) * extent
        room = np.array(shape) - 1 - extent
        return np.where(room > 0, np.clip(start, 0, np.maximum(room, 0)), room / 2), step


def _window(
    hounsfield: np.ndarray,
    signal: np.ndarray,
    seen: np.ndarray,
    ct_body: np.ndarray,
    body: np.ndarray,
    guess: np.ndarray,
    real: bool,
) -> Window:
    weight = np.where(ct_body | body, 1.0, AIR_WEIGHT) * seen
    arrays = (to_network(hounsfield), FAT.to_network(np.where(seen, signal, 0)), seen, ct_body, body, weight, guess)
    images = [torch.from_numpy(np.ascontiguousarray(array, np.float32))[None] for array in arrays]
    ct, mr, inside, ct_outline, mr_outline, weights, first = images
    return Window(ct, mr, inside, ct_outline, mr_outline, weights, first, real)


def _inside(start: np.ndarray, step: np.ndarray, size: tuple[int, int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Voxels of a window that lie in the volume, bool (k, j, i)."""
    lines = []
    for axis in range(3):
        place = start[axis] + step[axis] * np.arange(size[axis])
        lines.append((place > -0.6) & (place < shape[axis] - 0.4))
    return lines[0][:, None, None] & lines[1][:, None] & lines[2]


def _field(size: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A field of view that ends within some of the windows, bool (k, j, i)."""
    seen = np.ones(size, bool)
    if rng.random() < 0.25:
        axis = int(rng.integers(3))
        cut = int(rng.integers(1, max(size[axis] // 2, 2)))
        part: list[slice] = [slice(None)] * 3
        part[axis] = slice(None, cut) if rng.random() < 0.5 else slice(size[axis] - cut, None)
        seen[tuple(part)] = False
    return seen
