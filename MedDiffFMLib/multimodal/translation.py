"""Translation of a whole image on the working grid: windows of one flow, blended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..core.precision import autocast
from ..inference.window_plan import OVERLAP, cut, plan_windows
from .flow import Flow
from .guidance import Source

WINDOW = 40
"""Edge of the windows; of the size of those in training."""


@dataclass(frozen=True)
class Translated:
    """A translated image on the working grid, (D, H, W) each, network range.

    Attributes:
        image: expected image.
        guess: of the intensities alone.
        variance: of the error.
    """

    image: torch.Tensor
    guess: torch.Tensor
    variance: torch.Tensor


def translate_image(
    flow: Flow,
    image: torch.Tensor,
    seen: torch.Tensor,
    body: torch.Tensor,
    guess: torch.Tensor | None = None,
    strength: float = 1.0,
    done: Callable[[float], None] = lambda share: None,
    precision: str = "auto",
) -> Translated:
    """Translate an image in one evaluation of a flow.

    Args:
        image: (D, H, W) of the flow's source, network range.
        seen, body: (D, H, W), 1 where the scanner saw something, and in the body.
        guess: (D, H, W), first guess in the network's range; None for the lookup's.
        strength: share of the flow's correction that is taken.
        done: called after each window with its share of the work.
    """
    (name,) = flow.config.sources
    device = next(flow.parameters()).device
    shape = (image.shape[0], image.shape[1], image.shape[2])
    plan = plan_windows(shape, WINDOW, OVERLAP, flow.config.divisor)
    totals = [torch.zeros(shape) for _ in range(3)]
    zero, absent = torch.zeros(1, device=device), torch.full((1,), torch.inf, device=device)
    with torch.inference_mode(), autocast(device, precision):
        for box in plan.boxes:
            given = (image, seen, body) if guess is None else (image, seen, body, guess)
            parts = [cut(whole, box, plan.offset)[None, None].to(device) for whole in given]
            sources = {name: Source(parts[0], zero, *parts[1:])}
            estimate = flow(parts[0], absent, sources)
            first = flow.guess(parts[0], sources)
            answers = (torch.lerp(first, estimate.image, strength), first, estimate.variance())
            place, part, weight = plan.placed(box, shape)
            for total, answer in zip(totals, answers, strict=True):
                total[place].addcmul_(answer[0, 0].float().cpu()[part], weight)
            done(1 / len(plan.boxes))
    return Translated(*totals)
