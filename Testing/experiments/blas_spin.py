"""CPU time of the first guess in a hole, with NumPy's BLAS on one thread and on all.

    PYTHONPATH=. python Testing/experiments/blas_spin.py [--edge 24] [--repeats 5]

The sparse solver makes many small products of vectors. Each measurement is a process of its own, since BLAS reads its
number of threads once; they take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

CODE = """
import sys, time
import numpy as np
from MedDiffFMLib.imaging.biharmonic import biharmonic_interpolation
edge = int(sys.argv[1])
image = np.random.default_rng(0).normal(size=(64, 64, 64))
hole = np.zeros(image.shape, bool)
middle = slice(32 - edge // 2, 32 + edge // 2)
hole[middle, middle, middle] = True
for _ in range(2):  # the first call loads SciPy
    wall, cpu = time.perf_counter(), time.process_time()
    biharmonic_interpolation(image, hole, np.zeros_like(image), (1.0, 1.0, 1.0))
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def measure(threads: int, edge: int) -> tuple[float, float]:
    """Wall and CPU seconds of one guess."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(edge)], env=environment, check=True, capture_output=True, text=True
    )
    wall, cpu = map(float, done.stdout.split())
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    counts = (1, os.cpu_count() or 2)
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for _ in range(options.repeats):
        for count in counts:
            found[count].append(measure(count, options.edge))
    print("| BLAS threads | wall, s | CPU, s |\n|---:|---:|---:|")
    for count, times in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| {count} | {wall:.2f} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
