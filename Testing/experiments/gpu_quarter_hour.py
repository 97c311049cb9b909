"""A GPU that is rented by the minute: pack at home, train, measure and test there, bring the results back.

    python Testing/experiments/gpu_quarter_hour.py pack CACHE --initial WEIGHTS -o PACK       # at home
    python Testing/experiments/gpu_quarter_hour.py run PACK -o OUT --minutes 9 --budget 14    # there
    python Testing/experiments/gpu_quarter_hour.py join OUT -o RESULTS                        # at home

``run`` does the stages train, measure, benchmark, tests and collect one after the other, each in a process of its own
that is ended when its time is over; none needs another one's success. The last thing it prints is one JSON object. See
docs/how-to/train-on-a-rented-gpu.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
MIB = 2**20
STAGES = ("train", "measure", "benchmark", "tests", "collect")
KEPT_BACK = 45.0
"""Seconds of the budget that are left for collecting what there is."""
BENCHMARKS = ("network", "denoise", "anomaly", "inpaint", "train", "synthesize")


# At home


def pack(args: argparse.Namespace) -> dict[str, Any]:
    """Pieces of a prepared cache and of the weights to start from."""
    from MedDiffFMLib.core.split_files import split_file
    from MedDiffFMLib.datasets.packed_cases import pack_cache

    args.output.mkdir(parents=True, exist_ok=True)
    most = None if args.most_mib is None else int(args.most_mib * MIB)
    archive = args.output / "cache.zip"
    splits = ("training", "validation") if args.validation else ("training",)
    packed = pack_cache(args.cache, archive, most=most, rounded=args.round_hu, splits=splits)
    lists = [split_file(archive, args.output, int(args.piece_mib * MIB))]
    archive.unlink()
    if args.initial:
        start = args.output / "start.safetensors"
        shutil.copyfile(args.initial, start)
        lists.append(split_file(start, args.output, int(args.piece_mib * MIB)))
        start.unlink()
    pieces = {p["name"]: round(p["bytes"] / MIB, 1) for path in lists for p in json.loads(path.read_text())["pieces"]}
    return {
        "cases": {split: len(names) for split, names in packed.cases.items()},
        "left_out": packed.left_out,
        "mega_voxels": round(packed.voxels / 1e6, 1),
        "pieces_mib": pieces,
    }


def join(args: argparse.Namespace) -> dict[str, Any]:
    """Whole files out of the pieces of a folder."""
    from MedDiffFMLib.core.split_files import join_file

    target = args.output or args.pieces
    target.mkdir(parents=True, exist_ok=True)
    lists = sorted(args.pieces.rglob("*.pieces.json"))
    return {"files": [str(join_file(path, target / path.name.removesuffix(".pieces.json"))) for path in lists]}


# There


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All stages within the budget."""
    end = time.monotonic() + 60 * args.budget
    args.output.mkdir(parents=True, exist_ok=True)
    work = args.work or args.output / "work"
    summary: dict[str, Any] = {"machine": machine(args.device), "stages": {}}
    try:
        summary["stages"]["unpack"] = unpack(args.pack, work)
    except Exception as error:  # the stages that need no data still can run
        summary["stages"]["unpack"] = {"state": "failed", "error": f"{type(error).__name__}: {error}"}
    for stage in args.stages:
        keep = 0.0 if stage == "collect" else KEPT_BACK
        seconds = end - time.monotonic() - keep
        if stage == "train":
            seconds = min(seconds, 60 * args.minutes + 30)
        if stage == "benchmark" and "tests" in args.stages:
            seconds -= args.test_minutes * 60
        summary["stages"][stage] = run_stage(stage, args, work, max(seconds, 5.0))
        (args.output / "summary.json").write_text(json.dumps(summary, indent=1))
    return summary


def run_stage(stage: str, args: argparse.Namespace, work: Path, seconds: float) -> dict[str, Any]:
    """One stage in its own process; what it wrote until its time was over counts."""
    log, answer = args.output / f"{stage}.log", work / f"{stage}.json"
    answer.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).resolve()), "stage", stage, "--work", str(work),
               "-o", str(args.output), "--seconds", f"{seconds:.0f}", *passed_on(args)]  # fmt: skip
    started = time.monotonic()
    code = run_for(command, seconds + 15, log, alone=True)
    record: dict[str, Any] = {"state": "done" if code == 0 else f"ended with {code}"}
    record["seconds"] = round(time.monotonic() - started, 1)
    if answer.exists():
        record |= json.loads(answer.read_text())
    elif code:
        record["error"] = log.read_text(errors="replace")[-600:]
    return record


