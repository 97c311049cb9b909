"""The table of docs/results/training-log.md from a run's folder: windows seen, hours, validation.

    python Testing/experiments/training_log.py RUN [--before WINDOWS]

RUN is the folder of ``meddifffm pretrain``; WINDOWS is what the weights that it started from had seen. Hours are those
of the steps themselves, on whatever machines and beside whatever else they ran.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from MedDiffFMLib.training.loss_plot import read_table
from MedDiffFMLib.training.pretrain.run import run_config

FIGURES = {
    "score": "score", "rmse_hu_at_20": "20", "rmse_hu_at_50": "50", "rmse_hu_at_100": "100", "rmse_hu_at_200": "200",
    "rmse_hu_at_500": "500", "rmse_hu_at_1000": "1000", "rmse_hu_at_3000": "3000", "rmse_hu_in_hole": "in holes",
    "scan_hu_at_20": "scan 20", "scan_hu_at_50": "scan 50", "even_hu_at_50": "even 50", "detail_hu_at_50": "detail 50",
}  # fmt: skip


def table(run: Path, before: int = 0) -> str:
    """Markdown, one row a validation."""
    losses, validation, batch = (
        read_table(run / "losses.csv"),
        read_table(run / "validation.csv"),
        run_config(run).batch,
    )
    lines = ["| windows | hours | " + " | ".join(FIGURES.values()) + " |", "|---:" * (len(FIGURES) + 2) + "|"]
    for row, step in enumerate(validation["step"] if validation else []):
        hours = losses["seconds"][losses["step"] <= step].sum() / 3600
        cells = [f"{before + int(step) * batch:,}", f"{hours:.1f}"]
        lines.append("| " + " | ".join(cells + [f"{validation[name][row]:g}" for name in FIGURES]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--before", type=int, default=0, metavar="WINDOWS")
    options = parser.parse_args()
    print(table(options.run, options.before))
