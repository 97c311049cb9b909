"""The yardsticks of one or two evaluations as one page of short tables.

    python Testing/experiments/yardsticks.py BEFORE.json [AFTER.json] -o docs/results/yardsticks.md

With two, every row of the model is there twice, and the last section holds the paired differences. What the columns
mean: ``docs/how-to/evaluate.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from MedDiffFMLib.evaluation.quality.compare_reports import compare, of_model, read_report, rows_of
from MedDiffFMLib.evaluation.quality.page_tables import interval, question_of
from MedDiffFMLib.evaluation.quality.tables import FIGURES, HIGHER_IS_BETTER, Figure, is_part

COLUMNS: dict[str, dict[str, str]] = {
    "denoise": {
        "PSNR": "PSNR, dB", "SSIM": "SSIM", "LDCT PSNR": "PSNR, LDCT-benchmark", "LDCT SSIM": "SSIM, LDCT-benchmark",
        "level error, total": "level: error against added and own, %",
        "level error, added": "level: error against added, %",
    },
    "inpaint": {
        "MAE": "error, HU", "told apart": "classifier's AUC", "texture": "deviation over true",
        "power 1/8-1/4": "power, 1/8-1/4", "power 1/4-1/2": "power, 1/4-1/2", "power 1/2-1": "power, 1/2-1",
    },
    "anomaly": {
        "AUROC": "AUROC", "AUROC30": "AUROC to 0.3", "AUPRO30": "AUPRO to 0.3", "AP": "average precision",
        "prevalence": "its chance",
    },
    "synthesize": {
        "MMD": "MMD", "random MMD": "MMD, random features", "random FID": "FID, random features",
        "precision": "precision", "recall": "recall", "nearest": "nearest reference, mean",
        "nearest, highest": "nearest reference, highest",
    },
}  # fmt: skip
"""Task -> figure -> heading."""
TITLES = {
    "denoise": "Denoising: added noise by kind and level",
    "inpaint": "Filling of healthy spheres",
    "anomaly": "Anomaly maps",
    "synthesize": "Synthetic CTs",
}
SHARE = Figure("share", "", 2, True)
AREA = Figure("area", "", 3, True)


def page(reports: Sequence[dict[str, Any]]) -> str:
    """Markdown of one report, or of an earlier and a later one."""
    labels = ["before", "after"][: len(reports)] if len(reports) > 1 else [""]
    lines = ["# Yardsticks", "", *_heading(reports, labels)]
    for task in COLUMNS:
        groups = dict.fromkeys(group for report in reports for group in report["tables"].get(task, {}))
        if groups:
            lines += [f"## {TITLES[task]}", ""]
        for group in [g for g in groups if task != "anomaly" or not is_part(task, g)]:
            lines += _group_lines(task, group, reports, labels)
    if len(reports) > 1:
        lines += _difference_lines(reports)
    return "\n".join(lines)


def _heading(reports: Sequence[dict[str, Any]], labels: Sequence[str]) -> list[str]:
    lines = []
    for report, label in zip(reports, labels, strict=True):
        model, plan = report["model"], report["plan"]
        cases, patients = (
            {row[key] for row in report["rows"] if row["task"] != "synthesize"} for key in ("case", "patient")
        )
        name = f"Model `{model['name']}` (SHA-256 `{model['sha256'][:12]}`)" if model else "Baselines alone"
        extent = "whole volumes" if plan["slab_mm"] is None else f"at most {plan['slab_mm']:g} mm along the patient"
        lines += [
            f"{label.capitalize() + ': ' if label else ''}{name}, {len(cases)} cases of {len(patients)} "
            f"patients, {extent}, seed {report['seed']}. Research use only.",
            "",
        ]
    asked = dict.fromkeys(line for report in reports for line in _plan_lines(report))
    return [*lines, *asked, "Means over cases with 95 % intervals from drawing patients with replacement.", ""]


def _plan_lines(report: dict[str, Any]) -> list[str]:
    """What each case was asked, and with which parameters."""
    plan, asked = report["plan"], []
    if report["tables"].get("denoise"):
        levels = ", ".join(f"{level:g}" for level in plan["noise_levels_hu"])
        asked.append(f"added noise ({', '.join(plan['noise_kinds'])}; {levels} HU)")
    if report["tables"].get("inpaint"):
        asked.append(f"up to {plan['spheres_per_size']} healthy spheres of each size")
    if report["tables"].get("anomaly"):
        asked.append(
            f"up to {plan['lesions_per_size']} inserted lesions of each size, and once as a nodule in the lung"
        )
    changed = [
        f"{task} {field} {value}" for task, fields in report["parameters"].items() for field, value in fields.items()
    ]
    asked += [f"other parameters than the defaults: {', '.join(changed)}"] if changed else []
    return [f"Asked of each case: {'; '.join(asked)}.", ""] if asked else []


def _group_lines(task: str, group: str, reports: Sequence[dict[str, Any]], labels: Sequence[str]) -> list[str]:
    """Rows: methods; of the second report the model's alone, since the baselines are the same."""
    figures = {f.name: f for f in FIGURES[task]}
    found = [report["tables"].get(task, {}).get(group, {}) for report in reports]
    columns = {n: title for n, title in COLUMNS[task].items() if any(n in tables for tables in found)}
    count = max((mean["count"] for t in found for n in columns if n in t for mean in t[n]["mean"].values()), default=0)
    heading, unit = group or "a quarter of the dose", "bodies a row" if task == "synthesize" else "cases"
    lines = [
        f"### {heading[0].upper()}{heading[1:]}, {count} {unit}",
        "",
        f"| method | {' | '.join(columns.values())} |",
        "|---|" + "---:|" * len(columns),
    ]
    for turn, (tables, report, label) in enumerate(zip(found, reports, labels, strict=True)):
        methods = dict.fromkeys(m for n in columns if n in tables for m in tables[n]["values"])
        for method in [m for m in methods if turn == 0 or _of_model(m, report)]:
            cells = [interval(tables[n]["mean"].get(method) if n in tables else None, figures[n]) for n in columns]
            lines.append(f"| {_labelled(method, report, label)} | {' | '.join(cells)} |")
    lines.append("")
    if task == "anomaly":
        lines += _detection_lines(found, reports, labels)
    return lines


