"""Report of the speed comparison as a page and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.atomic_files import atomic_path

HEAD = (
    "| case | subject | seconds | CPU seconds | windows | PSNR, dB | peak memory, MB | times faster, wall | CPU |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|"
)


def markdown(report: dict[str, Any]) -> str:
    """The page."""
    settings, machine = report["settings"], report["machine"]
    where = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
    lines = [
        "# Benchmark",
        "",
        f"Model `{settings['model']}` on {where}; PyTorch {report['versions']['torch']}, MONAI "
        f"{report['versions']['monai']}; {report['date']}. Medians of {report['repeats']} runs in which the subjects "
        "take turns, each in a process of its own.",
        "",
        *[f"* **{name}**: {_about(about)}" for name, about in report["subjects"].items()],
        "",
        "Times with * are extrapolated: a few windows were timed and multiplied by their number, blending not counted. "
        "`times faster` is said of the first subject against the one in the row; a voxel for the network.",
        "",
        HEAD,
        *[line for row in report["rows"] for line in _row_lines(row)],
        "",
        *_network_lines(report["rows"]),
        "![times](benchmark.png)",
        "",
    ]
    return "\n".join(lines)


def _about(about: dict[str, Any]) -> str:
    words = {
        "precision": "{}",
        "window": "windows of up to {} voxels",
        "batch": "{} at a time",
        "steps": "{} DDIM steps",
    }
    return ", ".join(words[key].format(value) for key, value in about.items() if key in words)


def _row_lines(row: dict[str, Any]) -> list[str]:
    lines = []
    for number, (name, figures) in enumerate(row["medians"].items()):
        case = row["case"] if number == 0 else ""
        if "failed" in figures:
            lines.append(f"| {case} | {name} | failed: {figures['failed']} | | | | | | |")
            continue
        star = "*" if figures["extrapolated"] else ""
        memory = figures.get("cuda_peak_bytes") or figures.get("peak_bytes")
        faster = row["faster"].get(name)
        cells = [
            f"{figures['seconds']:.3g}{star}",
            f"{figures['cpu_seconds']:.3g}{star}",
            str(figures["windows"]),
            f"{figures['psnr']:.2f}" if "psnr" in figures else "",
            "" if memory is None else f"{memory / 1e6:.0f}",
            f"**{faster['seconds']:.1f}**" if faster else "",
            f"**{faster['cpu_seconds']:.1f}**" if faster else "",
        ]
        lines.append(f"| {case} | {name} | " + " | ".join(cells) + " |")
    return lines


def _network_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The network's rate beside that of a matrix product, where it was measured."""
    measured = [
        (name, figures) for row in rows for name, figures in row["medians"].items() if "share_of_matrix_rate" in figures
    ]
    if not measured:
        return []
    lines = [
        "| network | GFLOP a million voxels | GFLOP/s | matrix product, GFLOP/s | share |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, figures in measured:
        work, rate = figures["flops"] / figures["voxels"] * 1e6, figures["flops"] / figures["seconds"]
        lines.append(
            f"| {name} | {work / 1e9:.0f} | {rate / 1e9:.0f} | {figures['matrix_rate'] / 1e9:.0f} | "
            f"{figures['share_of_matrix_rate']:.0%} |"
        )
    return [*lines, "", "Rate and product in the precision of the subject, measured one right after the other.", ""]


def draw(report: dict[str, Any], path: Path) -> None:
    """Seconds of every case and subject as bars on a logarithmic axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = report["rows"]
    names = list(dict.fromkeys(name for row in rows for name in row["medians"]))
    figure = Figure(figsize=(8, 0.8 + 0.28 * len(rows) * (len(names) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    height = 1 / (len(names) + 1)
    for number, name in enumerate(names):
        at, seconds, hatches = [], [], []
        for place, row in enumerate(rows):
            figures = row["medians"].get(name, {"failed": ""})
            if "failed" not in figures:
                at.append(place + (number - (len(names) - 1) / 2) * height)
                seconds.append(figures["seconds"])
                hatches.append("//" if figures["extrapolated"] else "")
        axes.barh(at, seconds, height, label=name, hatch=hatches or None, edgecolor="white")
        for y, value in zip(at, seconds, strict=True):
            axes.text(value, y, f" {value:.3g} s", va="center", fontsize=7)
    axes.set_yticks(range(len(rows)), [row["case"] for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("seconds; hatched: extrapolated")
    axes.margins(x=0.15)
    axes.legend(fontsize=8)
    with atomic_path(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
