"""What a task costs beside the network: CPU and wall seconds of its stages on the host, and the peak memory in each.

    PYTHONPATH=. python Testing/experiments/host_time.py [--tasks anomaly denoise] [--slices 400] [--ct cylinder sample]

The prior's answer is taken for free: its own input, or in a hidden cube the first guess; the small denoiser's is not.
Cutting, conditions and blending of windows are timed apart ("windows"), because on a GPU they run there. The CT has 512
x 512 voxels of 0.8 mm in slices of 1 mm: a cylinder, or the sample CT interpolated and continued by reflection, which
has many findings. Or it is a cube of the sample CT's own voxels with an edge of ``--slices`` voxels ("thick"), where
the working grid counts. Every run is a process of its own. Arrays come mapped from files and results go into files, as
in the worker.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import memory
import numpy as np
import torch

STAGES = {
    "MedDiffFMLib.runner.case.checked_case": "checks of the input",
    "MedDiffFMLib.preprocessing.body_localization.localize_body": "survey: body box and region",
    "MedDiffFMLib.imaging.grid.to_grid": "to the working grid",
    "MedDiffFMLib.preprocessing.working_image.working_image": "working image, rest",
    "MedDiffFMLib.conditioning.region.body_mask": "body mask",
    "MedDiffFMLib.tasks.anomaly.recipe._search_area": "search area",
    "MedDiffFMLib.tasks.anomaly.masked_prediction._surroundings": "surroundings of the search area",
    "MedDiffFMLib.tasks.anomaly.cube_lattice.biharmonic_lattice": "bent guesses",
    "MedDiffFMLib.tasks.anomaly.cube_lattice._bending_response": "bending matrices",
    "MedDiffFMLib.tasks.anomaly.cube_lattice.lattice_lines": "depth in cubes",
    "MedDiffFMLib.diffusion.samplers.noise_like": "noise",
    "MedDiffFMLib.tasks.anomaly.masked_prediction.predict_masked": "expectation, rest",
    "MedDiffFMLib.tasks.anomaly.z_score.z_score": "z-scores",
    "MedDiffFMLib.tasks.anomaly.local_features.feature_table": "local features",
    "MedDiffFMLib.tasks.anomaly.detector.smoothed_odds": "detector, rest",
    "MedDiffFMLib.tasks.anomaly.recipe.expected_change": "filling, rest",
    "MedDiffFMLib.conditioning.known_voxels.biharmonic_init": "filling, first guess",
    "MedDiffFMLib.preprocessing.working_image.WorkingImage.on_input": "back to the input's grid",
    "MedDiffFMLib.tasks.anomaly.recipe._cubes_score": "scores, rest",
    "MedDiffFMLib.imaging.grid.from_grid": "back to the input's grid",
    "MedDiffFMLib.preprocessing.working_image.changed": "results, number type",
    "MedDiffFMLib.tasks.anomaly.findings.list_findings": "list of findings",
    "MedDiffFMLib.preprocessing.noise_estimate.estimate_noise": "noise level",
    "MedDiffFMLib.tasks.denoise.supervised.denoise_in_columns": "small network",
    "MedDiffFMLib.tasks.denoise.recipe._Filters.removed": "filters in blocks",
    "MedDiffFMLib.tasks.denoise.coarse_to_fine.not_air": "air",
    "MedDiffFMLib.inference.sliding_window.SlidingWindowDenoiser.__init__": "windows",
    "MedDiffFMLib.inference.sliding_window.SlidingWindowDenoiser.__call__": "windows",
    "MedDiffFMLib.worker.protocol.PrivateFolder.save": "results into files",
}
"""Functions that are timed, each without the others that it calls; names that are missing are passed over."""


SAMPLE = Path(__file__).parents[2] / "Resources" / "SampleData" / "thorax_lidc0001.nrrd"
TOUCHED = 400_000_000
"""Numbers written before the clock starts: on a virtual machine the first touch of memory costs more than the work."""


class Stages:
    """A stopwatch for nested stages: what a stage calls counts for the called one alone."""

    def __init__(self, peaks: bool) -> None:
        self.seconds: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
        self.peak: dict[str, int] = defaultdict(int)
        self._running, self._peaks = ["rest"], peaks
        if peaks:
            _new_peak()
        self._last = self._now()

    @staticmethod
    def _now() -> np.ndarray:
        return np.array([time.process_time(), time.perf_counter()])

    def _charge(self) -> None:
        """What went by since the last change belongs to the stage that was running."""
        name = self._running[-1]
        self.seconds[name] += self._now() - self._last
        if self._peaks:
            self.peak[name] = max(self.peak[name], _memory("VmHWM"))
            _new_peak()
        self._last = self._now()

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*given: Any, **named: Any) -> Any:
            self._charge()
            self._running.append(name)
            try:
                return function(*given, **named)
            finally:
                self._charge()
                self._running.pop()

        return run

    def finish(self) -> None:
        self._charge()


def _memory(name: str) -> int:
    """Bytes that Linux tells of this process, such as VmRSS, or VmHWM for its peak."""
    return int(Path("/proc/self/status").read_text(encoding="ascii").split(f"{name}:")[1].split()[0]) * 1024


def _new_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def install(stages: Stages) -> None:
    """Time every function of STAGES, wherever it was imported to."""
    import pkgutil

    for path, name in STAGES.items():
        place, _, attribute = path.rpartition(".")
        owner = pkgutil.resolve_name(place)
        original = getattr(owner, attribute, None)
        if original is None:
            continue
        timed = stages.timed(original, name)
        setattr(owner, attribute, timed)
        for module in [m for n, m in sys.modules.items() if n.startswith("MedDiffFMLib")]:
            for key, value in list(vars(module).items()):
                if value is original:
                    setattr(module, key, timed)


def free_network(x: torch.Tensor, sigma: float, condition: Any) -> torch.Tensor:
    """In place of ``Engine.denoise``: the first guess where there is one, else the input."""
    return x.clone() if condition.expected is None else condition.expected.float()


def sample_ct(slices: int) -> Any:
    """The sample CT at 0.8 x 0.8 x 1 mm, 512 x 512 voxels, continued by air beside it and by reflection along it."""
    from MedDiffFMLib.imaging.grid import Grid, to_grid
    from MedDiffFMLib.imaging.io import read_volume
    from MedDiffFMLib.imaging.volume import Volume

    ct = read_volume(SAMPLE, modality="CT")
    matrix = ct.ijk_to_ras @ np.diag([0.8 / ct.spacing[0], 0.8 / ct.spacing[1], 1.0 / ct.spacing[2], 1.0])
    k, j, i = ct.voxels.shape
    length = int((k - 1) * ct.spacing[2])
    middle = np.array([i * ct.spacing[0] - 512 * 0.8, j * ct.spacing[1] - 512 * 0.8, 0]) / 2 / [0.8, 0.8, 1]
    matrix = matrix @ np.block([[np.eye(3), middle[:, None]], [np.zeros(3), np.ones(1)]])
    fine = to_grid(ct, Grid((length, 512, 512), matrix), fill=-1000)
    folded = np.pad(np.arange(length), (0, max(slices - length, 0)), mode="symmetric")[:slices]
    rng = np.random.default_rng(0)
    voxels = np.empty((slices, 512, 512), np.int16)
    for n, source in enumerate(folded):
        voxels[n] = np.rint(fine[source] + rng.normal(0, 10, fine[source].shape))
    return Volume(voxels, matrix)


def thick_ct(edge: int) -> Any:
    """The sample CT's own voxels of 1.5 x 1.5 x 2.5 mm, continued by reflection to a cube: few are a working voxel."""
    from MedDiffFMLib.imaging.io import read_volume

    ct = read_volume(SAMPLE, modality="CT")
    folded = [np.pad(np.arange(n), (0, max(edge - n, 0)), mode="symmetric")[:edge] for n in ct.voxels.shape]
    return replace(ct, voxels=ct.voxels[np.ix_(*folded)])


