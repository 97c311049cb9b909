"""MONAI with only the modules that are used.

``import monai`` runs every file of MONAI and, through them, MLflow, Matplotlib, nibabel, skimage and SciPy's
statistics: over three seconds of processor time and 180 MB in every process, be it a worker or a command. Who imports
one of the :data:`USED` names calls :func:`lean_monai` first, which imports them without the rest: a package of MONAI is
then a table of names, and a module of it is imported when a name is asked for.

Nobody else in the process notices. Whoever asks for more of MONAI, be it a name, a module or ``dir``, makes all of it
load first, in MONAI's own order, and nothing of this module remains. A MONAI that was imported before is left as it is,
and one that cannot be imported so, as a later version may be, is imported as usual.
"""

from __future__ import annotations

import importlib
import sys
import threading
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

USED = {
    "monai.networks.nets": ("ControlNet", "DiffusionModelUNet", "DynUNet", "SegResNet"),
    "monai.networks.nets.autoencoderkl": ("AEKLResBlock",),
    "monai.networks.nets.diffusion_model_unet": ("DiffusionUNetResnetBlock", "get_timestep_embedding"),
    "monai.networks.blocks": ("UpSample",),
    "monai.losses": ("BarlowTwinsLoss",),
    "monai.metrics.froc": ("compute_fp_tp_probs_nd",),
}
"""Module of MONAI -> names that the library takes from it."""

_TAKEN_LATE = {"monai.networks.blocks.activation": ("Swish",)}
"""The same of names that those import by themselves, only when a network is built: Swish is ControlNet's."""

_ROOT = "monai"
_LOADS_ALL = "load_submodules"
"""Function by which ``monai/__init__.py`` imports every file."""

Names = dict[str, tuple[str, str]]
"""Name in a package -> (module that defines it, as a relative name; its name there)."""


def lean_monai() -> None:
    """Import the names of :data:`USED` and little more; without effect where MONAI is loaded already."""
    with _LOCK:
        if _ROOT in sys.modules:
            return
        finder = _LeanFinder()
        sys.meta_path.insert(0, finder)
        try:
            for module, names in (*USED.items(), *_TAKEN_LATE.items()):
                for name in names:
                    getattr(importlib.import_module(module), name)
            finder.at_work = False
        except BaseException as problem:
            sys.meta_path.remove(finder)
            for name in [name for name in sys.modules if _is_monai(name)]:
                del sys.modules[name]
            if not isinstance(problem, Exception):  # an interrupt
                raise


def _is_monai(name: str) -> bool:
    return name == _ROOT or name.startswith(f"{_ROOT}.")


_LOCK = threading.RLock()
"""Held while MONAI is loaded, leanly or whole."""


class _LeanFinder(MetaPathFinder):
    """Finds MONAI's packages as tables of names while it is at work; after that, the first request loads MONAI."""

    def __init__(self) -> None:
        self.at_work = True
        self.postponed: CodeType | None = None
        """What MONAI's own ``__init__.py`` would have done to load every file."""
        self.tables: dict[str, tuple[ModuleType, _TableLoader]] = {}
        """Packages whose own code has not run."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not _is_monai(name):
            return None
        with _LOCK:
            spec = PathFinder.find_spec(name, path, target)
            if spec is None or type(spec.loader) is not SourceFileLoader:
                return spec
            if not self.at_work:
                spec.loader = _WholeFirst(spec.loader, self)
            elif spec.submodule_search_locations is not None:
                spec.loader = _TableLoader(name, spec.loader.path, self)
            return spec

    def load_whole(self) -> None:
        """Run all that was left out; only the first call does anything."""
        with _LOCK:
            if self not in sys.meta_path:
                return
            sys.meta_path.remove(self)
            for _, (package, loader) in sorted(self.tables.items()):  # the order in which MONAI walks its packages
                loader.run(package)
            if self.postponed:
                exec(self.postponed, sys.modules[_ROOT].__dict__)
            for package in [sys.modules[_ROOT], *(package for package, _ in self.tables.values())]:
                for hook in ("__getattr__", "__dir__"):
                    package.__dict__.pop(hook, None)


class _TableLoader(SourceFileLoader):
    """Reads a package's ``__init__.py`` as a table of names instead of running it."""

    def __init__(self, name: str, path: str, finder: _LeanFinder) -> None:
        super().__init__(name, path)
        self.finder = finder

    def exec_module(self, module: ModuleType) -> None:
        if self.name == _ROOT:
            self._run_root(module)
        elif (names := _names_imported(self.get_data(self.path))) is None:
            self.run(module)
        else:
            self.finder.tables[self.name] = (module, self)
            _find_when_asked(module, names, self.finder)

    def run(self, module: ModuleType) -> None:
        """What Python does with a package as a rule."""
        super().exec_module(module)

    def _run_root(self, module: ModuleType) -> None:
        """All of MONAI's own ``__init__.py`` but the lines that load every file."""
        import ast

        tree = ast.parse(self.get_data(self.path))
        loading = [node for node in tree.body if _calls(node, _LOADS_ALL)]
        tree.body = [node for node in tree.body if node not in loading]
        _find_when_asked(module, {}, self.finder)
        exec(compile(tree, self.path, "exec"), module.__dict__)
        self.finder.postponed = compile(ast.Module(loading, []), self.path, "exec")


class _WholeFirst(Loader):
    """Loads all of MONAI before a module of it; as a rule the module is among it."""

    def __init__(self, loader: SourceFileLoader, finder: _LeanFinder) -> None:
        self.loader, self.finder = loader, finder
        self.loaded: tuple[ModuleType, ModuleSpec | None] | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        self.finder.load_whole()
        if (module := sys.modules.get(spec.name)) is None:
            return None
        self.loaded = (module, module.__spec__)
        return module

    def exec_module(self, module: ModuleType) -> None:
        if self.loaded:
            module.__spec__ = self.loaded[1]
        else:
            self.loader.exec_module(module)


def _calls(node: Any, function: str) -> bool:
    """Whether a statement is nothing but a call of a function."""
    called = getattr(getattr(node, "value", None), "func", None)
    return getattr(called, "id", None) == function


def _names_imported(source: bytes) -> Names | None:
    """Names that an ``__init__.py`` imports from modules beside it; ``None`` if it does anything else."""
    import ast

    names: Names = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # the docstring
        if not isinstance(node, ast.ImportFrom):
            return None
        if node.module == "__future__":
            continue
        if node.level != 1 or not node.module or any(alias.name == "*" for alias in node.names):
            return None
        names.update({alias.asname or alias.name: (f".{node.module}", alias.name) for alias in node.names})
    return names


def _find_when_asked(package: ModuleType, names: Names, finder: _LeanFinder) -> None:
    """Give a package the hooks of PEP 562: what it lacks is imported when it is asked for."""

    def missing(name: str) -> Any:
        special = name.startswith("__")
        if not finder.at_work and (not special or name == "__all__"):  # which `import *` asks for
            finder.load_whole()
            if name in package.__dict__:
                return package.__dict__[name]
        if name in names:
            module, original = names[name]
            return getattr(importlib.import_module(module, package.__name__), original)
        if not special and PathFinder.find_spec(f"{package.__name__}.{name}", package.__path__):
            return importlib.import_module(f".{name}", package.__name__)
        raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")

    def found(name: str) -> Any:
        value = missing(name)
        setattr(package, name, value)
        return value

    def everything() -> list[str]:
        finder.load_whole()
        return list(package.__dict__)

    package.__dict__.update(__getattr__=found, __dir__=everything)
