"""Nodes and model stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedDiffFMLib.models.store import add_store
from MedDiffFMLib.node.peers import parse_caller
from MedDiffFMLib.node.rules import Rule, checked_rule
from MedDiffFMLib.node.service import NodeSettings
from MedDiffFMLib.runner.settings import RunSettings

from .rows import case


@case("caller of a node without a name", "'@10.0.0.5' names no caller. Write AE title, AET@HOST, or AET@HOST:PORT.")
def _nameless_caller(folder: Path, _: pytest.MonkeyPatch) -> None:
    parse_caller("@10.0.0.5")


def _node(folder: Path, caller: str) -> NodeSettings:
    rule = Rule("xray", RunSettings("radiograph").checked())
    return NodeSettings(folder, [rule], [parse_caller(caller)] if caller else []).checked()


@case("node that nobody may send to", "Nobody may send. Name who may: --from AET@HOST:PORT.")
def _lonely_node(folder: Path, _: pytest.MonkeyPatch) -> None:
    _node(folder, "")


@case(
    "node whose results have nowhere to go",
    "Results go back to the sender, and nobody knows on which port CT1 takes them. "
    "Write --from AET@HOST:PORT, or say where results go: --to pacs://AET@HOST:PORT.",
)
def _dumb_caller(folder: Path, _: pytest.MonkeyPatch) -> None:
    _node(folder, "CT1")


@case(
    "node with a task that needs a mask",
    "inpaint cannot work on what arrives: it also needs mask. Choose another task.",
)
def _unservable(folder: Path, _: pytest.MonkeyPatch) -> None:
    checked_rule(Rule("fill", RunSettings("inpaint").checked()))


@case(
    "model at an address without encryption",
    "'http://models.example/ct/models.json' is not encrypted: on the way anybody can read and change what comes. "
    "Use https://, or give --insecure for a network that you trust.",
)
def _plain_store(folder: Path, _: pytest.MonkeyPatch) -> None:
    add_store("http://models.example/ct")
