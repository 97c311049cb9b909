"""Commands whose part of the library an installation leaves out, as the Slicer package does with what only measures."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ..core.errors import DependencyError
from .console import Console


@dataclass(frozen=True)
class LeftOut:
    """Stand-in for a sub-command's module.

    Attributes:
        name: of the sub-command.
    """

    name: str

    def add_parser(self, subparsers: Any, common: argparse.ArgumentParser) -> None:
        """The sub-command, with any arguments."""
        parser = subparsers.add_parser(self.name, parents=[common], help="not in this installation")
        parser.add_argument("arguments", nargs="*")
        parser.set_defaults(run=self.run, any_arguments=True)

    def run(self, args: argparse.Namespace, console: Console) -> int:
        """Refuse.

        Raises:
            DependencyError: always.
        """
        raise DependencyError(
            f"'{self.name}' is not in this installation: Slicer's package leaves out what only measures.",
            "Install the library with pip, or run it in a checkout.",
        )
