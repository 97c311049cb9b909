"""``meddifffm series SOURCE``: the series of a DICOM folder, medium or archive, and a copy of one of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..core.text_table import columns
from ..dicom.copies import copy_series
from ..dicom.series import choose_series, find_series, table
from ..dicom.sources.address import Address
from ..dicom.sources.archive import fetched, listed
from ..imaging.modality import CT
from .console import Console
from .remote import source as source_type


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    sentence = "List the series of a DICOM folder, DICOMDIR or archive, or copy one of them."
    parser = subparsers.add_parser("series", parents=[common], help=sentence, description=sentence)
    source = "DICOM folder, DICOMDIR, dicomweb://HOST/PATH?KEY=VALUE or pacs://AET@HOST:PORT?KEY=VALUE"
    parser.add_argument("source", type=source_type, help=source)
    parser.add_argument("--series", metavar="NUMBER|UID", help="the one to copy, where there are several")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="new folder that its files are copied to")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """List or copy."""
    source = args.source
    found = listed(source) if isinstance(source, Address) else find_series(source)
    if args.output is None:
        rows = table(found)
        console.answer(
            {"status": "done", "series": [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]}, columns(rows)
        )
        return 0
    series = choose_series(str(source), found, args.series, CT, console.note)
    if isinstance(source, Address):
        with fetched(source, series, console.progress, console.cancel) as folder:
            files = copy_series(sorted(folder.iterdir()), args.output)
    else:
        files = copy_series(series.files, args.output)
    console.answer({"status": "done", "folder": args.output.resolve(), "files": len(files)}, str(args.output))
    return 0
