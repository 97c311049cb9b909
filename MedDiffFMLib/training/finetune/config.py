"""Settings of a fine-tuning run, and presets for small and large machines. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ...core.errors import InputError
from ...segmentation.registry import METHODS


@dataclass(frozen=True)
class Preset:
    """A set of defaults.

    Attributes:
        sentence: machine that it suits.
        patience: validations without improvement after which the training ends.
    """

    sentence: str
    steps: int
    batch: int
    window: int
    learning_rate: float
    validate_every: int
    checkpoint_every: int
    patience: int


PRESETS = {
    "small": Preset(
        "two CPU cores and under 8 GB of memory, some minutes", steps=300, batch=2, window=64, learning_rate=4e-4,
        validate_every=50, checkpoint_every=25, patience=4,
    ),
    "standard": Preset(
        "one GPU, or a CPU over night", steps=3000, batch=8, window=64, learning_rate=4e-4, validate_every=250,
        checkpoint_every=100, patience=6,
    ),
    "paper": Preset(
        "one or more GPUs; length and rate of MedDiff-FM's own ControlNets (arXiv 2410.15432)", steps=10_000, batch=4,
        window=64, learning_rate=1e-4, validate_every=500, checkpoint_every=250, patience=20,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class TrainingSchedule:
    """Length and learning rate of a run.

    Attributes:
        steps: optimizer steps in all, if nothing ends it earlier.
        learning_rate: at its peak; see :class:`training.loop.LoopConfig`.
        patience: validations without improvement after which the training ends.
    """

    steps: int = 3000
    learning_rate: float = 4e-4
    validate_every: int = 250
    checkpoint_every: int = 100
    patience: int = 6


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that decides what is trained; written into the run folder.

    Attributes:
        task: name in FINETUNE_TASKS.
        batch: global batch size, divided among the processes.
        seed: of weights, windows, noise, and of the choice of validation patients where none are named.
        options: of the task, ``window`` among them.
        labels: numbers in the masks that count; empty for all.
        validation: share of patients for validation where none are named.
        initial: name or file of a ControlNet to go on from, of this prior or of one that it grew from; empty for the
            prior's own encoder.
        loop: schedule, which may change when a run is continued.
    """

    task: str
    batch: int
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    labels: tuple[int, ...] = ()
    validation: float = 0.2
    initial: str = ""
    loop: TrainingSchedule = field(default_factory=TrainingSchedule)


def settings(task: str, preset: str = "standard", **changes: Any) -> FinetuneConfig:
    """A preset with changes.

    Args:
        changes: fields of :class:`FinetuneConfig` and :class:`TrainingSchedule`, ``window``; None leaves the preset's.

    Raises:
        InputError: no such preset or setting, or a number out of range.
    """
    if preset not in PRESETS:
        raise InputError(f"There is no preset called {preset!r}.", f"Choose {', '.join(PRESETS)}.")
    chosen = _preset(task, preset, changes)
    values = {name: value for name, value in changes.items() if value is not None}
    schedule = {name: values.pop(name, getattr(chosen, name)) for name in TrainingSchedule.__dataclass_fields__}
    options = {"window": values.pop("window", chosen.window), **values.pop("options", {})}
    unknown = set(values) - set(FinetuneConfig.__dataclass_fields__)
    if unknown:
        raise InputError(f"There is no setting called {sorted(unknown)[0]!r}.", "See docs/how-to/fine-tune.md.")
    config = FinetuneConfig(
        task, **{"batch": chosen.batch, **values}, options=options, loop=TrainingSchedule(**schedule)
    )
    _check(config)
    return config


def _preset(task: str, preset: str, changes: dict[str, Any]) -> Preset:
    """A preset, with the schedule of the segmentation method that is asked for."""
    if task != "segmentation":
        return PRESETS[preset]
    method = (changes.get("options") or {}).get("method", "features")
    if method not in METHODS:
        raise InputError(f"There is no segmentation method called {method!r}.", f"Choose {', '.join(METHODS)}.")
    return replace(PRESETS[preset], **METHODS[method].schedule.get(preset, {}))


def _check(config: FinetuneConfig) -> None:
    """Refuse numbers out of range."""
    schedule = config.loop
    whole = {
        "steps": schedule.steps,
        "batch": config.batch,
        "patience": schedule.patience,
        "window": config.options["window"],
        "validate_every": schedule.validate_every,
        "checkpoint_every": schedule.checkpoint_every,
    }
    for name, value in whole.items():
        if value < 1:
            raise InputError(f"{name} = {value} is not possible.", "Give a number above 0.")
    if not schedule.learning_rate > 0 or config.seed < 0 or any(label < 1 for label in config.labels):
        raise InputError(
            "Learning rate, seed or labels are out of range.",
            "Give a rate above 0, a seed of at least 0, and labels of at least 1.",
        )
