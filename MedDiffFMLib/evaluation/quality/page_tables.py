"""Tables of the report page: parts of a question, detection of lesions, rankings over all cases; cells with numbers."""

from __future__ import annotations

from typing import Any

from .tables import FIGURES, Figure

SHARE = Figure("share", "share of lesions found", 2, True)
AREA = Figure("area", "area", 3, True)


def parts_lines(task: str, groups: dict[str, Any]) -> list[str]:
    """One table a figure: a row for each part, sizes first, then contrasts; a column for each method."""
    lines: list[str] = []
    for figure in FIGURES[task]:
        parts = {name: group[figure.name] for name, group in groups.items() if figure.name in group}
        if not parts:
            continue
        methods = list(dict.fromkeys(method for table in parts.values() for method in table["values"]))
        lines += [
            f"{figure.title[0].upper()}{figure.title[1:]}:",
            "",
            f"| part | cases | {' | '.join(methods)} |",
            "|---|---:|" + "---:|" * len(methods),
        ]
        for name in sorted(parts, key=_part_order):
            cells = [interval(parts[name]["mean"].get(method), figure) for method in methods]
            lines.append(f"| {name} | {len(parts[name]['cases'])} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def refused_lines(groups: dict[str, Any]) -> list[str]:
    """Cases on which a method gave no answer, such as a noise level that cannot be estimated."""
    lines: list[str] = []
    for name, group in groups.items():
        for method, cases in group.get("refused", {}).items():
            lines += [f"No answer of {method}{', ' + name if name else ''}: {', '.join(cases)}.", ""]
    return lines


def question_of(change: dict[str, Any]) -> str:
    """What two evaluations are compared by: task, part, and the variant of the model where it is one."""
    question = f"{change['task']} {change['group']}".strip()
    return f"{question}, {change['variant']}" if change["variant"] else question


def _part_order(name: str) -> tuple[int, str, float]:
    value, _, unit = name.partition(" ")
    if unit in ("mm", "HU"):
        return ("mm", "HU").index(unit), "", float(value)
    level = unit.removesuffix(" HU")
    return 2, value, float(level) if level != unit else 0.0


def further_lines(task: str, group: dict[str, Any]) -> list[str]:
    """Figures that are not shown case by case: a row for each method."""
    figures = [f for f in FIGURES[task] if f.name in group and not f.by_case]
    if not figures:
        return []
    methods = list(dict.fromkeys(method for f in figures for method in group[f.name]["values"]))
    lines = [f"| method | {' | '.join(f.title for f in figures)} |", "|---|" + "---:|" * len(figures)]
    for method in methods:
        cells = [interval(group[f.name]["mean"].get(method), f) for f in figures]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def detection_lines(detection: dict[str, Any] | None) -> list[str]:
    """FROC, and the share of lesions among the first findings of a scan."""
    if detection is None:
        return []
    lines = [
        f"Share of {detection['lesions']} lesions found, by false findings allowed a case (FROC):",
        "",
        *_shares({name: {"": shares} for name, shares in detection["sensitivity"].items()}),
    ]
    if "first" not in detection:  # a report of an earlier version
        return lines
    lines += [
        "Share of lesions found among the first findings of a scan, which may lie 3 mm beside the lesion:",
        "",
        *_shares(detection["first"]),
    ]
    for method, length in detection["listed"].items():
        lines += [f"Findings that {method} lists a scan at its own threshold: {length:.1f}.", ""]
    return lines


def _shares(methods: dict[str, dict[str, Any]]) -> list[str]:
    """Method -> kind of lesion -> number of findings -> share, plain or with its interval."""
    numbers = list(next(iter(next(iter(methods.values())).values())))
    lines = [
        "| method | lesions | " + " | ".join(f"{float(n):g}" for n in numbers) + " |",
        "|---|---:|" + "---:|" * len(numbers),
    ]
    for method, kinds in methods.items():
        for kind, shares in kinds.items():
            cells = [interval(s, SHARE) if isinstance(s, dict) else number(s, SHARE) for s in shares.values()]
            counts = [f"{kind}, {s['count']}" for s in shares.values() if isinstance(s, dict)]
            lines.append(f"| {method} | {counts[0] if counts else 'all'} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def pooled_lines(pooled: dict[str, Any] | None) -> list[str]:
    """AUROC over all cases together."""
    if pooled is None:
        return []
    lines = [
        "All voxels of all cases with lesions together:",
        "",
        "| method | AUROC | up to a false positive rate of 0.3 |",
        "|---|---:|---:|",
    ]
    for method, figures in pooled.items():
        lines.append(f"| {method} | {interval(figures['AUROC'], AREA)} | {interval(figures['AUROC30'], AREA)} |")
    return [*lines, ""]


def interval(mean: dict[str, Any] | None, figure: Figure) -> str:
    """ "**0.61** [0.52, 0.70]"; a dash where there is none."""
    if mean is None or not mean["count"]:
        return "-"
    return f"**{number(mean['mean'], figure)}** [{number(mean['low'], figure)}, {number(mean['high'], figure)}]"


def number(value: float | None, figure: Figure) -> str:
    """With the figure's digits; a dash for none."""
    return "-" if value is None or value != value else f"{value:.{figure.digits}f}"
