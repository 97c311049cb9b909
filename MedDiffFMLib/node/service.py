"""The node: takes up what was left, receives, works, sends, and stops when it is asked to.

Each step ends with one rename or one record on the disk, so that a process that is killed leaves either the step before
or the step after; see :mod:`MedDiffFMLib.node.jobs`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.atomic_files import sweep
from ..core.errors import Cancelled, InputError, MedDiffFMError, OutputError, expected, log_defect, reason_of
from ..core.file_lock import locked
from ..core.progress import CancelToken, ProgressEvent
from ..core.safe_load import read_json
from ..dicom.out.export import check_folder
from ..imaging.volume import MIN_SLICES
from ..runner.load import Loaded
from .arrivals import ARRIVAL, IMAGES, Arrival, Arrivals, Patience, image_names, read_arrival
from .audit import Audit, now
from .delivery import Delivery
from .durable import move_folder, remove_folder, size_of, write_file, write_record
from .jobs import ATTEMPTS, COMPUTED, FAILED, RESULTS, DoneSeries, Job, Result, job_name
from .peers import Caller, caller_of
from .receiver import Limits, Receiver, Usage
from .rules import Rule
from .status import LOCK, StatusFile
from .tls import Certificates
from .work import without_names, work

_IDLE_SECONDS = 0.2
_DISK_SECONDS = 30.0
_MOST_ATTEMPTS = 3
_DAY = 86400.0


@dataclass(frozen=True)
class NodeSettings:
    """Everything that a node is told.

    Attributes:
        folder: of its queue.
        title: its AE title.
        bind, port: where it listens; 0 for any free port.
        hours: after which results that nobody takes are given up.
        days: for which a series that is sent again is known as done.
        names: whether the audit log has patients.
    """

    folder: Path
    rules: Sequence[Rule]
    callers: Sequence[Caller]
    title: str = "MEDDIFFFM"
    bind: str = ""
    port: int = 11112
    patience: Patience = Patience()
    limits: Limits = Limits()
    certificates: Certificates | None = None
    hours: float = 24.0
    days: float = 90.0
    names: bool = False
    modalities: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", frozenset(rule.modality for rule in self.rules))

    def checked(self) -> NodeSettings:
        """The same, if it can be run.

        Raises:
            InputError: nobody may send, or results have nowhere to go.
        """
        if not self.callers:
            raise InputError("Nobody may send.", "Name who may: --from AET@HOST:PORT.")
        blind = [caller.title for caller in self.callers if caller.port is None]
        if blind and any(None in rule.to for rule in self.rules):
            raise InputError(
                f"Results go back to the sender, and nobody knows on which port {blind[0]} takes them.",
                "Write --from AET@HOST:PORT, or say where results go: --to pacs://AET@HOST:PORT.",
            )
        secured = any(target is not None and target.scheme == "pacs+tls" for rule in self.rules for target in rule.to)
        if secured and self.certificates is None:
            raise InputError("A pacs+tls:// address needs certificates.", "Give --tls CERTIFICATE KEY TRUSTED.")
        return self


class Node:
    """One node.

    Args:
        load: gives the model of a rule; warm after the first time.
        told: is given each event of the audit log.
    """

    def __init__(
        self,
        settings: NodeSettings,
        load: Callable[[Rule], Loaded],
        told: Callable[[str, dict[str, Any]], None] = lambda *_: None,
    ) -> None:
        self._settings, self._load = settings.checked(), load
        self._rules = {rule.name: rule for rule in settings.rules}
        self._folder = settings.folder
        self._jobs, self._aside = self._folder / "jobs", self._folder / "aside"
        self._told = told
        self._working_on, self._usage = "", Usage()
        self._finishing = threading.RLock()
        self._not_before: dict[str, float] = {}
        self._seen: set[str] = set()
        self._settled: set[str] = set()

    def run(self, cancel: CancelToken, ready: Callable[[int], None] = lambda _: None) -> None:
        """Serve until cancelled.

        Args:
            ready: is given the port once callers are answered.

        Raises:
            MedDiffFMError: it cannot begin.
        """
        settings = self._settings
        with self._owned():
            self._audit = Audit(self._folder, self._told)
            self._take_up()
            check_folder(self._folder / "trial")
            for rule in settings.rules:
                self._load(rule)
            tls = settings.certificates
            server, client = (tls.server(), tls.client()) if tls else (None, None)
            receiver = Receiver(
                settings.title, settings.callers, self._arrivals, settings.limits, self._audit, self._keep_image,
                self._usage, settings.names,
            )  # fmt: skip
            self._delivery = Delivery(
                settings.title, client, self._audit, self._delivered, self._given_up, settings.hours
            )
            with receiver.listening(settings.bind, settings.port, sorted(settings.modalities), server):
                self._status = StatusFile(self._folder, {"title": settings.title, "port": receiver.port})
                self._audit.write("started", port=receiver.port, rules=list(self._rules), process=os.getpid())
                with self._delivery:
                    ready(receiver.port)
                    self._serve(cancel)
            self._audit.write("stopped", process=os.getpid())
            self._show(at_once=True)

    @contextlib.contextmanager
    def _owned(self) -> Iterator[None]:
        """Have the folder for this process alone."""
        try:
            for folder in (self._folder, self._jobs, self._aside):
                folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                stack.enter_context(locked(self._folder, LOCK))
                yield
        except BlockingIOError:
            raise InputError(
                f"Another process listens with the queue '{self._folder}'.", "Give this one a folder of its own."
            ) from None
        except OSError as problem:
            raise OutputError(
                f"The queue '{self._folder}' cannot be used: {reason_of(problem)}.", "Choose another folder."
            ) from problem

    def _take_up(self) -> None:
        """Find what an earlier process left."""
        for folder in (self._folder, self._jobs, self._aside):
            sweep(folder)
        self._done = DoneSeries(self._folder / "done", self._settings.days)
        self._arrivals = Arrivals(self._folder / "arriving", self._settings.patience)
        for folder in self._arrivals.damaged:
            self._put_aside(folder, "its record is damaged")
        for job in self._all_jobs():
            sweep(job.folder / RESULTS)
            if self._done.has(job):  # killed between the last two steps
                remove_folder(job.folder)
        here = [job.images for job in self._all_jobs()] + list(self._arrivals.folder.glob(f"*/{IMAGES}"))
        self._usage.add(sum(map(size_of, here)))

    def _all_jobs(self) -> list[Job]:
        """Oldest first."""
        return [Job(path) for path in sorted(self._jobs.iterdir()) if path.is_dir() and not path.name.startswith(".")]

    # The loop

    def _serve(self, cancel: CancelToken) -> None:
        swept = -_DAY
        while not cancel.cancelled:
            if time.monotonic() - swept >= _DAY:
                swept = time.monotonic()
                self._done.forget_old()
            worked = False
            for step in (self._promote, lambda: self._work_on_one(cancel)):
                try:
                    worked = bool(step()) or worked
                except Cancelled:
                    return
                except OSError as problem:  # the disk; what waits, waits on
                    self._audit.write("trouble", reason=reason_of(problem))
                    time.sleep(1.0)
            self._show()
            if not worked:
                time.sleep(_IDLE_SECONDS)

    def _show(self, *, at_once: bool = False) -> None:
        with contextlib.suppress(OutputError):  # a full disk shows itself elsewhere
            self._status.show(self._state, at_once=at_once)

    def _state(self) -> dict[str, Any]:
        return {
            "arriving": len(self._arrivals),
            "waiting": len(self._all_jobs()),
            "working_on": self._working_on,
            "to_be_sent": len(self._delivery),
            "done": len(self._done),
            "aside": sum(1 for path in self._aside.iterdir() if not path.name.startswith(".")),
            "bytes": self._usage.bytes,
            "troubles": self._delivery.troubles,
        }

    # From series to jobs

    def _promote(self) -> None:
        """Make jobs of the series that are whole."""
        for key, reason in self._arrivals.due().items():
            with self._arrivals.lock:
                if self._arrivals.due().get(key) is None:  # an image came in between
                    continue
                folder = self._arrivals.folder / key
                self._decide(folder, self._arrivals.arrival(key), image_names(folder), reason)
                self._arrivals.let_go(key)

    def _decide(self, folder: Path, arrival: Arrival, images: set[str], reason: str) -> None:
        known = self._known(arrival.key)
        said = {**arrival.said(), "images": len(images)}
        if any(images <= earlier for earlier in known):
            self._drop(folder, "repeated", said, "all of it was worked on before")
        elif not [rule for rule in self._rules.values() if rule.fits(arrival.tags)]:
            self._drop(folder, "passed over", said, "no rule is for it")
        elif any(images & earlier for earlier in known) and not any(images > earlier for earlier in known):
            self._put_aside(folder, "some of it was worked on before; send the whole series again", said)
        elif known and not any(images > earlier for earlier in known):
            self._put_aside(folder, "it came after the series was worked on; send the whole series again", said)
        elif reason:
            self._put_aside(folder, reason, said)
        elif len(images) < MIN_SLICES:
            self._drop(folder, "passed over", said, "too few images for a volume")
        else:
            name = job_name(arrival.key)
            move_folder(folder, self._jobs / name)
            self._audit.write("received", job=name, **said)

    def _known(self, key: str) -> list[set[str]]:
        """Images of a series that were worked on, or wait for it."""
        waiting = [image_names(job.folder) for job in self._all_jobs() if job.name.endswith(f"-{key}")]
        return [*self._done.sets(key), *waiting]

    def _drop(self, folder: Path, event: str, said: dict[str, Any], reason: str) -> None:
        self._usage.add(-size_of(folder / IMAGES))
        remove_folder(folder)
        self._audit.write(event, **said, reason=reason)

    # From jobs to results

    def _work_on_one(self, cancel: CancelToken) -> bool:
        """Work on the oldest job that has a rule without an outcome; tells whether there was one."""
        jobs = self._all_jobs()
        names_here = {job.name for job in jobs}
        self._seen &= names_here
        self._settled &= names_here
        for job in jobs:
            if job.name in self._settled or self._not_before.get(job.name, 0.0) > time.monotonic():
                continue
            try:
                arrival, names = self._look_at(job)
            except FileNotFoundError:  # finished meanwhile
                continue
            except (ValueError, TypeError, KeyError):
                self._put_aside(job.folder, "its record is damaged")
                continue
            if names:
                self._not_before.pop(job.name, None)
                self._work(job, arrival, self._rules[names[0]], cancel)
            if len(names) <= 1 and job.name not in self._not_before:
                self._settled.add(job.name)
                self._finish_if_done(job)
            if names:
                return True
        return False

    def _look_at(self, job: Job) -> tuple[Arrival, list[str]]:
        """The series of a job and the rules without an outcome; results that were there before us are sent."""
        arrival = job.arrival()
        if job.name not in self._seen:
            self._seen.add(job.name)
            for result in job.results():
                self._delivery.add(result)
        return arrival, job.open_rules([rule.name for rule in self._rules.values() if rule.fits(arrival.tags)])

    def _work(self, job: Job, arrival: Arrival, rule: Rule, cancel: CancelToken) -> None:
        """One rule; what goes wrong is said, and never stops the node."""
        if job.count_attempt(rule.name) > _MOST_ATTEMPTS:
            self._fail(job, rule, f"the program died {_MOST_ATTEMPTS} times while it worked on it")
            return
        start = time.monotonic()
        self._working_on = f"{job.name} {rule.name}"
        try:
            targets = self._targets(rule, arrival)
            result, warnings = work(job, rule, targets, lambda: self._load(rule), self._progress, cancel)
        except Cancelled:
            job.count_attempt(rule.name, -1)
            raise
        except Exception as problem:
            failure = expected(problem) or MedDiffFMError(f"Unexpected failure: {log_defect(problem)}.")
            if isinstance(failure, OutputError):  # the disk, not the series: later
                job.count_attempt(rule.name, -1)
                self._not_before[job.name] = time.monotonic() + _DISK_SECONDS
                self._audit.write("trouble", job=job.name, rule=rule.name, reason=failure.cause)
            else:
                self._fail(job, rule, without_names(job, failure.cause))
        else:
            self._audit.write(
                "computed", job=job.name, rule=rule.name, task=rule.settings.task, objects=len(result.objects),
                seconds=round(time.monotonic() - start, 2), warnings=[without_names(job, text) for text in warnings],
            )  # fmt: skip
            self._delivery.add(result)
        finally:
            self._working_on = ""

    def _progress(self, event: ProgressEvent) -> None:
        self._show()

    def _targets(self, rule: Rule, arrival: Arrival) -> list[str]:
        """Addresses that the results go to."""
        return [str(target) if target is not None else self._sender(arrival) for target in rule.to]

    def _sender(self, arrival: Arrival) -> str:
        """Address of who sent a series.

        Raises:
            InputError: it takes no results any more.
        """
        caller = caller_of(self._settings.callers, arrival.caller, arrival.address)
        if caller is None or caller.port is None:
            raise InputError(f"{arrival.caller} is not known any more.", "Name it with --from AET@HOST:PORT.")
        host = caller.host or arrival.address
        scheme = "pacs+tls" if self._settings.certificates else "pacs"
        return f"{scheme}://{caller.title}@{f'[{host}]' if ':' in host else host}:{caller.port}"

    def _fail(self, job: Job, rule: Rule, reason: str) -> None:
        job.fail(rule.name, reason)
        self._audit.write("failed", job=job.name, rule=rule.name, task=rule.settings.task, reason=reason)

    # The end of a job

    def _delivered(self, result: Result) -> None:
        self._finish_if_done(Job(result.job))

    def _given_up(self, result: Result, reason: str) -> None:
        with self._finishing:
            if result.job.is_dir():
                self._put_aside(result.job, reason)

    def _finish_if_done(self, job: Job) -> None:
        """End a job all of whose rules have an outcome, and whose results were taken everywhere."""
        with self._finishing:
            if not job.folder.is_dir():
                return
            arrival = job.arrival()
            if job.open_rules([rule.name for rule in self._rules.values() if rule.fits(arrival.tags)]):
                return
            if any(result.open_targets() for result in job.results()):
                return
            failures = job.failures()
            if failures:
                self._put_aside(job.folder, "; ".join(f"{rule}: {reason}" for rule, reason in failures.items()))
                return
            self._done.add(job)
            self._usage.add(-size_of(job.images))
            self._audit.write("done", job=job.name, **arrival.said())
            remove_folder(job.folder)

    # What cannot be worked on

    def _put_aside(self, folder: Path, reason: str, said: dict[str, Any] | None = None) -> None:
        """Keep a series that cannot be worked on, with the reason."""
        if said is None:
            try:
                said = read_arrival(folder).said()
            except (OSError, ValueError, TypeError):
                said = {}
        self._usage.add(-size_of(folder / IMAGES))
        target = self._free_name(folder.name)
        write_record(folder / "reason.json", {"reason": reason, "time": now(), **said})
        move_folder(folder, target)
        self._audit.write("put aside", folder=target.name, reason=reason, **said)

    def _keep_image(self, content: bytes, reason: str, who: dict[str, Any]) -> None:
        """Keep an image that cannot be taken, with the reason."""
        target = self._free_name(job_name("image"))
        target.mkdir()
        write_record(target / "reason.json", {"reason": reason, "time": now(), **who})
        write_file(target / "image.dcm", content)
        self._audit.write("put aside", folder=target.name, reason=reason, **who)

    def _free_name(self, name: str) -> Path:
        choices = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        return next(self._aside / choice for choice in choices if not os.path.lexists(self._aside / choice))


def try_again(folder: Path, name: str) -> None:
    """Have a series that was put aside worked on as it is; a node that runs takes it up at once.

    Raises:
        InputError: there is no such series.
    """
    source = folder / "aside" / name
    if not name or Path(name).name != name or not (source / ARRIVAL).is_file() or not image_names(source):
        raise InputError(f"'{folder}' has no series {name!r:.80} aside.", "Give the name of a folder in aside/.")
    for outcome in (FAILED, ATTEMPTS):
        path = source / outcome
        if path.is_dir():
            remove_folder(path)
        else:
            path.unlink(missing_ok=True)
    for result in Job(source).results():
        record = result.folder / COMPUTED
        write_record(record, {**read_json(record), "since": time.time()})
    move_folder(source, folder / "jobs" / job_name(read_arrival(source).key))
