"""Settings of a run, under the name that the front door gives them."""

from __future__ import annotations

from ..runner.report import Settings as RunSettings

__all__ = ["RunSettings"]
