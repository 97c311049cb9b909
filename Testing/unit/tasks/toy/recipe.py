"""The toy itself."""

from __future__ import annotations

import numpy as np

from MedDiffFMLib.tasks.base import Case, Run, TaskResult

from .spec import Toy


def toy(parameters: Toy, case: Case, run: Run) -> TaskResult:
    """A plane (1, k, i) of the CT's means along j, which stands at its first row, and the MR twice as bright."""
    ct, mr = case.scan, case.scans["mr"]
    meter = run.meter(1, "playing")
    shadow = parameters.gain * ct.voxels.mean(axis=1, dtype=np.float32)[None]
    place = ct.ijk_to_ras[:, [0, 2, 1, 3]]
    k, j, i = np.unravel_index(np.argmax(mr.voxels), mr.voxels.shape)
    r, a, s = (round(float(x), 1) for x in (mr.ijk_to_ras @ [i, j, k, 1])[:3])
    meter.advance()
    name = case.texts["prompt"]
    return TaskResult(
        {"shadow": shadow, "bright": 2 * mr.voxels},
        tables={"places": [{"name": name, "r_mm": r, "a_mm": a, "s_mm": s, "signal": float(mr.voxels.max())}]},
        texts={"answer": f"{name} is at R {r}, A {a}, S {s}."},
        facts={"region": "chest"},
        ijk_to_ras={"shadow": place, "bright": mr.ijk_to_ras},
    )
