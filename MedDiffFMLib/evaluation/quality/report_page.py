"""Report as a Markdown page: verdict, tasks, sweeps, changes since an earlier report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .page_tables import (
    detection_lines,
    further_lines,
    interval,
    number,
    parts_lines,
    pooled_lines,
    question_of,
    refused_lines,
)
from .paired_tests import QUESTIONS
from .tables import FIGURES, Figure, is_part

TITLES = {
    "denoise": "Denoising of simulated low dose and of added noise",
    "inpaint": "Filling of healthy spheres",
    "anomaly": "Anomaly maps on inserted and real lesions",
    "translate": "CT from MR, and MR from CT",
    "radiograph": "Line integrals of an X-ray",
    "describe": "Facts about a CT",
    "synthesize": "Synthetic CTs beside real ones",
}
MEANS_ONLY = ("synthesize",)
"""Tasks whose rows are no cases that methods have in common."""


def markdown(report: dict[str, Any]) -> str:
    """The page: case by case where a group stands for the whole question, means only for its parts."""
    lines = ["# Evaluation", "", *_heading(report), *_verdict_lines(report.get("verdict", []))]
    for task, groups in report["tables"].items():
        lines += _task_lines(task, groups)
    lines += _synthesis_lines(report.get("synthesis"))
    for name, curve in report.get("curves", {}).items():
        lines += _curve_lines(name, curve)
    if report.get("compared"):
        lines += _compared_lines(report["compared"], report["model"])
    return "\n".join(lines)


def _heading(report: dict[str, Any]) -> list[str]:
    model, plan = report["model"], report["plan"]
    about = (
        "Baselines alone."
        if model is None
        else (
            f"Model `{model['name']}` (SHA-256 `{model['sha256'][:12]}`) on {model['device']}, seed {report['seed']}."
        )
    )
    extent = "whole volumes" if plan["slab_mm"] is None else f"slabs of {plan['slab_mm']:g} mm along the patient"
    lines = [
        f"{about} Evaluated on {extent}; dose fraction {plan['dose']:g}. Means over cases with "
        "95 % intervals from drawing patients with replacement. Research use only.",
        "",
    ]
    lines += _noise_lines(plan) if "denoise" in report["tables"] else []
    changed = {task: fields for task, fields in report["parameters"].items() if fields}
    if changed:
        lines += [f"Parameters other than the defaults: {changed}.", ""]
    if report["quick"]:
        lines += ["**Quick run: too few cases to report.**", ""]
    return lines


def _noise_lines(plan: dict[str, Any]) -> list[str]:
    """Lines on the noise that was added, where reports know more kinds than the quarter dose."""
    kinds = [kind for kind in plan.get("noise_kinds", ()) if kind != "dose"]
    if not kinds:
        return []
    levels = ", ".join(f"{level:g}" for level in plan["noise_levels_hu"])
    return [
        f"Added noise: {', '.join(kinds)}, of {levels} HU over the body; scored on the middle slices of a part of "
        "the case. The level is estimated where a name does not say that it is told.",
        "",
    ]


def _verdict_lines(verdicts: Sequence[dict[str, Any]]) -> list[str]:
    """One row a claim."""
    if not verdicts:
        return []
    lines = [
        "## Verdict",
        "",
        "Differences are paired, positive where the model is better; *open* means that the interval holds 0.",
        "",
        "| question | figure | against | cases won | mean difference | verdict |",
        "|---|---|---|---:|---:|---|",
    ]
    for verdict in verdicts:
        figure = _figure(verdict["task"], verdict["figure"])
        name = f"{verdict['task']} {verdict['group']}".strip()
        cells = (
            name,
            verdict["figure"],
            verdict["against"],
            f"{verdict['better']} of {verdict['cases']}",
            _signed(verdict, figure),
            f"**{verdict['verdict']}**",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _task_lines(task: str, groups: dict[str, Any]) -> list[str]:
    lines = [f"## {TITLES[task]}", ""]
    whole = {name: group for name, group in groups.items() if not is_part(task, name)}
    if task in MEANS_ONLY:
        for name, group in whole.items():
            lines += _methods_lines(task, name, group)
    else:
        if task not in QUESTIONS and len(whole) > 1:
            lines += parts_lines(task, whole)
        for name, group in whole.items():
            lines += _group_lines(task, name, group)
    lines += parts_lines(task, {name: group for name, group in groups.items() if name not in whole})
    lines += refused_lines(groups)
    for name, group in whole.items():
        lines += _seam_lines(name, group.get("seams"))
    first = next(iter(groups.values()))
    times = ", ".join(f"{method} {seconds:.1f}" for method, seconds in first["seconds"].items())
    return [*lines, f"Seconds a run: {times}.", ""]


def _figure(task: str, name: str) -> Figure:
    return next(figure for figure in FIGURES[task] if figure.name == name)


def _known(task: str, group: dict[str, Any]) -> list[Figure]:
    """The task's figures that a group has; earlier reports and other feature spaces have fewer."""
    return [figure for figure in FIGURES[task] if figure.name in group]


