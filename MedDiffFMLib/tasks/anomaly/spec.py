"""Parameters of the anomaly map. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..parameters import parameter


@dataclass(frozen=True)
class AnomalyParameters:
    """Parameters of ``anomaly``."""

    threshold: float = parameter(3.0, "Findings are regions with a larger z-score.", minimum=0.5, maximum=50)
    minimum_volume: float = parameter(100.0, "Smaller regions are not listed.", unit="mm3", minimum=0, maximum=1e6)
