"""``meddifffm validate CACHE MODEL ...``: priors side by side on the held-out patients of a cache."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.text_table import columns
from .arguments import COUNT, add_command
from .console import Console


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "validate",
        run,
        "Compare priors on the validation patients of a cache, on the same windows and noise.",
    )
    add = parser.add_argument
    add("cache", type=Path, help="folder made by `meddifffm prepare`, with validation cases")
    add("models", nargs="+", metavar="MODEL", help="names or .safetensors files")
    add("--windows", type=COUNT, default=128, metavar="N", help="windows of each kind (default: %(default)s)")


def run(args: argparse.Namespace, console: Console) -> int:
    """Print one row a model; the first one is the reference of the others."""
    from ..models.catalogue import resolve
    from ..models.checkpoint import load_denoiser
    from ..training.validation import Validation

    judge = validation(args.cache, args.windows)
    assert isinstance(judge, Validation)
    rows: dict[str, dict[str, float]] = {}
    for name in args.models:
        console.cancel.check()
        path = resolve(name)[1]
        rows[name] = judge(load_denoiser(path))
        console.note(f"{name}: score {rows[name]['score']}")
    console.answer({"status": "done", "models": rows}, table(rows))
    return 0


def validation(cache: Path, windows: int) -> Any:
    """The judge on the validation cases of a cache.

    Raises:
        InputError: it has none.
    """
    from ..datasets.prepared_cases import open_cases
    from ..training.pretrain.config import PretrainConfig
    from ..training.validation import Validation

    if windows < 1:
        raise InputError(f"--windows {windows} leaves nothing to judge.", "Give at least 1.")
    cases = open_cases(cache, "validation")
    if not cases:
        raise InputError(
            f"{cache} holds no validation cases.", "Name some in the datalist and run `meddifffm prepare`."
        )
    return Validation(cases, PretrainConfig(), windows)


def table(rows: dict[str, dict[str, float]]) -> str:
    """Figures as lines, models as columns."""
    names = list(dict.fromkeys(name for figures in rows.values() for name in figures))
    lines = [[name, *(f"{figures.get(name, float('nan')):g}" for figures in rows.values())] for name in names]
    return columns([["RMSE in HU", *rows], *lines])
