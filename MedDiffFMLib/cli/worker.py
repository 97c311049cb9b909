"""``meddifffm worker``: the end of a connection that another computer's ``--worker`` or Slicer begins."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_command
from .console import Console


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    more = (
        "Started over SSH by `meddifffm TASK --worker ssh://user@this-computer` and by the Slicer module; not by hand."
    )
    add_command(subparsers, common, "worker", run, "Compute for another computer.", more)


def run(args: argparse.Namespace, console: Console) -> int:
    """Serve until the connection ends."""
    from ..worker.far_end import main

    return main()
