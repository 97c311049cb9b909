"""A training command as a job of Slurm that submits itself again at its time limit, by submitit.

Some time before the limit the job gets a signal. The training then saves after the step that it is at and stops, as
by Ctrl-C, and the job is put into the queue again, where the same command goes on with the next step.
"""

from __future__ import annotations

import argparse
import copy
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from ..core.errors import Cancelled, DeviceError, InputError
from ..core.extras import needed
from . import key_values
from .carry_out import carry_out
from .console import Console

PURPOSE = "training as a job of Slurm"
STARTS = 10_000
"""Number of times a job may come to its time limit."""
DEFAULTS = {"timeout_min": 24 * 60, "cpus_per_task": 4}


def add_slurm_options(parser: argparse.ArgumentParser) -> None:
    """``--slurm``."""
    parser.add_argument(
        "--slurm",
        nargs="*",
        metavar="KEY=VALUE",
        help="submit the command as a job that goes on after its time limit, with what submitit and Slurm shall know: "
        "timeout_min=240 gpus_per_node=1 cpus_per_task=8 mem_gb=32 slurm_partition=gpu slurm_signal_delay_s=120; "
        "cluster=local for a process of this computer instead",
    )


class TrainingJob:
    """Work of the job: the command, again after each time limit.

    Args:
        args: of the command, as parsed.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.interrupted = False

    def __call__(self) -> int:
        """Carry out the command; the first process does not return where the job is put into the queue again.

        Raises:
            SystemExit: the command failed.
        """
        number = needed("submitit", PURPOSE).JobEnvironment()._usr_sig()
        put_into_queue: Any = signal.signal(number, self._time_is_over)
        code = carry_out(self.args)
        if self.interrupted and code == Cancelled.exit_code:
            self.interrupted = False
            put_into_queue(number, None)  # of submitit; ends the first process, and with it the job
            return code
        if code:
            raise SystemExit(code)
        return code

    def checkpoint(self) -> Any:
        """Work of the job when it starts again; called by submitit."""
        return needed("submitit", PURPOSE).helpers.DelayedSubmission(self)

    def _time_is_over(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        os.kill(os.getpid(), signal.SIGTERM)


def submit(args: argparse.Namespace, folder: Path, console: Console) -> int:
    """Submit the command and tell where its output goes.

    Args:
        folder: of the run; what submitit writes goes into a folder in it.

    Raises:
        InputError: an option that submitit does not know.
        DeviceError: there is no Slurm here, or it refuses the job.
    """
    options = {**DEFAULTS, "nodes": args.nodes, "tasks_per_node": args.devices, **key_values.options(args.slurm)}
    cluster = str(options.pop("cluster", "slurm"))
    command = copy.copy(args)
    command.slurm = None
    submitit = needed("submitit", PURPOSE)
    try:
        limits = {f"{name}_max_num_timeout": STARTS for name in ("slurm", "local")}
        executor = submitit.AutoExecutor(folder / "slurm", cluster=cluster, **limits)
        executor.update_parameters(name=f"meddifffm-{folder.name}", **options)
        job = executor.submit(TrainingJob(command))
    except (NameError, AssertionError, ValueError, TypeError) as problem:
        raise InputError(f"submitit refuses the job: {_line(problem)}.", "Correct the words of --slurm.") from problem
    except (RuntimeError, OSError, submitit.core.utils.FailedJobError) as problem:
        raise DeviceError(
            f"The job cannot be submitted: {_line(problem)}.", "Use a computer that has sbatch and srun."
        ) from problem
    answer = {"status": "submitted", "job": job.job_id, "log": str(job.paths.stdout), "errors": str(job.paths.stderr)}
    text = f"Job {job.job_id} is submitted; it writes to {job.paths.stdout} and {job.paths.stderr.name}."
    console.answer(answer, text)
    return 0


def _line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0].rstrip(".?")
