"""On a machine with a GPU: results are those of the CPU, memory stays within the plan, runs repeat.

What these state is tested everywhere else on a pretend GPU, which cannot tell rounding, speed and workspaces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedDiffFMLib.conditioning.condition import Condition
from MedDiffFMLib.datasets.prepare import prepare
from MedDiffFMLib.datasets.prepared_cases import open_cases
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.inference.engine import Engine
from MedDiffFMLib.inference.memory_plan import plan_memory
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.registry import TASKS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

TASKS_AND_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("denoise", {"noise": 20.0, "blocks": 0.0, "detail": 0.0}),
    ("anomaly", {"threshold": 0.7, "method": "cubes"}),
    ("inpaint", {"samples": 2}),
]


def found(name: str, options: dict[str, Any], ct: Volume, device: str, precision: str) -> dict[str, np.ndarray]:
    """The shipped model's result."""
    mask = None
    if name == "inpaint":
        mask = np.zeros(ct.voxels.shape, bool)
        mask[8:12, 16:22, 10:15] = True
    model = load_model("starter-ct", device=device, precision=precision)
    return TASKS[name](**options).run(Case(ct, mask), Run(model, seed=3)).volumes


@pytest.mark.parametrize(("name", "options"), TASKS_AND_OPTIONS)
def test_a_task_finds_on_the_gpu_what_it_finds_on_the_cpu(name: str, options: dict[str, Any], small_ct: Volume) -> None:
    expected = found(name, options, small_ct, "cpu", "float32")
    for precision, limit in (("float32", 0.02), ("auto", 0.1)):
        for key, array in found(name, options, small_ct, "cuda", precision).items():
            spread = expected[key].astype(float).std()
            error = np.abs(array.astype(float) - expected[key]).mean()
            assert error <= limit * max(spread, 1e-3), (key, precision)


def test_a_repeated_run_gives_the_same_bits(small_ct: Volume) -> None:
    first, second = (found("denoise", {"noise": 20.0}, small_ct, "cuda", "auto") for _ in range(2))
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_windows_take_no_more_memory_than_the_plan_assumes() -> None:
    """With cuDNN's workspaces and the allocator's blocks, which a pretend GPU does not know."""
    model = load_model("starter-ct", device="cuda", precision="auto")
    engine: Engine = model.engine
    edge, batch = engine.memory_level.window, 8
    condition = Condition((1.0, 1.0, 1.0)).encode((edge,) * 3, engine.device)
    parts = type(condition)(condition.region.repeat(batch), condition.channels.repeat(batch, 1, 1, 1, 1))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    engine.denoise(torch.zeros(batch, 1, edge, edge, edge, device="cuda"), 0.03, parts)
    used = torch.cuda.max_memory_allocated() - before
    assert used <= batch * plan_memory(0, 1, edge).device_bytes


def test_training_learns_and_continues(small_ct: Volume, tmp_path: Path) -> None:
    import csv
    import json

    from MedDiffFMLib.cli import main
    from MedDiffFMLib.imaging.io import write_volume

    write_volume(small_ct, tmp_path / "chest.nrrd")
    (tmp_path / "list.json").write_text(json.dumps({"training": ["chest.nrrd"], "validation": []}))
    prepare(tmp_path / "list.json", tmp_path / "cache")
    assert open_cases(tmp_path / "cache", "training")
    command = ["pretrain", str(tmp_path / "cache"), "-o", str(tmp_path / "run"), "--windows-on-device", "--batch", "8",
               "--accelerator", "gpu", "--window", "32", "--learning-rate", "0.002",
               "--checkpoint-every", "20"]  # fmt: skip
    for steps in ("40", "80"):
        assert main([*command, "--steps", steps]) == 0
    with open(tmp_path / "run" / "losses.csv") as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert len(losses) == 80 and np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])
