"""``meddifffm models [list|check|remove]``: the installed weights and their integrity."""

from __future__ import annotations

import argparse
from typing import Any

from ..core.errors import ModelError
from ..core.file_hash import file_sha256
from ..core.text_table import columns
from ..models.catalogue import KINDS, CatalogueEntry, list_models, remove_model, user_folder
from ..models.checkpoint import read_header, read_metadata
from ..models.controlnet_file import read_description
from ..segmentation.head_file import read_head
from .arguments import add_command
from .console import Console

READERS = {
    "control": read_description, "segmentation": read_head, "body": read_metadata, "encoders": read_metadata,
}  # fmt: skip
"""Reader of the description in a file of each kind; that of priors where none is named."""


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "models",
        run,
        "List the models, check their files, or remove one of your own.",
        "Models that `meddifffm finetune` made lie in a folder of their own, which the "
        "environment variable MEDDIFFFM_MODELS can name.",
    )
    parser.add_argument("action", nargs="?", choices=("list", "check"), default="list")
    parser.add_argument("--remove", metavar="NAME", help="remove this model of your own")


def run(args: argparse.Namespace, console: Console) -> int:
    """List, check or remove."""
    if args.remove is not None:
        entry = remove_model(args.remove)
        console.answer({"status": "done", "removed": entry.name}, f"{entry.name} is removed from {entry.folder}.")
        return 0
    return _check(console) if args.action == "check" else _list(console)


def _list(console: Console) -> int:
    entries = list_models()
    names = {entry.sha256: entry.name for entry in entries if entry.kind == "prior"}
    rows = [["name", "kind", "task", "prior", "size", "licence", "from", "title"]]
    for entry in entries:
        prior = names.get(entry.prior, entry.prior[:12])
        rows.append(
            [
                entry.name,
                KINDS.get(entry.kind, entry.kind),
                entry.task,
                prior,
                f"{entry.bytes / 1e6:.1f} MB",
                entry.licence,
                "you" if entry.is_own else "shipped",
                entry.title,
            ]
        )
    answer = {"status": "done", "folder": str(user_folder()), "models": [_record(entry) for entry in entries]}
    console.answer(answer, f"{columns(rows)}\n\nYour own models lie in {user_folder()}.")
    return 0


def _record(entry: CatalogueEntry) -> dict[str, Any]:
    """JSON-ready."""
    return {**vars(entry), "folder": str(entry.path.parent), "own": entry.is_own}


def _check(console: Console) -> int:
    """Compare every file with its hash and read its description."""
    rows, code = [], 0
    for entry in list_models():
        try:
            READERS.get(entry.kind, read_header)(entry.path)
            state = "ok" if file_sha256(entry.path) == entry.sha256 else "wrong SHA-256"
        except ModelError as problem:
            state = problem.cause
        code = code if state == "ok" else ModelError.exit_code
        rows.append([entry.name, state])
    answer = {"status": "done" if code == 0 else "error", "models": dict(rows)}
    console.answer(answer, columns([["name", "state"], *rows]))
    return code