def passed_on(args: argparse.Namespace) -> list[str]:
    """Options of ``run`` that stages look at."""
    given = ["--device", args.device, "--minutes", str(args.minutes), "--batch", str(args.batch)]
    given += ["--sizes", *map(str, args.sizes), "--piece-mib", str(args.piece_mib), "--back-mib", str(args.back_mib)]
    given += ["--steps", str(args.steps)]
    return [*given, "--pretrain", *args.pretrain] if args.pretrain else given


def run_for(command: list[str], seconds: float, log: Path, alone: bool = False) -> int:
    """Exit code of a program that is asked to stop, and at last made to, when its time is over.

    Args:
        alone: it may start others, which are stopped with it.
    """
    with open(log, "ab") as stream:
        child = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=alone)
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                return child.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, number) if alone else child.send_signal(number)
                seconds = 20
        return child.wait()


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    about: dict[str, Any] = {"python": platform.python_version(), "torch": version("torch"), "cores": os.cpu_count()}
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(0)
            about |= {
                "gpu": properties.name,
                "gpu_gib": round(properties.total_memory / 2**30, 1),
                "cuda": torch.version.cuda,
            }
    return about


def unpack(folder: Path, work: Path) -> dict[str, Any]:
    """The cache and the weights to start from, out of pieces."""
    from MedDiffFMLib.core.split_files import join_file
    from MedDiffFMLib.datasets.packed_cases import unpack_cache

    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    if (work / "cache" / "cases.json").exists():
        return {"state": "done before"}
    archive = join_file(folder / "cache.zip.pieces.json", work / "cache.zip")
    names = unpack_cache(archive, work / "cache")
    archive.unlink()
    start = folder / "start.safetensors.pieces.json"
    if start.exists():
        join_file(start, work / "start.safetensors")
    return {"state": "done", "cases": len(names), "seconds": round(time.monotonic() - started, 1)}


