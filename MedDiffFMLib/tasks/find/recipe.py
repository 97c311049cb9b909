"""Search in a CT for what a text says."""

from __future__ import annotations

import numpy as np

from ...core.errors import InputError
from ..base import Case, Run, TaskResult
from .spec import Find


def find(task: Find, case: Case, run: Run) -> TaskResult:
    """Likeness of each place to the text.

    Returns:
        ``likeness``: cosine (k, j, i) float32 on the input's grid; ``places``: where it is largest; ``understood``:
        what the text was taken to mean.
        facts: ``score``: likeness of the best place, by which scans can be ranked; ``prompt``, ``understood``.

    Raises:
        InputError: the text is empty, or nothing of it was understood.
        ModelError: there are no encoders.
        DependencyError: they read texts by a codec that is not installed.
    """
    from ...conditioning.region import body_mask
    from ...imaging.grid import from_grid, to_grid, working_grid
    from ...imaging.volume import thinned
    from ...multimodal.aligned import find_encoders
    from ...multimodal.boxes import SPACING_MM
    from ...multimodal.search import best_places, boxes_in, likeness_map, ras_of, score_of

    prompt = " ".join(case.texts["prompt"].split())
    if not any(letter.isalnum() for letter in prompt):
        raise InputError("The prompt says nothing.", "Write what to look for, such as: nodule in the right lung.")
    encoders = find_encoders(task.encoders)
    vector, understood = encoders.asked(prompt)
    coarse = thinned(case.scan, SPACING_MM / 2)  # the rest is smoothed, as in training
    grid = working_grid(coarse, SPACING_MM)
    hounsfield = np.clip(to_grid(coarse, grid), -1024, 3071)
    body = body_mask(hounsfield)
    meter = run.meter(boxes_in(hounsfield.shape), "looking at each place")
    likeness = likeness_map(hounsfield, vector, encoders, meter.advance)
    places = best_places(likeness, body, task.places)
    rows = []
    for number, one in enumerate(places, 1):
        r, a, s = (round(x, 1) for x in ras_of(one, grid))
        rows.append(
            {"number": number, "likeness": round(one.likeness, 4), "z": round(one.z, 2),
             "r_mm": r, "a_mm": a, "s_mm": s}
        )  # fmt: skip
    score = round(score_of(places), 4)
    return TaskResult(
        volumes={"likeness": from_grid(likeness, grid, case.scan).astype(np.float32)},
        tables={"places": rows},
        texts={"understood": f"{prompt}\n{understood}\n"},
        facts={"score": score, "prompt": prompt, "understood": understood},
    )
