"""``meddifffm page FILE``: a page that was kept as JSON, as PDF or HTML; Slicer's panel has its PDFs made so."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..core.atomic_files import atomic_path
from ..core.errors import InputError, reason_of
from ..core.safe_load import read_json
from ..runner.pages import PAPERS, PageFiles, rendered
from .arguments import add_command
from .console import Console


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    sentence = "Draw a one-page report that the panel in Slicer kept as JSON."
    more = "Tasks write theirs with --pdf and --html."
    parser = add_command(subparsers, common, "page", run, sentence, more)
    parser.add_argument("page", type=Path, metavar="FILE.json", help="the page")
    for kind in ("pdf", "html"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write {kind.upper()}")
    parser.add_argument("--paper", choices=PAPERS, default=PAPERS[0], help=f"of the PDF (default: {PAPERS[0]})")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(args: argparse.Namespace, console: Console) -> int:
    """Read, draw, write."""
    from ..pages.content import from_json

    pages = PageFiles(args.pdf, args.html, args.paper)
    wanted = {suffix: path for suffix, path in ((".pdf", args.pdf), (".html", args.html)) if path is not None}
    if not wanted:
        raise InputError("Nothing is to be written.", "Give --pdf FILE or --html FILE.")
    try:
        record = read_json(args.page)
    except OSError as problem:
        raise InputError(f"'{args.page}' cannot be read: {reason_of(problem)}.", "Check the path.") from None
    except ValueError:
        raise InputError(f"'{args.page}' is not a JSON file.", "Save the page again.") from None
    content = rendered(pages, from_json(record))
    for suffix, path in wanted.items():
        with atomic_path(path, overwrite=args.overwrite) as temporary:
            temporary.write_bytes(content[suffix]())
    files = [str(path) for path in wanted.values()]
    console.answer({"status": "done", "files": files}, "\n".join(files))
    return 0