def make(kind: str, slices: int) -> Any:
    if kind == "thick":
        return thick_ct(slices)
    return sample_ct(slices) if kind == "sample" else memory.make_ct((slices, 512, 512), (0.8, 0.8, 1.0))


def run_one(task: str, array: Path, matrix: list[list[float]], model: str, threads: int, peaks: bool) -> None:
    """In the child: run, and print seconds and peaks of the stages."""
    from MedDiffFMLib.imaging.volume import Volume
    from MedDiffFMLib.models.checkpoint import load_model
    from MedDiffFMLib.runner import case as job
    from MedDiffFMLib.runner.settings import RunSettings
    from MedDiffFMLib.worker.protocol import PrivateFolder

    loaded = load_model(model, device="cpu")
    loaded.engine.denoise = free_network  # type: ignore[method-assign, assignment]
    np.ones(TOUCHED)
    folder, before = PrivateFolder(), _memory("VmRSS")
    stages = Stages(peaks)
    install(stages)
    volume = Volume(np.load(array, mmap_mode="c"), np.array(matrix))
    try:
        settings = RunSettings(task, threads=threads)
        result, _ = job.compute(settings, job.checked_case(task, {"volume": volume}), loaded)
        for number, values in enumerate(result.volumes.values()):
            folder.save(f"result-{number}.npy", values)
    finally:
        folder.remove()
    stages.finish()
    seconds = {name: list(both) for name, both in stages.seconds.items()}
    facts = {"findings": sum(map(len, result.tables.values())), "voxels": volume.voxels.size, "before": before}
    print(json.dumps({"seconds": seconds, "peak": stages.peak, **facts}))


