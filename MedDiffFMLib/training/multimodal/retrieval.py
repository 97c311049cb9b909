"""How well the encoders align: retrieval among boxes that were held out, and whether links that were never trained
are there all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...multimodal.acquisitions import another_ct, another_mr
from ...multimodal.aligned import AlignedEncoders
from ...multimodal.boxes import byte_input, ct_input
from ...multimodal.encoders import Vectors
from ...multimodal.invariant import effective_rank, sameness
from ...multimodal.spoken_facts import items
from .box_pool import Boxes

PERMUTATIONS = 2000
CANDIDATES, FIRST = 100, 5
XRAYS = 24
_CHUNK, _TEXTS = 32, 1024


@dataclass(frozen=True)
class Embedded:
    """Vectors of held-out boxes, one row a box.

    Attributes:
        text, ct, mr, xray: (n, 128) float32.
        patient: (n,) number of the patient.
        rank, cosine: by modality ("ct", "mr", "xray"), effective rank of the local vectors and mean cosine between
            those of two acquisitions.
    """

    text: np.ndarray
    ct: np.ndarray
    mr: np.ndarray
    xray: np.ndarray
    patient: np.ndarray
    rank: dict[str, float]
    cosine: dict[str, float]


@torch.inference_mode()
def embed(encoders: AlignedEncoders, pool: Sequence[Boxes], seed: int = 0) -> Embedded:
    """Vectors of all boxes of a pool, computed where the encoders are; X-rays are AP."""
    device = next(encoders.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    ct = ct_input(np.concatenate([boxes.ct for boxes in pool]))
    first, second = (byte_input(np.concatenate([boxes.mr[:, n] for boxes in pool])) for n in range(2))
    ap, turned = (byte_input(np.concatenate([boxes.xray[:, n] for boxes in pool])) for n in range(2))
    texts = [facts for boxes in pool for facts in boxes.facts]
    pairs = {
        "ct": [_encoded(encoders.ct, image, device) for image in (ct, another_ct(ct, generator))],
        "mr": [_encoded(encoders.mr, image, device) for image in (first, another_mr(second, generator))],
        "xray": [_encoded(encoders.xray, image, device) for image in (ap, turned)],
    }
    patients = sorted({boxes.patient for boxes in pool})
    patient = np.concatenate([np.full(len(boxes.ct), patients.index(boxes.patient)) for boxes in pool])
    return Embedded(
        text=torch.cat([encoders.text(texts[n : n + _TEXTS]).cpu() for n in range(0, len(texts), _TEXTS)]).numpy(),
        **{name: one[0].numpy() for name, (one, _) in pairs.items()},
        patient=patient,
        rank={name: effective_rank(one[1]) for name, (one, _) in pairs.items()},
        cosine={name: sameness(one[1], other[1]) for name, (one, other) in pairs.items()},
    )


def _encoded(
    encode: Callable[[torch.Tensor], Vectors], images: torch.Tensor, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    found = [encode(part.to(device)) for part in images.split(_CHUNK)]
    return torch.cat([one.whole.cpu() for one in found]), torch.cat([one.parts.cpu() for one in found])


def recall(queries: np.ndarray, keys: np.ndarray, candidates: int, first: int) -> float:
    """Share of queries whose own key is among the ``first`` of so many, over all sets of candidates."""
    return float(hits(queries, keys, candidates, first).mean())


def hits(queries: np.ndarray, keys: np.ndarray, candidates: int, first: int) -> np.ndarray:
    """Probability for each query (n,) that its own key is among the ``first`` of so many candidates drawn at random.

    Of the n - 1 other keys some are more alike; how many of those are drawn is hypergeometric.
    """
    from scipy.stats import hypergeom

    cosines = queries @ keys.T
    better = (cosines > np.diag(cosines)[:, None]).sum(1)
    others = len(queries) - 1
    found: np.ndarray = hypergeom.cdf(first - 1, others, better, min(candidates - 1, others))
    return found


def interval_over_patients(values: np.ndarray, patient: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % of the means of values (n,) when patients are drawn again with their boxes."""
    rng = np.random.default_rng(seed)
    sums = np.array([[values[patient == p].sum(), (patient == p).sum()] for p in np.unique(patient)])
    drawn = sums[rng.integers(len(sums), size=(PERMUTATIONS, len(sums)))].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    return float(low), float(high)


