"""Kill a fine-tuning run at random moments and look whether it ends as if nothing had happened.

Real processes of the command line, ended by SIGKILL at moments drawn from a seed, anywhere between start and end:
while Python imports, cases are checked or prepared, steps are made, checkpoints are written. A run that reaches its end
before all kills are spent is compared with an uninterrupted one, and the next run begins.

    PYTHONPATH=. python Testing/experiments/kill_finetune.py [--kills 20] [--prior starter-ct] [--task lesion]
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from MedDiffFMLib.core.text_table import columns
from MedDiffFMLib.datasets.dataset_folder import Dataset
from MedDiffFMLib.imaging.volume import Volume

EVERY = 5


def make_dataset(folder: Path) -> Dataset:
    """Three patients: soft tissue in air, each with two bright balls that the mask marks."""
    dataset = Dataset.create(folder)
    shape = (40, 64, 64)
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    for number in range(3):
        rng = np.random.default_rng(number)
        voxels = np.where(((axes[1] - 32) / 28) ** 2 + ((axes[2] - 32) / 28) ** 2 < 1, 40, -1000)
        mask = np.zeros(shape, np.uint8)
        for _ in range(2):
            center = rng.uniform(10, 30, 3)
            mask[sum((a - c) ** 2 for a, c in zip(axes, center, strict=True)) < 16] = 1
        voxels = voxels + 120 * mask + rng.normal(0, 15, shape)
        dataset.add(f"case{number}", Volume(voxels.astype(np.int16), np.diag([-1.5, -1.5, 1.5, 1.0])), mask)
    dataset.split(0.34)
    return dataset


def start(args: argparse.Namespace, data: Path, folder: Path) -> subprocess.Popen:
    """One start of a run; one thread, since the sums of several come in any order."""
    command = [sys.executable, "-m", "MedDiffFMLib", "finetune", "--task", args.task, "--data", str(data), "-o",
               str(folder), "--prior", args.prior, "--steps", str(args.steps), "--batch", "1", "--window", "32",
               "--checkpoint-every", str(EVERY), "--validate-every", "20", "--patience", "99", "--no-register",
               "--accelerator", "cpu", "--json"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def curve(folder: Path) -> list[tuple[int, str]]:
    """Step and loss, as written."""
    path = folder / "losses.csv"
    if not path.exists():
        return []
    with open(path, newline="") as stream:
        return [(int(row["step"]), row["loss"]) for row in csv.DictReader(stream) if row["loss"]]


def kept_step(folder: Path) -> int:
    """Step of the last checkpoint."""
    import torch

    path = folder / "last.pt"
    return int(torch.load(path, weights_only=True)["step"]) if path.exists() else 0


def same_end(one: Path, other: Path) -> list[str]:
    """What differs between two finished runs; nothing if all is well."""
    import torch
    from safetensors.torch import load_file

    differing = []
    if curve(one) != curve(other):
        differing.append("losses.csv")
    if (one / "validation.csv").read_bytes() != (other / "validation.csv").read_bytes():
        differing.append("validation.csv")
    states = [torch.load(folder / "last.pt", weights_only=True) for folder in (one, other)]
    for key in ("module", "ema"):
        if any(not torch.equal(tensor, states[1][key][name]) for name, tensor in states[0][key].items()):
            differing.append(f"last.pt ({key})")
    weights = [load_file(folder / "best.safetensors") for folder in (one, other)]
    if any(not torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items()):
        differing.append("best.safetensors")
    return differing


def main() -> int:
    """Run the benchmark; 1 where a run did not end as the uninterrupted one."""
    parser = argparse.ArgumentParser(description="Kill a fine-tuning run at random moments.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--prior", default="starter-ct")
    parser.add_argument("--task", default="lesion", choices=("lesion", "super-resolution"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-finetune-") as temporary:
        return torture(args, Path(temporary))


def torture(args: argparse.Namespace, folder: Path) -> int:
    """Uninterrupted run, then the kills; prints one line for each and the outcome."""
    data = make_dataset(folder / "data").folder
    begin = time.monotonic()
    whole = start(args, data, folder / "whole")
    _, errors = whole.communicate()
    if whole.returncode:
        print(errors.decode(), file=sys.stderr)
        return 1
    length = time.monotonic() - begin
    print(
        f"Uninterrupted: {args.steps} steps in {length:.1f} s, last loss {curve(folder / 'whole')[-1][1]}", flush=True
    )
    rng = np.random.default_rng(args.seed)
    table, failures, killed, number = [], [], 0, 0
    while killed < args.kills:
        number += 1
        run, finished = folder / f"run{number}", False
        while not finished:
            process = start(args, data, run)
            moment = float(rng.uniform(0, length)) if killed < args.kills else None
            try:
                _, errors = process.communicate(timeout=moment)
                finished = True
                if process.returncode:
                    failures.append(f"run {number}: {errors.decode().strip().splitlines()[-1]}")
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                killed += 1
                done, kept = len(curve(run)), kept_step(run)
                table.append([str(killed), str(number), f"{moment:.1f}", str(done), str(kept), str(done - kept)])
                if done - kept > EVERY:
                    failures.append(f"kill {killed}: {done - kept} steps lost")
        if process.returncode == 0:
            failures += [f"run {number}: {name} differs" for name in same_end(run, folder / "whole")]
    print(columns([["kill", "run", "s after start", "steps logged", "checkpoint", "steps lost"], *table]))
    lost = max(int(row[-1]) for row in table)
    print(f"\n{killed} kills in {number} runs; at most {lost} steps lost (checkpoint every {EVERY}).")
    print("\n".join(failures) or "Every run ended with the losses, validations and weights of the uninterrupted one.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
