"""Peak main memory and time of a task against the size of the volume: do they grow as the voxels, and no faster?

    PYTHONPATH=. python Testing/experiments/memory.py [--tasks denoise anomaly] [--sizes 96 128 160 192]
    PYTHONPATH=. python Testing/experiments/memory.py --tasks anomaly --slices 100 200 400 1000

    PYTHONPATH=. python Testing/experiments/memory.py --tasks anomaly --sizes 128 192 256 384 --spacing 1.5 1.5 2.5

The first measures cubes of 1 mm, the second CTs of 512 x 512 voxels of 0.8 mm in slices of 1 mm, the third the voxels
of a thick-sliced CT, of which a few make one of the map's working grid.
The network is a tiny one with random weights: what is asked is what the task itself holds and does. Every run is a
process of its own. A line is fitted to the peaks, and says what 512 x 512 x 1000 voxels would take.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from MedDiffFMLib.imaging.volume import Volume

LARGE = 512 * 512 * 1000


def write_tiny_model(path: Path) -> None:
    """A weight file with a small network, and a calibration so that the anomaly map runs."""
    from MedDiffFMLib.models.checkpoint import build_denoiser, save_model
    from MedDiffFMLib.networks.unet import NetworkConfig
    from MedDiffFMLib.tasks.anomaly.z_score import CLASSES

    config = {"network": NetworkConfig(channels=(8, 32), attention=(False, False)).as_dict(), "denoiser": "edm"}
    figures = {"all": {"centre": [0.0] * CLASSES, "spread": [100.0] * CLASSES}}
    levels = {"36": figures, "48": figures}
    calibration = {"spacing": 3.0, "sets": 1, "smoothing": 3.0, "levels": levels}
    save_model(path, build_denoiser(config).state_dict(), config, calibration)


def make_ct(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Volume:
    """A cylinder of tissue with noise; ``shape`` in order (k, j, i), ``spacing`` (x, y, z) in mm."""
    from MedDiffFMLib.imaging.volume import Volume

    rng = np.random.default_rng(0)
    j, i = ((np.arange(edge) - edge / 2) / (0.45 * edge) for edge in shape[1:])
    voxels = np.where(j[:, None] ** 2 + i**2 < 1, 40, -1000).astype(np.int16)[None].repeat(shape[0], axis=0)
    for plane in voxels:
        plane += rng.normal(0, 20, plane.shape).astype(np.int16)
    return Volume(voxels, np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]))


def run_one(task: str, volume: Volume, model: Path) -> None:
    """In the child: run, and print bytes before, peak bytes, CPU seconds."""
    import time

    from MedDiffFMLib.models.checkpoint import load_model
    from MedDiffFMLib.runner.report import peak_main_memory
    from MedDiffFMLib.tasks.base import Case, Run
    from MedDiffFMLib.tasks.registry import TASKS

    loaded = load_model(str(model), device="cpu")
    mask = None
    if task == "inpaint":
        mask = np.zeros(volume.voxels.shape, bool)
        mask[tuple(slice(edge // 2 - 5, edge // 2 + 5) for edge in mask.shape)] = True
    before, cpu = peak_main_memory(), time.process_time()
    TASKS[task]().run(Case(volume, mask), Run(loaded))
    print(json.dumps([before, peak_main_memory(), time.process_time() - cpu]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["denoise", "anomaly", "inpaint"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[96, 128, 160, 192])
    parser.add_argument("--slices", nargs="+", type=int, help="CTs of 512 x 512 voxels with so many slices, no cubes")
    parser.add_argument("--spacing", nargs=3, type=float, help="x, y, z in mm", metavar="MM")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        task, kind, count, model = options.one
        n = int(count)
        shape, usual = ((n, 512, 512), (0.8, 0.8, 1.0)) if kind == "slices" else ((n, n, n), (1.0, 1.0, 1.0))
        run_one(task, make_ct(shape, options.spacing or usual), Path(model))
        return
    kind, counts = ("slices", options.slices) if options.slices else ("edge", options.sizes)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tiny.safetensors"
        write_tiny_model(model)
        print(f"| task | {kind} | peak, MB | CPU, s |\n|---|---:|---:|---:|", flush=True)
        for task in options.tasks:
            peaks, seconds = [], []
            for count in counts:
                command = [sys.executable, __file__, "--one", task, kind, str(count), str(model)]
                command += ["--spacing", *map(str, options.spacing)] if options.spacing else []
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                _, peak, cpu = json.loads(done.stdout.splitlines()[-1])
                peaks.append(peak)
                seconds.append(cpu)
                print(f"| {task} | {count} | {peak / 1e6:.0f} | {cpu:.1f} |", flush=True)
            voxels = np.array(counts, float)
            voxels = voxels * 512**2 if options.slices else voxels**3
            report(task, voxels, np.array(peaks, float), np.array(seconds))


def report(task: str, voxels: np.ndarray, peaks: np.ndarray, seconds: np.ndarray) -> None:
    """The lines through peaks and times."""
    slope, fixed = np.polyfit(voxels, peaks, 1)
    power = np.polyfit(np.log(voxels), np.log(seconds), 1)[0]
    print(
        f"\n{task}: {fixed / 1e6:.0f} MB + {slope:.1f} bytes a voxel; 512 x 512 x 1000 would take "
        f"{(fixed + slope * LARGE) / 1e9:.1f} GB. CPU time grows with the voxels to the power of {power:.2f}.\n",
        flush=True,
    )


if __name__ == "__main__":
    main()