def chance_of(queries: np.ndarray, keys: np.ndarray, patient: np.ndarray | None = None, seed: int = 0) -> float:
    """Probability that pairs at random would be as alike as the true ones are, by permutation.

    Args:
        patient: keys are exchanged among boxes of one patient only, so that knowing the patient is not enough.
    """
    rng = np.random.default_rng(seed)
    cosines = queries @ keys.T
    true = float(np.diag(cosines).mean())
    groups = [np.arange(len(keys))] if patient is None else [np.flatnonzero(patient == p) for p in np.unique(patient)]
    above = 0
    for _ in range(PERMUTATIONS):
        order = np.arange(len(keys))
        for group in groups:
            order[group] = rng.permutation(group)
        above += float(cosines[np.arange(len(keys)), order].mean()) >= true
    return (above + 1) / (PERMUTATIONS + 1)


def figures(found: Embedded) -> dict[str, float]:
    """What is judged while training goes on."""
    return {
        "text_ct_r5": recall(found.text, found.ct, CANDIDATES, FIRST),
        "text_xray_r5": recall(found.text, found.xray, CANDIDATES, FIRST),
        "ct_mr_r1": recall(found.ct, found.mr, XRAYS, 1),
        "ct_xray_r1": recall(found.ct, found.xray, XRAYS, 1),
        "text_mr_r5": recall(found.text, found.mr, CANDIDATES, FIRST),
        "mr_xray_r1": recall(found.mr, found.xray, XRAYS, 1),
        **{f"rank_{name}": value for name, value in found.rank.items()},
        **{f"cosine_{name}": value for name, value in found.cosine.items()},
    }


def table(encoders: AlignedEncoders, pool: Sequence[Boxes]) -> dict[str, float]:
    """All figures of a pool, with what chance gives, facts that are matched directly, and the mean attenuation."""
    found = embed(encoders, pool)
    facts = np.stack([items(box) for boxes in pool for box in boxes.facts])
    means = [np.concatenate([part(boxes) for boxes in pool]) for part in (_mean_density, _mean_attenuation)]
    by_mean = recall(_on_an_arc(means[0]), _on_an_arc(means[1]), XRAYS, 1)
    links = {
        "text_ct": (found.text, found.ct), "text_xray": (found.text, found.xray), "ct_mr": (found.ct, found.mr),
        "ct_xray": (found.ct, found.xray), "text_mr": (found.text, found.mr), "mr_xray": (found.mr, found.xray),
    }  # fmt: skip
    rows = {
        "boxes": float(len(found.ct)), "patients": float(len(np.unique(found.patient))), **figures(found),
        "chance_r5": FIRST / min(CANDIDATES, len(found.ct)), "chance_r1": 1 / min(XRAYS, len(found.ct)),
        "facts_matched_r5": recall(_unit(facts), _unit(facts), CANDIDATES, FIRST),
        "ct_xray_r1_by_mean_attenuation": by_mean,
    }  # fmt: skip
    for name, (one, other) in links.items():
        size, first = (CANDIDATES, FIRST) if name.startswith("text") else (XRAYS, 1)
        low, high = interval_over_patients(hits(one, other, size, first), found.patient)
        rows |= {f"{name}_low": low, f"{name}_high": high, f"{name}_p": chance_of(one, other)}
        rows[f"{name}_p_within_patients"] = chance_of(one, other, found.patient)
    return {name: round(value, 4) for name, value in rows.items()}


def _mean_density(boxes: Boxes) -> np.ndarray:
    return np.clip(boxes.ct + 1000.0, 0, None).mean((1, 2, 3))


def _mean_attenuation(boxes: Boxes) -> np.ndarray:
    """Of the AP X-ray."""
    return boxes.xray[:, 0].mean((1, 2))


def _on_an_arc(values: np.ndarray) -> np.ndarray:
    """Unit vectors whose cosine is the larger the nearer the ranks of two numbers are."""
    angles = np.argsort(np.argsort(values)) / len(values) * np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
