"""``meddifffm models [list|check]``: what weights there are, and whether they are undamaged."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import ModelError
from ..models.catalogue import list_models, resolve
from ..models.checkpoint import file_sha256, read_header
from .console import Console, columns


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    sentence = "List the models, or check their files."
    parser = subparsers.add_parser("models", parents=[common], help=sentence, description=sentence)
    parser.add_argument("action", nargs="?", choices=("list", "check"), default="list")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """List or check."""
    return _check(console) if args.action == "check" else _list(console)


def _list(console: Console) -> int:
    entries = list_models()
    rows = [[entry.name, f"{entry.bytes / 1e6:.1f} MB", entry.licence, entry.title] for entry in entries]
    table = columns([["name", "size", "licence", "title"], *rows])
    console.answer({"status": "done", "models": [vars(entry) for entry in entries]}, table)
    return 0


def _check(console: Console) -> int:
    """Compare every present file with its hash and read its description."""
    rows, code = [], 0
    for entry in list_models():
        try:
            _, path, expected = resolve(entry.name)
            read_header(path)
            state = "ok" if expected is None or file_sha256(path) == expected else "wrong SHA-256"
        except ModelError as problem:
            state = problem.cause
        code = code if state == "ok" else ModelError.exit_code
        rows.append([entry.name, state])
    answer = {"status": "done" if code == 0 else "error", "models": dict(rows)}
    console.answer(answer, columns([["name", "state"], *rows]))
    return code
