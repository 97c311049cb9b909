"""Judgement of translation on patients that were held out, and what they decide: strength and spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...imaging.intensity import HU_LIMIT, to_network
from ...multimodal.flow import BACKGROUND, Flow
from ...multimodal.mr_intensity import FAT
from ...multimodal.names import CT, MR_T1
from ...multimodal.translation import translate_image
from .translation_windows import RealPair

BONE_HU = 150
NINETY = 1.645
"""Standard deviations to both sides that hold 90 % of a normal distribution."""
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the flow's correction of the guess that are tried."""
UNIT = {CT: HU_LIMIT, MR_T1: float(FAT.to_values(np.zeros(1))[0])}
"""Target -> its unit (HU, fat) for one of the network's range."""


@dataclass(frozen=True)
class Judged:
    """Both directions of one pair, values in what both images show as body, (n,) each.

    Attributes:
        truth: target -> HU, or units of fat.
        made: target -> translated.
        guess: target -> what the flow begins with.
        lookup: HU by intensities alone.
        spread: target -> standard deviation as the flow says.
    """

    truth: dict[str, np.ndarray]
    made: dict[str, np.ndarray]
    guess: dict[str, np.ndarray]
    lookup: np.ndarray
    spread: dict[str, np.ndarray]

    def result(self, target: str, strength: float) -> np.ndarray:
        """The guess with a share of the flow's correction."""
        return self.guess[target] + strength * (self.made[target] - self.guess[target])

    def error(self, target: str, strength: float) -> np.ndarray:
        """Absolute error of each voxel."""
        return np.abs(self.result(target, strength) - self.truth[target])


def judge(flows: Mapping[str, Flow], row: RealPair) -> Judged:
    """Translate a pair both ways."""
    pair = row.pair
    arrays = (to_network(pair.hounsfield), row.image, pair.seen, pair.body, row.mr_body, row.guess)
    ct, mr, seen, ct_body, body, first = (torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in arrays)
    used = (seen * ct_body * body) > 0
    given = {CT: (mr, body, first), MR_T1: (ct, ct_body, None)}
    truth = {CT: HU_LIMIT * ct[used].numpy(), MR_T1: FAT.to_values(mr[used].numpy())}
    made, guess, spread = {}, {}, {}
    for target, (image, outline, start) in given.items():
        found = translate_image(flows[target], image, seen, outline, start)
        offset = 0.0 if target == CT else 1.0  # signal begins at the low end of the network's range
        made[target] = (UNIT[target] * (found.image[used] + offset)).numpy()
        guess[target] = (UNIT[target] * (found.guess[used] + offset)).numpy()
        spread[target] = (UNIT[target] * found.variance[used].sqrt()).numpy()
    table: Any = flows[CT].lookup[MR_T1]
    sure = torch.zeros(1, device=table.values.device)
    usual = torch.where(body > 0.5, table(mr[None, None].to(sure.device), sure)[0, 0].cpu(), BACKGROUND)[used]
    return Judged(truth, made, guess, (HU_LIMIT * usual).numpy(), spread)


def figures(judged: Sequence[Judged], strength: Mapping[str, float]) -> dict[str, float]:
    """Means over pairs: errors of both directions, of guess and lookups, Dice of bone."""
    rows = []
    for pair in judged:
        made, truth = pair.result(CT, strength[CT]), pair.truth[CT]
        rows.append({
            "ct_mae": pair.error(CT, strength[CT]).mean(),
            "ct_guess": pair.error(CT, 0).mean(),
            "ct_lookup": np.abs(pair.lookup - truth).mean(),
            "bone_dice": dice(made > BONE_HU, truth > BONE_HU),
            "covered": np.mean(np.abs(made - truth) < NINETY * pair.spread[CT]),
            "mr_mae": pair.error(MR_T1, strength[MR_T1]).mean(),
            "mr_lookup": pair.error(MR_T1, 0).mean(),
        })  # fmt: skip
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def chosen_strength(judged: Sequence[Judged]) -> dict[str, float]:
    """Target -> share of the flow's correction with the least mean error; all of it where nobody judges."""
    if not judged:
        return {CT: 1.0, MR_T1: 1.0}
    return {
        target: min(STRENGTHS, key=lambda share: float(np.mean([pair.error(target, share).mean() for pair in judged])))
        for target in (CT, MR_T1)
    }


def calibrated_spread(judged: Sequence[Judged], strength: Mapping[str, float]) -> dict[str, float]:
    """Factors on the standard deviations with which 90 % intervals hold 90 % of the voxels that were held out.

    Each patient counts alike; the factor is 1 without any.
    """
    factors = {}
    for target, share in strength.items():
        ratios = [pair.error(target, share) / np.maximum(pair.spread[target], 1e-6) for pair in judged]
        found = [float(np.quantile(ratio, 0.9)) / NINETY for ratio in ratios]
        factors[target] = round(float(np.mean(found)), 4) if found else 1.0
    return factors


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of two masks, bool (n,) each."""
    return float(2 * np.count_nonzero(found & truth) / max(np.count_nonzero(found) + np.count_nonzero(truth), 1))
