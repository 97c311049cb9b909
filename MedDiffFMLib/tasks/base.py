"""Contract of a task: what it declares, what it works on, what it returns. Imports the standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.progress import CancelToken, ProgressCallback, ProgressMeter
from .inputs import Inputs
from .output_kinds import Output, OutputKind
from .parameters import check

if TYPE_CHECKING:
    import numpy as np

    from ..imaging.volume import Box, Volume
    from ..models.checkpoint import FoundationModel
    from ..models.no_model import NoModel


class View(Enum):
    """Ways in which the panel shows a result."""

    COMPARE = "compare"
    """Before and after, side by side or blended, and each other output over the input."""
    FINDINGS = "findings"
    """A heat map (Z_SCORE) over the input with a table of places."""
    STRUCTURES = "structures"
    """Segments (LABELS) with their uncertainty."""
    XRAYS = "x-rays"
    """A button for each radiograph (XRAY), which is shown where its detector stood."""
    SENTENCES = "sentences"
    """A list of sentences (the first table), each with the place and the segment (LABELS) that it rests on."""


@dataclass(frozen=True)
class FineTuned:
    """A model beside the prior without which a task cannot run.

    Attributes:
        parameter: field of the task that names one.
        kind: "control", "segmentation" or "encoders", as in the catalogue.
        task: fine-tuning task that makes it.
    """

    parameter: str
    kind: str
    task: str


@dataclass
class Case:
    """Inputs that a run works on, read and checked.

    Attributes:
        volume: the scan; for a task that takes none the organ map whose grid the result takes, None without a map.
        mask: bool (k, j, i) on the volume's grid.
        anatomy: TotalSegmentator labels (k, j, i) on the volume's grid, 118 for the body.
        scans: the further scans by name, each on its own grid.
        texts: by name.
    """

    volume: Volume | None = None
    mask: np.ndarray | None = None
    anatomy: np.ndarray | None = None
    scans: dict[str, Volume] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def scan(self) -> Volume:
        """The volume of a task that requires one."""
        assert self.volume is not None
        return self.volume

    def in_patient_axes(self) -> Case:
        """The same with array axes to superior, posterior, left, whatever the order in which the scans are stored."""
        import numpy as np

        from ..imaging.axis_order import AxisOrder
        from ..imaging.volume import in_patient_axes

        scans = {name: in_patient_axes(scan) for name, scan in self.scans.items()}
        if self.volume is None:
            return replace(self, scans=scans)
        order = AxisOrder.of(self.volume.ijk_to_ras)
        mask, anatomy = (
            None if array is None else np.ascontiguousarray(order.turn(array)) for array in (self.mask, self.anatomy)
        )
        return replace(self, volume=in_patient_axes(self.volume), mask=mask, anatomy=anatomy, scans=scans)


@dataclass(frozen=True)
class Run:
    """Circumstances in which a task runs.

    Attributes:
        loaded: the prior, or the device alone for a task without one.
        seed: start of the random numbers.
        region: body region, "none" to tell the model nothing, None for an automatic guess.
    """

    loaded: FoundationModel | NoModel
    seed: int = 0
    region: str | None = None
    progress: ProgressCallback | None = None
    cancel: CancelToken | None = None

    @property
    def model(self) -> FoundationModel:
        """The prior of a task that needs one."""
        from ..models.no_model import NoModel

        assert not isinstance(self.loaded, NoModel)
        return self.loaded

    @property
    def device(self) -> str:
        """Device to compute on, "cpu" or "cuda:0"."""
        return self.loaded.device

    def meter(self, total: float, stage: str = "") -> ProgressMeter:
        """Counter of ``total`` units of work (network calls), which reports progress and notices a cancel."""
        meter = ProgressMeter(total, self.progress, self.cancel)
        meter.stage = stage
        return meter


@dataclass
class TaskResult:
    """Result of every task.

    Attributes:
        volumes: output name -> array (k, j, i); a plane is (1, j, i). The first one is the main result.
        tables: output name -> rows with the declared columns, of tables and points.
        texts: output name -> text.
        facts: figures worth reporting (estimated noise, network evaluations, region used ...), JSON-ready.
        warnings: sentences for the user.
        ijk_to_ras: where those volumes lie that are not on exactly the input's grid, by output name.
        regions: name of a table -> number of the row whose region each voxel of the input lies in, 0 for none; no file.
    """

    volumes: dict[str, np.ndarray] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    ijk_to_ras: dict[str, np.ndarray] = field(default_factory=dict)
    regions: dict[str, np.ndarray] = field(default_factory=dict)

    def as_stored(self, case: Case, turned: Case) -> TaskResult:
        """Result with what lies on an input's grid in the order of axes in which that is stored; the rest as it is.

        Args:
            case: as it was given.
            turned: the same in the patient's axes, from which this was computed.
        """
        import numpy as np

        from ..imaging.axis_order import AxisOrder

        pairs = [(case.volume, turned.volume), *((case.scans[name], turned.scans[name]) for name in case.scans)]
        for name, array in self.volumes.items():
            place = self.ijk_to_ras.get(name)
            grids = (stored for stored, scan in pairs if stored and scan and scan.lies_at(array.shape, place))
            stored = case.volume if place is None else next(grids, None)
            if stored is None:
                continue
            self.volumes[name] = np.ascontiguousarray(AxisOrder.of(stored.ijk_to_ras).turn_back(array))
            if place is not None:
                self.ijk_to_ras[name] = stored.ijk_to_ras
        return self


class Task:
    """A task with its parameters. A subclass is a frozen dataclass: its fields, each a ``parameter(...)``, are what the
    user chooses, its class attributes everything else that command line, Python, worker, batch and panel need to know.

    Attributes:
        name: of the folder, on the command line, in Python and in the protocol.
        title: short, for a button.
        sentence: what it does.
        caveat: what the panel adds to the sentence, so that nobody expects too much of the shipped model.
        action: text of the button that runs it; the title where it is left out.
        icon: file in ``MedDiffFM/Resources/Icons``.
        inputs: what it takes.
        outputs: what it gives, the main one first; nothing is overwritten unasked because of it.
        synthetic: whether its result shows no patient, or what the patient does not have; files of it are marked.
        view: how the panel shows the result.
        many: whether the panel offers to run it on several scans in one go.
        ranked_by: fact by which a batch ranks its cases, the largest first; empty where that says nothing.
        needs_model: whether it runs on the prior; else it computes without weights.
        needs: a fine-tuned model that the catalogue must have for the prior.
        draft: values of parameters that give a first look in a fraction of the time, for filling while painting.
        own_axes: parameters or results speak of the input's own voxel axes, so the recipe sees it as it is stored, and
            has to see to it itself that nothing else depends on that.
        reference_seconds: for a unit of :meth:`work` with the shipped prior on two cores of 100 GFLOP/s each; None
            where nothing was measured.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    sentence: ClassVar[str]
    caveat: ClassVar[str] = ""
    action: ClassVar[str] = ""
    icon: ClassVar[str] = "MedDiffFM.png"
    inputs: ClassVar[Inputs]
    outputs: ClassVar[tuple[Output, ...]]
    synthetic: ClassVar[bool] = False
    view: ClassVar[View] = View.COMPARE
    many: ClassVar[bool] = False
    ranked_by: ClassVar[str] = ""
    needs_model: ClassVar[bool] = True
    needs: ClassVar[FineTuned | None] = None
    draft: ClassVar[dict[str, Any]] = {}
    own_axes: ClassVar[bool] = False
    reference_seconds: ClassVar[float | None] = None

    if TYPE_CHECKING:

        def __init__(self, *values: Any, **named: Any) -> None:
            """Made by the dataclass of each task."""

    def __post_init__(self) -> None:
        """Refuse values outside their limits: a task that exists can run."""
        check(self)

    @property
    def takes(self) -> Inputs:
        """Inputs of a run with these parameters, which may say that the scan is of another modality than usual."""
        return self.inputs

    @property
    def keeps_axes(self) -> bool:
        """Whether the recipe of a run with these parameters sees the scan as it is stored."""
        return self.own_axes

    def run(self, case: Case, run: Run) -> TaskResult:
        """Do it: the function of the task's name in the ``recipe.py`` beside its declaration, which imports torch.

        The recipe sees arrays with axes to superior, posterior, left, so that it does not matter how a scan is stored;
        what it gives on an input's grid is returned in the order in which that input is stored.

        Raises:
            MedDiffFMError: something cannot be used, or the run was cancelled.
        """
        package = type(self).__module__.rpartition(".")[0]
        recipe: Callable[[Task, Case, Run], TaskResult] = getattr(import_module(f"{package}.recipe"), self.name)
        if self.keeps_axes:
            return recipe(self, case, run)
        turned = case.in_patient_axes()
        return recipe(self, turned, run).as_stored(case, turned)

    def needed_piece(self, volume: Volume, mask: np.ndarray) -> Box | None:
        """Index box (k, j, i) that holds all that the task looks at; None where it needs the whole volume.

        A run on the piece, which brings a coarse copy of the whole, must give the same voxels as one on the whole.

        Args:
            mask: bool (k, j, i) on the volume's grid, not empty.
        """
        return None

    def work(self, volume: Volume | None) -> float:
        """Work for an estimate of the time, in network evaluations of a million voxels; 0 where it is unknown."""
        if volume is None:
            return 0.0
        return max(getattr(self, "steps", 1), 1) * volume.voxels.size / 1e6

    @classmethod
    def output(cls, name: str) -> Output:
        """Declaration of a part of the result; for one of several structures, of the output its name begins with."""
        declared = next((output for output in cls.outputs if output.name == name), None)
        if declared is not None:
            return declared
        several = next((output for output in cls.outputs if name.startswith(f"{output.name}_")), None)
        if several is None:
            return Output(name, OutputKind.VALUES)
        return Output(name, several.kind, several.words + name[len(several.name) :].replace("_", " "))

    @classmethod
    def volumes(cls) -> list[Output]:
        """The outputs with voxels."""
        return [output for output in cls.outputs if not output.kind.suffix]

    @classmethod
    def tables(cls) -> list[Output]:
        """Tables and points."""
        return [output for output in cls.outputs if output.kind.suffix == ".csv"]

    @classmethod
    def texts(cls) -> list[Output]:
        """The outputs to read."""
        return [output for output in cls.outputs if output.kind is OutputKind.TEXT]