def report(found: dict[str, Any]) -> None:
    """A table, the longest stage first."""
    print("| stage | CPU, s | wall, s | peak, GB |\n|---|---:|---:|---:|")
    for name, (cpu, wall) in sorted(found["seconds"].items(), key=lambda line: -line[1][0]):
        print(f"| {name} | {cpu:.2f} | {wall:.2f} | {found['peak'].get(name, 0) / 1e9:.2f} |")
    cpu, wall = np.sum(list(found["seconds"].values()), axis=0)
    windows = found["seconds"].get("windows", [0, 0])
    peak = max(found["peak"].values(), default=0)
    print(
        f"| all | {cpu:.2f} | {wall:.2f} | {peak / 1e9:.2f} |\n| all but windows | {cpu - windows[0]:.2f} "
        f"| {wall - windows[1]:.2f} | |\n\n{found['findings']} findings; {found['before'] / 1e9:.2f} GB before, "
        f"then {(peak - found['before']) / found['voxels']:.1f} bytes a voxel\n",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["anomaly", "denoise"])
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--ct", nargs="+", choices=("cylinder", "sample", "thick"), default=["cylinder", "sample"])
    parser.add_argument("--model", default="starter-ct")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch; several spin while they wait, which counts")
    parser.add_argument("--no-peaks", action="store_true", help="measure time alone")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        task, array, matrix = options.one
        run_one(task, Path(array), json.loads(matrix), options.model, options.threads, not options.no_peaks)
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.ct:
            volume = make(kind, options.slices)
            array = Path(folder) / f"{kind}.npy"
            np.save(array, volume.voxels)
            matrix = json.dumps(volume.ijk_to_ras.tolist())
            volume_shape = volume.voxels.shape
            del volume
            for task in options.tasks:
                command = [sys.executable, __file__, "--one", task, str(array), matrix]
                command += ["--model", options.model, "--threads", str(options.threads)]
                command += ["--no-peaks"] if options.no_peaks else []
                environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as the worker has it
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
                print(f"{task}, {kind}, {' x '.join(str(n) for n in volume_shape[::-1])} voxels\n")
                report(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