def train(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Training for as long as there is time, with as many windows a step as fit, compiled where that works."""
    end = time.monotonic() + min(args.seconds, 60 * args.minutes)
    answer: dict[str, Any] = {"batch": args.batch, "compiled": args.device != "cpu"}
    if not answer["batch"]:
        answer["batch"] = fitting_batch(args, work)
    pace: dict[str, float] | None = {} if args.steps else None
    while pace is None:
        try:
            pace = probe(args, work, answer["batch"], answer["compiled"], end)
        except RuntimeError as error:
            answer.setdefault("failed_attempts", []).append(str(error)[-300:])
            if answer["compiled"]:
                answer["compiled"] = False
            elif answer["batch"] > 1:
                answer["batch"] //= 2
            else:
                raise
    steps = args.steps
    if pace:
        left = end - time.monotonic() - pace["start_seconds"] - 10
        steps = max(int(left / pace["step_seconds"]), 2)
    options = ["--steps", str(steps), "--checkpoint-every", str(max(steps // 4, 1)), "--validate-every", str(steps),
               "--log-every", str(max(steps // 40, 1)), "--snapshot-every", str(max(steps // 8, 1))]  # fmt: skip
    code = pretrain(args, work, work / "run", answer["batch"], answer["compiled"], options, end - time.monotonic())
    return {**answer, **pace, "planned_steps": steps, "exit_code": code, **figures_of(work / "run")}


def fitting_batch(args: argparse.Namespace, work: Path, most: int = 64) -> int:
    """Power of two for which the memory is enough, from what a step of two windows takes."""
    if args.device == "cpu":
        return 2
    import torch

    folder = work / "fitting"
    pretrain(args, work, folder, 2, False, ["--steps", "3", "--log-every", "1"], 120)
    peak = float(read_rows(folder / "throughput.csv")[-1]["peak_memory_gib"])
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    batch = 2
    while batch < most and 2 * batch * peak / 2 < 0.8 * total:
        batch *= 2
    return batch


def probe(args: argparse.Namespace, work: Path, batch: int, compiled: bool, end: float) -> dict[str, float]:
    """Seconds of a step and of everything before the first one."""
    folder, steps = work / "probe", 4 if args.device == "cpu" else 24
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    options = ["--steps", str(steps), "--checkpoint-every", str(steps), "--log-every", str(steps)]
    code = pretrain(args, work, folder, batch, compiled, options, end - started)
    if code or not (folder / "losses.csv").exists():
        raise RuntimeError((args.output / "train.log").read_text(errors="replace"))
    seconds = [float(row["seconds"]) for row in read_rows(folder / "losses.csv")]
    step = statistics.median(seconds[len(seconds) // 2 :])
    return {"step_seconds": step, "start_seconds": round(time.monotonic() - started - step * len(seconds), 1)}


def pretrain(
    args: argparse.Namespace, work: Path, folder: Path, batch: int, compiled: bool, options: list[str], seconds: float
) -> int:
    """``meddifffm pretrain``; its exit code."""
    start, workers = work / "start.safetensors", min(8, max((os.cpu_count() or 1) - 2, 0))
    command = [sys.executable, "-m", "MedDiffFMLib", "pretrain", str(work / "cache"), "-o", str(folder),
               "--windows-on-device", "--batch", str(batch), "--workers", str(workers),
               "--validation-windows", "8", "--accelerator", "cpu" if args.device == "cpu" else "gpu",
               *(["--compile"] if compiled else []), *(["--initial", str(start)] if start.exists() else []),
               *options, *args.pretrain]  # fmt: skip
    return run_for(command, max(seconds, 10.0), args.output / "train.log")


def figures_of(folder: Path) -> dict[str, Any]:
    """Pace, use of the device, losses and validation of a run."""
    if not (folder / "losses.csv").exists():
        return {}
    losses = [float(row["loss"]) for row in read_rows(folder / "losses.csv")]
    tenth = max(len(losses) // 10, 1)
    found: dict[str, Any] = {
        "steps": len(losses),
        "first_loss": round(statistics.mean(losses[:tenth]), 4),
        "last_loss": round(statistics.mean(losses[-tenth:]), 4),
    }
    for name in ("throughput.csv", "validation.csv"):
        if (folder / name).exists():
            rows = read_rows(folder / name)
            found[name.removesuffix(".csv")] = rows[len(rows) // 2] if name.startswith("t") else rows[-1]
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def measure(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """What the parts of a step take: the windows, the network, and both."""
    if not (work / "cache" / "cases.json").exists():  # before seconds of imports
        raise SystemExit(f"There is no cache in {work}: see what became of the stage unpack.")
    from Testing.experiments.step_parts import measure_parts

    start = work / "start.safetensors"
    batches = [2] if args.device == "cpu" else [16, 64, 128]
    end = time.monotonic() + args.seconds
    answer: dict[str, Any] = {"parts": []}
    for batch in batches:
        if time.monotonic() < end:
            found = measure_parts(work / "cache", start if start.exists() else None, args.device, batch, args.pretrain)
            answer["parts"].append(found)
            (work / "measure.json").write_text(json.dumps(answer))
    return answer


def benchmark(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """``meddifffm benchmark`` of one task after the other, so that what was measured stays."""
    end = time.monotonic() + args.seconds
    answer: dict[str, Any] = {"tasks": {}}
    for task in BENCHMARKS if args.device != "cpu" else BENCHMARKS[:1]:
        left = end - time.monotonic()
        if left < 10:
            break
        folder = args.output / "benchmark" / task
        command = [sys.executable, "-m", "MedDiffFMLib", "benchmark", "-o", str(folder), "--tasks", task, "--device",
                   args.device, "--sizes", *map(str, args.sizes), "--repeats", "1", "--budget", "5"]  # fmt: skip
        code = run_for(command, left, args.output / "benchmark.log")
        answer["tasks"][task] = code
        (work / "benchmark.json").write_text(json.dumps(answer))
    pages = sorted((args.output / "benchmark").glob("*/benchmark.md"))
    return {**answer, "pages": [str(page.relative_to(args.output)) for page in pages]}


def tests(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Tests of what runs on a GPU."""
    paths = ["Testing/unit/inference/test_real_gpu.py", "Testing/unit/training/test_device_batches.py"]
    code = run_for(
        [sys.executable, "-m", "pytest", "-q", "-x" if args.device == "cpu" else "-ra", *paths, "-k", "not run_learns"],
        args.seconds,
        args.output / "tests.log",
    )
    lines = (args.output / "tests.log").read_text(errors="replace").strip().splitlines()
    return {"exit_code": code, "result": lines[-1] if lines else ""}


def collect(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Figures, logs and as many weights as may be brought back, in one archive cut into pieces."""
    from MedDiffFMLib.core.split_files import split_file

    folder, archive = work / "run", work / "back.zip"
    small = [
        *args.output.glob("*.log"),
        *args.output.glob("benchmark/**/*"),
        *folder.glob("*.csv"),
        *folder.glob("*.json"),
        *folder.glob("*.png"),
        *work.glob("*.json"),
    ]
    weights = [folder / "model.safetensors", *sorted(folder.glob("averages/*.safetensors"), reverse=True)]
    kept, left, room = [], [], args.back_mib * MIB
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as whole:
        for path in (path for path in (*small, *weights) if path.is_file()):
            if path.stat().st_size > room - sum(entry.compress_size for entry in whole.infolist()):
                left.append(path.name)
                continue
            whole.write(path, f"{path.parent.name}/{path.name}")
            kept.append(path.name)
    split_file(archive, args.output / "back", int(args.piece_mib * MIB))
    return {"kept": kept, "left_there": left, "mib": round(archive.stat().st_size / MIB, 1)}


WORK = {"train": train, "measure": measure, "benchmark": benchmark, "tests": tests, "collect": collect}


def stage(args: argparse.Namespace) -> dict[str, Any]:
    """One stage; its answer goes to a file."""
    answer = WORK[args.stage](args, args.work)
    (args.work / f"{args.stage}.json").write_text(json.dumps(answer))
    return answer


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = whole.add_subparsers(required=True)
    part = commands.add_parser("pack", help=pack.__doc__)
    part.add_argument("cache", type=Path, help="folder made by `meddifffm prepare`")
    part.add_argument("-o", "--output", type=Path, required=True)
    part.add_argument("--initial", type=Path, metavar="WEIGHTS", help=".safetensors to start from")
    part.add_argument("--piece-mib", type=float, default=60.0, help="most MiB of a piece (default: %(default)s)")
    part.add_argument("--most-mib", type=float, help="most MiB of the cases; others are left out (default: all)")
    part.add_argument(
        "--round-hu", type=int, default=1, metavar="HU", help="keep HU in such steps (default: all of it)"
    )
    part.add_argument("--validation", action="store_true", help="take the validation cases along, too")
    part.set_defaults(action=pack)
    part = commands.add_parser("join", help=join.__doc__)
    part.add_argument("pieces", type=Path)
    part.add_argument("-o", "--output", type=Path)
    part.set_defaults(action=join)
    for name, action in (("run", run), ("stage", stage)):
        part = commands.add_parser(name, help=action.__doc__)
        part.add_argument(name.replace("run", "pack"), **({"type": Path} if name == "run" else {"choices": STAGES}))
        part.add_argument("-o", "--output", type=Path, required=True)
        part.add_argument("--work", type=Path, help="scratch folder (default: OUT/work)")
        part.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal (default: %(default)s)")
        part.add_argument("--minutes", type=float, default=8.0, help="of training (default: %(default)s)")
        part.add_argument("--budget", type=float, default=14.0, help="minutes in all (default: %(default)s)")
        part.add_argument("--test-minutes", type=float, default=2.0, help="of them for tests (default: %(default)s)")
        part.add_argument("--seconds", type=float, default=600.0, help=argparse.SUPPRESS)
        part.add_argument("--steps", type=int, default=0, help="of training (default: what the minutes allow)")
        part.add_argument("--batch", type=int, default=0, help="windows a step (default: as many as fit, up to 64)")
        part.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
        part.add_argument("--sizes", nargs="+", type=int, default=(128, 256), help="of the benchmark's volumes")
        part.add_argument("--piece-mib", type=float, default=15.0, help="most MiB of a piece (default: %(default)s)")
        part.add_argument("--back-mib", type=float, default=58.0, help="most MiB to bring back (default: %(default)s)")
        part.add_argument("--pretrain", nargs=argparse.REMAINDER, default=[], help="all that follows: its options")
        part.set_defaults(action=action)
    return whole


if __name__ == "__main__":
    given = parser().parse_args()
    print(json.dumps(given.action(given), indent=1), flush=True)
