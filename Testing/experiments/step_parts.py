"""What the parts of a training step take on a device: windows made there, the network, and both.

    python Testing/experiments/step_parts.py CACHE [--device cuda] [--batch 64] [--pretrain OPTIONS]

OPTIONS are those of ``meddifffm pretrain``.

Parts are timed one by one, the device waited for after each: their sum is more than a step, in which they overlap.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

REPEATS = {"cuda": 8, "cpu": 1}


def measure_parts(cache: Path, initial: Path | None, device: str, batch: int, options: list[str]) -> dict[str, Any]:
    """Seconds of each part, windows a second, share of the matrix rate in the type that the network computes in."""
    from MedDiffFMLib.cli.main import build_parser
    from MedDiffFMLib.cli.pretrain import settings
    from MedDiffFMLib.core.precision import choose_precision
    from MedDiffFMLib.datasets.prepared_cases import open_cases
    from MedDiffFMLib.models.checkpoint import build_denoiser, read_header
    from MedDiffFMLib.training.pretrain.device_batches import DeviceBatches
    from MedDiffFMLib.training.pretrain.run import LossModule
    from MedDiffFMLib.training.throughput import matrix_rate, step_flops

    given = ["--initial", str(initial)] if initial else []
    args = build_parser().parse_args(["pretrain", str(cache), "-o", "-", "--batch", str(batch), *given, *options])
    config = settings(args, read_header(initial) if initial else None)
    place = torch.device("cuda:0" if device == "cuda" else device)
    fabric = SimpleNamespace(device=place, world_size=1, global_rank=0)
    batches = DeviceBatches(open_cases(cache, "training"), config, fabric, 0)
    batches.start(0, None)
    plans = [next(batches._plans) for _ in range(2)]
    module = LossModule(build_denoiser(config.model_config()), True, config.weighting).to(place)
    module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(module.parameters(), 1e-6, fused=True)
    made = batches.maker.make(plans[0])

    def learn() -> None:
        batches._iterator = iter([made])
        super(DeviceBatches, batches).loss(module, 0).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    repeats = REPEATS[place.type]
    seconds = {"plan": _seconds(lambda: next(batches._plans), place, repeats)}
    seconds |= {name: _seconds(part, place, repeats) for name, part in _parts(batches.maker, plans[1]).items()}
    seconds["network"] = _seconds(learn, place, repeats)
    work = step_flops(lambda: LossModule(build_denoiser(config.model_config()), False), batch, config.windows.size)
    rate = matrix_rate(place, choose_precision("auto", place))
    return {
        "batch": batch,
        "seconds": {name: round(value, 5) for name, value in seconds.items()},
        "windows_per_second": {name: round(batch / seconds[name], 2) for name in ("make", "network")},
        "tflops": round(work / seconds["network"] / 1e12, 3),
        "matrix_tflops": round(rate / 1e12, 2),
        "share_of_matrix_rate": round(work / seconds["network"] / rate, 4),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if place.type == "cuda" else None,
    }


def _parts(maker: Any, plan: Any) -> dict[str, Callable[[], Any]]:
    """Making a batch, whole and in parts."""
    from MedDiffFMLib.conditioning.biharmonic_batch import bend_batch
    from MedDiffFMLib.core.async_copy import upload_together
    from MedDiffFMLib.training.device_cache import Places
    from MedDiffFMLib.training.device_holes import hole_masks

    given = upload_together({**plan.arrays, "geometry": maker.cache.geometry(plan.level)}, maker.device)
    places = Places(
        plan.level, plan.crop, plan.reach, given["geometry"], given["positions"], given["step"], given["nearest"]
    )
    holes = hole_masks(given["lattice"], given["blobs"], maker.size).float()
    image = (maker.cache.hounsfield(places) / 1000).clamp(-1, 1)[given["holed"]]
    spacing = given["spacing"][given["holed"]]
    parts = {
        "make": lambda: maker.make(plan),
        "make: voxels": lambda: maker.cache.hounsfield(places),
        "make: labels": lambda: [maker.cache.labels(kind, places) for kind in ("anatomy", "tissue")],
        "make: noise": lambda: maker._noise(plan, given),
    }
    if len(image):
        parts["make: first guesses"] = lambda: bend_batch(image, holes, spacing, operator=maker.operator)
    return parts


def _seconds(part: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median of calls after a first one."""
    found = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        part()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begin)
    return statistics.median(found[1:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pretrain", nargs=argparse.REMAINDER, default=[])
    asked = parser.parse_args()
    print(json.dumps(measure_parts(asked.cache, None, asked.device, asked.batch, asked.pretrain), indent=1))