def _detection_lines(
    found: Sequence[dict[str, Any]], reports: Sequence[dict[str, Any]], labels: Sequence[str]
) -> list[str]:
    """Lesions among the first findings of a scan, and the ranking of all cases together."""
    rows: list[str] = []
    listed: list[str] = []
    areas: list[str] = []
    numbers: Sequence[int] = ()
    for turn, (tables, report, label) in enumerate(zip(found, reports, labels, strict=True)):
        detection, pooled = tables.get("detection", {}), tables.get("pooled", {})
        for method, kinds in detection.get("first", {}).items():
            for kind, shares in kinds.items() if turn == 0 or _of_model(method, report) else ():
                numbers = numbers or list(shares)
                cells = " | ".join(interval(share, SHARE) for share in shares.values())
                count = next(iter(shares.values()))["count"]
                rows.append(f"| {_labelled(method, report, label)} | {kind} | {count} | {cells} |")
        for method, length in detection.get("listed", {}).items():
            listed.append(f"{_labelled(method, report, label)} {length:.1f}")
        for method, area in pooled.items():
            if turn == 0 or _of_model(method, report):
                areas.append(f"{_labelled(method, report, label)} {interval(area['AUROC'], AREA)}")
    lines = [f"Findings that it lists, a scan: {', '.join(listed)}.", ""] if listed else []
    lines += [f"AUROC over all voxels of all cases with lesions together: {', '.join(areas)}.", ""] if areas else []
    head = [
        f"| lesions found | which | lesions | {' | '.join(f'first {n}' for n in numbers)} |",
        "|---|---|---:|" + "---:|" * len(numbers),
    ]
    return [*head, *rows, "", *lines] if rows else lines


def _of_model(method: str, report: dict[str, Any]) -> bool:
    return report["model"] is not None and of_model(method, report["model"]["name"])


def _labelled(method: str, report: dict[str, Any], label: str) -> str:
    return f"{method} ({label})" if label and _of_model(method, report) else method


def _difference_lines(reports: Sequence[dict[str, Any]]) -> list[str]:
    """After against before, case by case."""
    before, after = reports
    compared = compare(rows_of(after), after["model"]["name"], after["plan"], before, HIGHER_IS_BETTER)
    lines = [
        "## After against before",
        "",
        *(f"**{warning}**\n" for warning in compared["warnings"]),
        "Paired; positive where the later model is better. What is equal in all cases is left out.",
        "",
        "| question | figure | cases better | mean difference | verdict |",
        "|---|---|---:|---:|---|",
    ]
    for one in [
        one for one in compared["differences"] if any(before != after for before, after in one["values"].values())
    ]:
        figure = next(f for f in FIGURES[one["task"]] if f.name == one["figure"])
        mean, low, high = (f"{one[key]:+.{figure.digits}f}" for key in ("mean", "low", "high"))
        lines.append(
            f"| {question_of(one)} | {one['figure']} | {one['better']} of {one['cases']} | "
            f"**{mean}** [{low}, {high}] | {one['verdict']} |"
        )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", nargs="+", type=Path, help="one evaluation.json, or an earlier and a later one")
    parser.add_argument("-o", "--output", type=Path, help="Markdown file; the terminal when not given")
    options = parser.parse_args()
    if len(options.reports) > 2:
        parser.error("give one report, or two")
    text = page([read_report(path) for path in options.reports])
    if options.output is None:
        print(text)
    else:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
