"""Dask cluster: the processes of this computer, of one that runs already, or jobs of Slurm.

A computation is a function of an importable module, called once for each order by some worker. The scheduler gives
the orders of a worker that died to another one. What travels are Dask's own messages, which are pickled: the address
must be that of people whom one trusts, with TLS (``tls://``) where others share the network.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any

from .errors import DependencyError, DeviceError, InputError
from .extras import needed
from .progress import CancelToken

LOCAL, SLURM = "local", "slurm"
CLUSTER_HELP = (
    "compute on a Dask cluster: local (processes of this computer), slurm (jobs), or the address of a scheduler such "
    "as tcp://host:8786"
)
PURPOSE = "computing on a cluster"
LIVES = 3
"""Workers that may die with an order before it is given up: it may be the order that kills them."""
_LOOK_SECONDS = 0.5
"""Seconds between looks of a waiting client whether the user cancelled."""
CONNECT_SECONDS = 30
_SCHEMES = ("tcp://", "tls://", "ucx://", "ws://", "wss://")
_Note = Callable[[str], None]


@dataclass(frozen=True)
class ClusterPlan:
    """Choice of where to compute.

    Attributes:
        address: "local", "slurm", or the address of a scheduler.
        workers: processes or jobs; of a scheduler that runs already, those that are there.
        options: of dask-jobqueue's ``SLURMCluster``, such as cores, memory, walltime, queue; its configuration file
            gives the others.
    """

    address: str
    workers: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)

    def checked(self) -> ClusterPlan:
        """The same.

        Raises:
            InputError: no such cluster, or options for one that takes none.
        """
        if self.address not in (LOCAL, SLURM) and not self.address.startswith(_SCHEMES):
            raise InputError(
                f"{self.address!r:.80} is no cluster.", "Give local, slurm, or an address such as tcp://host:8786."
            )
        if self.options and self.address != SLURM:
            raise InputError(f"A cluster {self.address!r} takes no options.", "Leave --cluster-option out.")
        return self

    @property
    def threads(self) -> int | None:
        """Threads of a worker's computation; None where whoever started the cluster decides."""
        if self.address == LOCAL:
            return max(1, _cores() // self.workers)
        return int(self.options["cores"]) if "cores" in self.options else None


def _cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def opened(plan: ClusterPlan, note: _Note = lambda _: None) -> Iterator[Any]:
    """Dask client of a cluster while the block runs; what was started for it ends with it.

    Args:
        note: is told where the dashboard is.

    Raises:
        DependencyError: Dask is missing.
        DeviceError: nobody answers at the address, or no job can be submitted.
    """
    plan = plan.checked()
    distributed = needed("distributed", PURPOSE)
    for name in ("distributed", "distributed.client"):  # each death of a worker is told of by many lines
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        stack.enter_context(import_module("dask").config.set({"distributed.scheduler.allowed-failures": LIVES - 1}))
        try:
            start = _STARTERS.get(plan.address)
            place = plan.address if start is None else stack.enter_context(start(plan))
            client = stack.enter_context(distributed.Client(place, timeout=CONNECT_SECONDS, set_as_default=False))
        except (OSError, TimeoutError, ValueError, RuntimeError) as problem:
            reason = (str(problem).splitlines() or [type(problem).__name__])[0]
            raise DeviceError(
                f"The cluster {plan.address} cannot be used: {reason.rstrip('.')}.",
                "Check the address, or that jobs can be submitted from here.",
            ) from problem
        note(f"Dashboard of the cluster: {client.dashboard_link}")
        if not client.scheduler_info()["workers"]:
            note("The cluster has no worker yet; the work waits for one.")
        yield client


def _local(plan: ClusterPlan) -> Any:
    # No limit of memory: Dask would end a worker above it, where the engine takes smaller windows by itself.
    return needed("distributed", PURPOSE).LocalCluster(
        n_workers=plan.workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    )


def _slurm(plan: ClusterPlan) -> Any:
    cluster = needed("dask_jobqueue", PURPOSE).SLURMCluster(**{"processes": 1, **plan.options})
    cluster.scale(jobs=plan.workers)
    return cluster


_STARTERS: dict[str, Callable[[ClusterPlan], Any]] = {LOCAL: _local, SLURM: _slurm}


def results(
    client: Any, function: Callable[[Any], Any], orders: Sequence[Any], cancel: CancelToken | None = None
) -> Iterator[tuple[int, Any]]:
    """Compute each order; gives its number and the result, as they come.

    A result is what the function gives, or as an object the error that ended it, also where :data:`LIVES` workers
    died with the order. Dask blames every order that a dead worker held, so each that is blamed has its
    chance alone, at the end.

    Raises:
        Cancelled: after ``cancel``; workers of a cluster that runs on finish what they compute at the moment.
    """
    suspects = []
    for number, future in _finished(client, function, dict(enumerate(orders)), cancel):
        if _killed_workers(future):  # or was given to a worker beside the order that did
            suspects.append(number)
        else:
            yield number, _outcome(future)
    for number in suspects:
        for _, future in _finished(client, function, {number: orders[number]}, cancel):
            yield number, _outcome(future)


def _finished(
    client: Any, function: Callable[[Any], Any], orders: Mapping[int, Any], cancel: CancelToken | None
) -> Iterator[tuple[int, Any]]:
    """Compute numbered orders; gives the number and the future of each that is finished, released afterwards."""
    finished: SimpleQueue[Any] = SimpleQueue()
    waiting = {client.submit(function, order, pure=False): number for number, order in orders.items()}
    for future in waiting:
        future.add_done_callback(finished.put)
    try:
        while waiting:
            if cancel is not None:
                cancel.check()
            try:
                future = finished.get(timeout=_LOOK_SECONDS)
            except Empty:
                continue
            yield waiting.pop(future), future
            future.release()
    finally:
        client.cancel(list(waiting), force=True)


def _killed_workers(future: Any) -> bool:
    return future.status == "error" and type(future.exception()).__name__ == "KilledWorker"


def _outcome(future: Any) -> Any:
    """Result of an order that was finished, or the error in its place.

    The worker that holds the result may have died since: then the order is computed again, and this waits for it.
    """
    problem = None if future.status == "cancelled" else future.exception()
    if problem is None and future.status != "cancelled":
        return future.result()
    if problem is None:
        return DeviceError("The scheduler ended, or cannot be reached any more.", "Start it again.")
    if type(problem).__name__ == "KilledWorker":
        return DeviceError("Worker after worker died with it.", "They may lack memory: give each more, or use fewer.")
    if isinstance(problem, ModuleNotFoundError) and str(problem.name).startswith("MedDiffFMLib"):
        return DependencyError("A worker has no MedDiff-FM.", "Install it in the environment of every worker.")
    return problem
