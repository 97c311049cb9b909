"""``meddifffm models``: the weights on this computer and their integrity, stores, and downloads from them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import InputError, ModelError
from ..core.file_hash import file_sha256
from ..core.text_table import columns
from ..models.catalogue import available_models, list_models, remove_model
from ..models.checkpoint import read_header, read_metadata
from ..models.controlnet_file import read_description
from ..models.entry import KINDS, CatalogueEntry, user_folder
from ..models.store import INSECURE, add_store, remove_store, stores
from ..segmentation.head_file import read_head
from .arguments import add_command
from .console import Console
from .downloads import Consent, offer

READERS = {
    "control": read_description,
    "segmentation": read_head,
    **dict.fromkeys(("body", "anomaly", "denoiser", "translation", "encoders", "xrays", "facts"), read_metadata),
}
"""Reader of the description in a file of each kind; that of priors where none is named."""


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "models",
        run,
        "List the models, check their files, download one, or remove one of your own.",
        "Models that `meddifffm finetune` made, and those that were downloaded, lie in a folder of their own, which "
        "the environment variable MEDDIFFFM_MODELS can name. Nothing is downloaded unless you agree.",
    )
    actions = (
        "list (default), check, download NAME, export NAME, add-store ADDRESS, remove-store ADDRESS, or update the "
        "stores"
    )
    parser.add_argument("action", nargs="?", choices=("list", *ACTIONS), default="list", metavar="ACTION", help=actions)
    parser.add_argument("subject", nargs="?", metavar="NAME|ADDRESS", help="model, or catalogue of a store")
    parser.add_argument("--yes", action="store_true", help="agree to the download")
    parser.add_argument(
        INSECURE, action="store_true", help="allow addresses without encryption, of other computers too"
    )
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="with export: write a MONAI Bundle")
    parser.add_argument("--hub", type=Path, metavar="FOLDER",
                        help="with export: write a folder to upload to the Hugging Face Hub")  # fmt: skip
    parser.add_argument("--remove", metavar="NAME", help="remove this model of your own")


def run(args: argparse.Namespace, console: Console) -> int:
    """List, check or remove."""
    if args.remove is not None:
        entry = remove_model(args.remove)
        console.answer({"status": "done", "removed": entry.name}, f"{entry.name} is removed from {entry.folder}.")
        return 0
    if (args.subject is None) == (args.action in NEEDING):
        needs = "needs a name or an address" if args.subject is None else "takes no name"
        raise InputError(f"{args.action} {needs}.", "See `meddifffm models --help`.")
    return ACTIONS.get(args.action, _list)(args, console)


def _download(args: argparse.Namespace, console: Console) -> int:
    entry = offer(args.subject, Consent(args.yes, args.insecure), console)
    if entry is None:
        here = any(known.name == args.subject for known in list_models())
        names = ", ".join(known.name for known in available_models()) or "none"
        cause = "is on this computer already" if here else "is offered by no store"
        raise InputError(f"{args.subject!r:.80} {cause}.", f"Models that can be downloaded: {names}.")
    console.answer({"status": "done", "model": _record(entry)}, str(entry.path))
    return 0


def _add_store(args: argparse.Namespace, console: Console) -> int:
    store = add_store(args.subject, args.insecure)
    names = ", ".join(entry.name for entry in store.models) or "no models"
    console.answer({"status": "done", "store": store.address, "models": names}, f"{store.address} offers {names}.")
    return 0


def _remove_store(args: argparse.Namespace, console: Console) -> int:
    address = remove_store(args.subject)
    console.answer({"status": "done", "store": address}, f"{address} is forgotten; models from it stay.")
    return 0


def _update(args: argparse.Namespace, console: Console) -> int:
    """Ask every store again."""
    known, lines = stores(), []
    for store in known:
        lines.append(f"{store.address}: {len(add_store(store.address, store.insecure or args.insecure).models)} models")
    console.answer({"status": "done", "stores": [store.address for store in known]}, "\n".join(lines) or "No stores.")
    return 0


def _export(args: argparse.Namespace, console: Console) -> int:
    from ..api.model_export import export_bundle, export_for_hub

    if (args.bundle is None) == (args.hub is None):
        raise InputError("What to export, and as what?", "Give `models export NAME --bundle FOLDER` or --hub FOLDER.")
    folder = export_for_hub(args.subject, args.hub) if args.bundle is None else export_bundle(args.subject, args.bundle)
    console.answer(
        {"status": "done", "model": args.subject, "folder": str(folder)}, f"{args.subject} is written to {folder}."
    )
    return 0


def _list(args: argparse.Namespace, console: Console) -> int:
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
                "store" if entry.address else "you" if entry.is_own else "shipped",
                entry.title,
            ]
        )
    offered = available_models()
    answer = {
        "status": "done",
        "folder": str(user_folder()),
        "models": [_record(entry) for entry in entries],
        "available": [_record(entry) for entry in offered],
        "stores": [store.address for store in stores()],
    }
    text = f"{columns(rows)}\n\nYour own models lie in {user_folder()}."
    if offered:
        more = [[e.name, KINDS.get(e.kind, e.kind), f"{e.bytes / 1e6:.1f} MB", e.licence, e.address] for e in offered]
        heading = ["name", "kind", "size", "licence", "address"]
        text += f"\n\nTo download with `meddifffm models download NAME`:\n{columns([heading, *more])}"
    console.answer(answer, text)
    return 0


def _record(entry: CatalogueEntry) -> dict[str, Any]:
    """JSON-ready."""
    return {**vars(entry), "folder": str(entry.path.parent), "own": entry.is_own}


def _check(args: argparse.Namespace, console: Console) -> int:
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


ACTIONS: dict[str, Callable[[argparse.Namespace, Console], int]] = {
    "check": _check,
    "download": _download,
    "export": _export,
    "add-store": _add_store,
    "remove-store": _remove_store,
    "update": _update,
}
NEEDING = ("download", "export", "add-store", "remove-store")
"""Actions with a name or an address."""
