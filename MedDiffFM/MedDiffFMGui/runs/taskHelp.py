"""Words for who runs tasks from the console: what there is, what a task takes, what was mistyped."""

from dataclasses import MISSING, fields

from .runRequest import runChoices

NODES = {"mask": "segmentation node", "anatomy": "segmentation node with TotalSegmentator's names"}


def taskHelp(task=""):
    """The tasks, one a line; with the name of one its inputs, parameters and settings."""
    from MedDiffFMLib.tasks.parameters import describe
    from MedDiffFMLib.tasks.registry import TASKS

    if not task:
        width = max(map(len, TASKS))
        return "\n".join(f"{name:{width}}  {declared.sentence}" for name, declared in TASKS.items())
    declared = TASKS[_known(task)]
    lines = [f"{task}: {declared.sentence}", "", *_inputs(declared), "", "parameters={...}"]
    for field, info in describe(declared):
        limits = f" ({info.limits})" if info.limits else ""
        choices = f" One of {', '.join(info.choices)}." if info.choices else ""
        lines.append(f"  {field.name} = {field.default!r}{limits}: {info.help}{choices}")
    return "\n".join([*lines, "", "settings", *(f"  {name} = {value!r}" for name, value in _settings().items())])


def checkedChoices(task, inputNode, choices):
    """RunChoices of what a script asks for.

    :raises MedDiffFMError: no such task or argument, or an input that the task cannot do without.
    """
    from MedDiffFMLib.core.errors import InputError
    from MedDiffFMLib.tasks.inputs import REQUIRED
    from MedDiffFMLib.tasks.registry import TASKS

    inputs = TASKS[_known(task)].inputs
    known = [*NODES, "scans", "texts", "parameters", *_settings()]
    unknown = sorted(set(choices) - set(known))
    if unknown:
        raise InputError(f"run takes no {unknown[0]!r:.80}.", f"It takes {', '.join(known)}; see help({task!r}).")
    if inputs.volume is REQUIRED and inputNode is None:
        raise InputError(f"{task} needs a volume node.", 'Give one: run("' + task + '", getNode("CT")).')
    if inputs.mask is REQUIRED and choices.get("mask") is None:
        raise InputError(f"{task} needs a mask of what to change.", "Give a segmentation node: mask=getNode(...).")
    for kind, rows in (("scans", inputs.scans), ("texts", inputs.texts)):
        for row in rows:
            if row.need is REQUIRED and row.name not in (choices.get(kind) or {}):
                raise InputError(f"{task} needs {row.words}.", f"Give it by name: {kind}={{{row.name!r}: ...}}.")
    return runChoices(task, **choices)


def _known(task):
    from MedDiffFMLib.core.errors import InputError
    from MedDiffFMLib.tasks.registry import TASKS

    if task not in TASKS:
        raise InputError(f"There is no task {task!r:.80}.", f"Known are: {', '.join(TASKS)}.")
    return task


def _inputs(declared):
    """What besides the first scan the task takes, by the names of the arguments."""
    from MedDiffFMLib.tasks.inputs import NONE

    needs = {"mask": declared.inputs.mask, "anatomy": declared.inputs.anatomy}
    lines = [f"{name}: {NODES[name]}, {need.value}" for name, need in needs.items() if need is not NONE]
    for kind, rows in (("scans", declared.inputs.scans), ("texts", declared.inputs.texts)):
        lines += [f"{kind}[{row.name!r}]: {row.help} ({row.need.value})" for row in rows]
    return lines


def _settings():
    """Name -> default of what decides about every run."""
    from MedDiffFMLib.runner.settings import RunSettings

    own = [field for field in fields(RunSettings) if field.name not in ("task", "parameters")]
    return {field.name: None if field.default is MISSING else field.default for field in own}
