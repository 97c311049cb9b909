"""Hooks of mkdocs: pages that are made from the code, and links that leave the folder of pages."""

from __future__ import annotations

import argparse
import ast
import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "MedDiffFMLib"
COMMAND_LINE = "reference/command-line.md"


def on_config(config: Any) -> Any:
    """List the pages that are made from the code under "Reference"."""
    (reference,) = (entry["Reference"] for entry in config.nav if isinstance(entry, dict) and "Reference" in entry)
    reference.append(COMMAND_LINE)
    reference.append({"Modules": [_page_of(room) for room in _rooms()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add those pages."""
    files.append(File.generated(config, COMMAND_LINE, content=_command_line()))
    for room in _rooms():
        files.append(File.generated(config, _page_of(room), content=_room(room)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links to files outside of the folder of pages lead to the repository."""
    folder = posixpath.dirname(page.file.src_uri)

    def target(match: re.Match[str]) -> str:
        path, _, anchor = match[2].partition("#")
        place = posixpath.normpath(posixpath.join("docs", folder, path))
        if not path or ":" in path or place.startswith("docs/") or not (ROOT / place).exists():
            return match[0]
        kind = "tree" if (ROOT / place).is_dir() else "blob"
        address = f"{config.repo_url}/{kind}/main/{place}"
        return f"[{match[1]}]({address}{'#' + anchor if anchor else ''})"

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", target, markdown)


def _rooms() -> list[str]:
    """The library's packages by name."""
    return sorted(path.parent.name for path in LIBRARY.glob("*/__init__.py"))


def _page_of(room: str) -> str:
    return f"reference/modules/{room}.md"


def _room(room: str) -> str:
    """Every module of a package."""
    modules = []
    for path in sorted((LIBRARY / room).rglob("*.py")):
        if path.name in ("__init__.py", "__main__.py") or ast.get_docstring(ast.parse(path.read_text("utf-8"))) is None:
            continue
        modules.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    options = "    options:\n      skip_local_inventory: false\n      show_root_heading: false\n"
    names = [f"## {name.removeprefix(f'MedDiffFMLib.{room}.')}\n\n::: {name}\n{options}" for name in modules]
    return "\n".join([f"# {room}\n", *names])


def _command_line() -> str:
    """The help of every command, as it prints it."""
    sys.path.insert(0, str(ROOT))
    os.environ["COLUMNS"] = "100"
    from MedDiffFMLib.cli.main import build_parser

    parts = ["# Command line\n"]
    for name, parser in _commands("meddifffm", build_parser()):
        parts.append(f"{'##' if name.count(' ') < 2 else '###'} {name}\n\n```text\n{parser.format_help()}```\n")
    return "\n".join(parts)


def _commands(name: str, parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser]]:
    """A command and those below it."""
    found = [(name, parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below, other in action.choices.items():
                found += _commands(f"{name} {below}", other)
    return found
