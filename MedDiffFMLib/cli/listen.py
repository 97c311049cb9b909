"""``meddifffm listen``: a node of a department, which takes series over the DICOM network and sends results back."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..core.errors import InputError
from ..dicom.sources.address import LISTEN_PORT, OWN_TITLE, is_title
from ..node.arrivals import Patience
from ..node.peers import parse_caller
from ..node.receiver import Limits
from ..node.rules import SENDER, Rule, checked_rule, read_rules, targets_of
from ..node.service import Node, NodeSettings, try_again
from ..node.status import read_status, status_lines
from ..node.tls import Certificates
from ..runner.load import Loaded
from ..runner.load import load as load_for
from ..runner.report import NOTICE
from ..runner.settings import RunSettings
from . import task
from .arguments import COUNT, add_command, whole_number
from .console import Console

_ONE_CASE = (
    "input",
    "output",
    "batch",
    "series",
    "mask",
    "label",
    "anatomy",
    "dicom",
    "overwrite",
    "private",
    "worker",
    "cluster",
)
_PORT = whole_number(0, 65535)


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    more = (
        "Series that arrive by C-STORE are worked on by TASK, as on the command line, and the results go back as DICOM "
        "objects. What waits lies in the queue and outlives a crash."
    )
    sentence = "Receive series over the DICOM network, and send results back."
    parser = add_command(subparsers, common, "listen", run, sentence, more)
    parser.usage = "meddifffm listen --queue FOLDER --from AET@HOST:PORT [OPTIONS] TASK [OPTIONS OF TASK]"
    add = parser.add_argument
    add(
        "--queue",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder of what arrives and waits, of this node alone",
    )
    add("--status", action="store_true", help="say how the node of that queue is, and end")
    add("--retry", metavar="NAME", help="have a series that lies in aside/ of the queue worked on again, and end")
    add(
        "--rules",
        type=Path,
        metavar="FILE",
        help="JSON or TOML with several tasks, each for its series; instead of TASK",
    )
    add("task", nargs=argparse.REMAINDER, metavar="TASK", help="task with its options, as on the command line")
    _add_network(parser.add_argument_group("who may send, and where results go"))
    _add_limits(parser.add_argument_group("when a series is whole, and limits"))


def _add_network(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--from", dest="callers", action="append", default=[], metavar="AET[@HOST[:PORT]]",
        help="a caller that may send, by AE title, from that host alone; results go back to that port. Repeat for more",
    )  # fmt: skip
    add(
        "--to", action="append", metavar="ADDRESS",
        help="where results go: pacs://AET@HOST:PORT, pacs+tls://AET@HOST:PORT, dicomweb://HOST/PATH, or sender "
        "(default). Repeat for more",
    )  # fmt: skip
    add("--aet", default=OWN_TITLE, metavar="AET", help=f"own AE title (default: {OWN_TITLE})")
    add("--port", type=_PORT, default=LISTEN_PORT, help=f"port to listen on (default: {LISTEN_PORT})")
    add("--bind", default="", metavar="ADDRESS", help="number of the network card to listen on (default: all)")
    add(
        "--tls", nargs=3, type=Path, metavar=("CERTIFICATE", "KEY", "TRUSTED"),
        help="encrypt; callers must show a certificate that TRUSTED signed (PEM files)",
    )  # fmt: skip
    add("--audit-names", action="store_true", help="the audit log has ID and name of the patient")


def _add_limits(group: argparse._ArgumentGroup) -> None:
    add, patience, limits = group.add_argument, Patience(), Limits()
    seconds = "seconds without an image after which a series is whole once its connection was released"
    add("--wait", type=_seconds, default=patience.quiet, metavar="S", help=f"{seconds} (default: {patience.quiet:g})")
    broken = "seconds to wait for a series whose connection broke off to be sent again"
    add(
        "--wait-broken",
        type=_seconds,
        default=patience.broken,
        metavar="S",
        help=f"{broken} (default: {patience.broken:g})",
    )
    add("--images", type=COUNT, default=0, metavar="N", help="a series is whole with N images (default: by time alone)")
    for option, default, help_text in (
        ("--max-image-mb", limits.image_bytes >> 20, "of one image"),
        ("--max-images", limits.images, "of one series"),
        ("--max-queue-gb", limits.queue_bytes >> 30, "of all images that wait"),
        ("--keep-free-gb", limits.free_bytes >> 30, "that stay free on the disk"),
        ("--max-connections", limits.connections, "at the same time"),
    ):
        kind = COUNT if option != "--keep-free-gb" else whole_number(0, 1_000_000)
        add(option, type=kind, default=default, metavar="N", help=f"{help_text} (default: {default})")
    add("--give-up", type=_seconds, default=24.0, metavar="HOURS", help="for results that nobody takes (default: 24)")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no time")
    return value


def run(args: argparse.Namespace, console: Console) -> int:
    """Listen, or say how a node is."""
    if args.status:
        values = read_status(args.queue)
        console.answer(values, status_lines(values))
        return 0 if values["running"] else 3
    if args.retry is not None:
        try_again(args.queue, args.retry)
        console.answer({"status": "done", "series": args.retry}, f"{args.retry} waits to be worked on.")
        return 0
    node = Node(_settings(args), _loader(), lambda event, said: console.note(_line(event, said)))
    node.run(console.cancel, lambda port: console.note(f"{args.aet} listens on port {port}. {NOTICE}"))
    console.answer({"status": "done", "queue": args.queue}, "Stopped; what waits is taken up at the next start.")
    return 0


def _line(event: str, said: dict[str, Any]) -> str:
    return f"{event}: " + ", ".join(f"{key} {value}" for key, value in said.items() if key != "patient")


def _loader() -> Callable[[Rule], Loaded]:
    """Giver of the model of a rule; rules with the same one share it."""

    models: dict[tuple[str, str, str], Loaded] = {}

    def load(rule: Rule) -> Loaded:
        settings = rule.settings
        key = (settings.model, settings.device, settings.precision)
        if key not in models:
            models[key] = load_for(settings)
        return models[key]

    return load


def _settings(args: argparse.Namespace) -> NodeSettings:
    """Settings of the node, checked as far as words go."""
    if bool(args.task) == (args.rules is not None):
        raise InputError("What is to be done is not clear.", "Give a TASK, or --rules FILE.")
    if not is_title(args.aet):
        raise InputError(f"{args.aet!r:.80} is no AE title.", "Use 1 to 16 letters, digits, spaces, _ and -.")
    if args.rules is not None:
        if args.to:
            raise InputError("--to and --rules exclude each other.", "Say in the rules where results go.")
        rules = read_rules(args.rules, task_settings)
    else:
        settings, force = task_settings(args.task)
        rules = [checked_rule(Rule(settings.task, settings, force, to=targets_of(args.to or [SENDER])))]
    return NodeSettings(
        folder=args.queue, rules=rules, callers=[parse_caller(text) for text in args.callers], title=args.aet.strip(),
        bind=args.bind, port=args.port,
        patience=Patience(quiet=args.wait, broken=args.wait_broken, images=args.images),
        limits=Limits(
            args.max_image_mb << 20, args.max_images, args.max_queue_gb << 30, args.keep_free_gb << 30,
            args.max_connections,
        ),
        certificates=Certificates(*args.tls) if args.tls else None, hours=args.give_up, names=args.audit_names,
    )  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like any other."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"The task cannot be read: {message}.", "Write it as on the command line, without files.")


def task_settings(words: Sequence[str]) -> tuple[RunSettings, bool]:
    """Settings and ``--force`` from a task as it stands on the command line.

    Raises:
        InputError: unknown, or with options that are of one case or batch.
    """
    parser = _Parser(prog="meddifffm listen", add_help=False)
    task.add_parser(parser.add_subparsers(required=True), argparse.ArgumentParser(add_help=False))
    args = parser.parse_args(list(words))
    given = [name for name in _ONE_CASE if getattr(args, name, None) not in (None, False)]
    if given:
        raise InputError(
            f"--{given[0]} has no place in the task of a node.", "Give the task's own parameters, the model and device."
        )
    return task.settings_from(args), args.force
