"""Options of commands that compute on a Dask cluster."""

from __future__ import annotations

import argparse

from ..core.cluster import CLUSTER_HELP, ClusterPlan
from .arguments import PROCESSES
from .key_values import options


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """``--cluster`` and what goes with it."""
    add = parser.add_argument
    add("--cluster", metavar="ADDRESS", help=f"with --batch: {CLUSTER_HELP}")
    add("--cluster-workers", type=PROCESSES, default=2, metavar="N",
        help="of --cluster local or slurm: processes or jobs, each with a model (default: %(default)s)")  # fmt: skip
    add("--cluster-option", nargs="+", metavar="KEY=VALUE",
        help="of --cluster slurm: cores=8 memory=16GB walltime=04:00:00 queue=gpu and all others of dask-jobqueue, "
        "whose file jobqueue.yaml gives what is left out")  # fmt: skip


def cluster_of(args: argparse.Namespace) -> ClusterPlan | None:
    """The cluster that was asked for; None for this process alone.

    Raises:
        InputError: no such cluster, or options for one that takes none.
    """
    if args.cluster is None:
        return None
    return ClusterPlan(args.cluster, max(args.cluster_workers, 1), options(args.cluster_option)).checked()