def _group_lines(task: str, name: str, group: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for figure in [f for f in _known(task, group) if f.by_case]:
        if figure.higher_is_better is not None:
            heading = f"{name}: {figure.title}" if name else figure.title
            lines += [f"### {heading[0].upper()}{heading[1:]}", "", *_figure_lines(group[figure.name], figure), ""]
        else:
            means = ", ".join(f"{m} {number(i['mean'], figure)}" for m, i in group[figure.name]["mean"].items())
            lines += [f"{figure.title[0].upper()}{figure.title[1:]}: {means}.", ""]
    lines += [*further_lines(task, group), *pooled_lines(group.get("pooled"))]
    return lines + detection_lines(group.get("detection"))


def _figure_lines(table: dict[str, Any], figure: Figure) -> list[str]:
    """Cases x methods."""
    methods = list(table["values"])
    lines = ["| case | " + " | ".join(methods) + " |", "|---|" + "---:|" * len(methods)]
    for n, case in enumerate(table["cases"]):
        lines.append(f"| {case} | " + " | ".join(number(table["values"][m][n], figure) for m in methods) + " |")
    counted = max(table["mean"][m]["count"] for m in methods)
    means = " | ".join(interval(table["mean"][m], figure) for m in methods)
    lines.append(f"| **mean of {counted}** | {means} |")
    if table.get("wins"):
        scores = ", ".join(f"{m} in {won} of {of}" for m, (won, of) in table["wins"].items())
        lines += ["", f"{table['wins_of']} is better than {scores} cases."]
    return lines


def _methods_lines(task: str, name: str, group: dict[str, Any]) -> list[str]:
    """Methods x figures, means over a method's own bodies."""
    figures = _known(task, group)
    methods = list(dict.fromkeys(method for f in figures for method in group[f.name]["values"]))
    titles = " | ".join(f.title for f in figures)
    lines = [f"### {name[0].upper()}{name[1:]}", "", f"| | bodies | {titles} |", "|---|---:|" + "---:|" * len(figures)]
    for method in methods:
        cells = [interval(group[f.name]["mean"].get(method), f) for f in figures]
        count = max(group[f.name]["mean"].get(method, {"count": 0})["count"] for f in figures)
        lines.append(f"| {method} | {count} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _seam_lines(name: str, seams: dict[str, Any] | None) -> list[str]:
    if seams is None:
        return []
    of = f", {name}" if name else ""
    return [
        f"Seam ratio of {seams['method']}{of} (mean gradient across window borders over that beside them, 1 is right): "
        f"{seams['mean']['mean']:.4f}, furthest from 1 {seams['furthest']:.4f}, chance deviates by "
        f"{seams['chance']:.4f}.",
        "",
    ]


def _synthesis_lines(facts: dict[str, Any] | None) -> list[str]:
    if facts is None:
        return []
    left_out = ", ".join(f"{region} ({count})" for region, count in facts["left_out"].items())
    return [
        f"Feature space: {facts['space']}, windows of {facts['window_mm']:g} mm at {facts['spacing']:g} mm. Each body "
        "is compared with the real patients of its region, one of them left out; a synthetic one with each in turn. "
        f"Random features: {facts.get('random', 'none')}.",
        *(
            [
                f"Nearest reference: highest correlation of the fine structure of a window, at 6 mm, with any place in "
                f"{facts['references']} reference volumes. The real patients are none of them."
            ]
            if facts.get("references")
            else []
        ),
        *([f"Regions with too few patients to judge: {left_out}."] if left_out else []),
        "",
    ]


def _curve_lines(name: str, curve: dict[str, Any]) -> list[str]:
    """One row a value; one column a group and figure."""
    task = curve["task"]
    columns = [(g, f) for g, figures in curve["groups"].items() for f in FIGURES[task] if f.name in figures]
    titles = [f"{group} {figure.name}".strip() for group, figure in columns]
    lines = [
        f"## Steps against quality: {name}",
        "",
        f"![{name}]({curve['picture']})",
        "",
        f"| {'+'.join(curve['fields'])} | network evaluations | seconds a run | " + " | ".join(titles) + " |",
        "|---:|---:|---:|" + "---:|" * len(titles),
    ]
    for n, value in enumerate(curve["values"]):
        at_settings = [curve["groups"][g][f.name]["curve"][n] for g, f in columns]
        cells = ["-" if i is None else interval(i, f) for i, (_, f) in zip(at_settings, columns, strict=True)]
        evaluations, seconds = (_plain(curve[key][n]) for key in ("evaluations", "seconds"))
        lines.append(f"| {value:g} | {evaluations} | {seconds} | " + " | ".join(cells) + " |")
    baselines = dict.fromkeys(b for g, f in columns for b in curve["groups"][g][f.name]["baselines"])
    for baseline in baselines:
        cells = [number(curve["groups"][g][f.name]["baselines"].get(baseline), f) for g, f in columns]
        lines.append(f"| {baseline} | | | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _compared_lines(compared: dict[str, Any], model: dict[str, Any]) -> list[str]:
    before = compared["before"]
    lines = [
        "## Compared with an earlier evaluation",
        "",
        f"`{model['name']}` (`{model['sha256'][:12]}`) against `{before['name']}` (`{before['sha256'][:12]}`) on the "
        "cases of both; positive where the new one is better.",
        "",
        *(f"**{w}**\n" for w in compared["warnings"]),
        "| question | figure | cases won | mean difference | verdict |",
        "|---|---|---:|---:|---|",
    ]
    for change in compared["differences"]:
        figure = _figure(change["task"], change["figure"])
        lines.append(
            f"| {question_of(change)} | {change['figure']} | {change['better']} of {change['cases']} | "
            f"{_signed(change, figure)} | **{change['verdict']}** |"
        )
    for change in compared["differences"]:
        if not (change["variant"] or is_part(change["task"], change["group"])):
            lines += _before_after_lines(change)
    return [*lines, ""]


def _before_after_lines(compared: dict[str, Any]) -> list[str]:
    """One question case by case."""
    figure = _figure(compared["task"], compared["figure"])
    name = f"{compared['task']} {compared['group']}".strip()
    lines = [
        "",
        f"### {name[0].upper()}{name[1:]}, {figure.title}",
        "",
        "| case | before | now | change |",
        "|---|---:|---:|---:|",
    ]
    for case, (before, now) in compared["values"].items():
        change = float("nan") if before is None or now is None else now - before
        sign = "-" if change != change else f"{change:+.{figure.digits}f}"
        lines.append(f"| {case} | {number(before, figure)} | {number(now, figure)} | {sign} |")
    return lines


def _signed(change: dict[str, Any], figure: Figure) -> str:
    mean, low, high = (f"{change[key]:+.{figure.digits}f}" for key in ("mean", "low", "high"))
    return f"**{mean}** [{low}, {high}]"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
