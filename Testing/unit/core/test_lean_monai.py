"""MONAI with only what is used: light for us, and whole for whoever else uses it in the same process."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from MedDiffFMLib.core.lean_monai import _names_imported, lean_monai


def in_child(code: str) -> list[str]:
    """Words that a fresh Python prints."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_a_network_needs_little_of_monai() -> None:
    """Building and running the prior's network loads none of the packages that MONAI has for other uses.

    Nor does what is built of the other parts make the rest of MONAI load.
    """
    loaded = in_child("""
        import sys
        import torch
        from MedDiffFMLib.networks.unet import NetworkConfig, PriorUNet
        network = PriorUNet(NetworkConfig(channels=(8, 32), attention=(False, True)))
        channels = torch.zeros(1, network.config.stem_channels, 8, 8, 8)
        network.unet(channels, torch.ones(1), class_labels=torch.zeros(1).long())
        print(*sys.modules)

        from MedDiffFMLib.networks.body_regressor import BodyRegressor
        from MedDiffFMLib.networks.controlnet import ControlBranch, ControlConfig
        from MedDiffFMLib.networks.medsegdiff import MedSegDiff, MedSegDiffConfig
        from MedDiffFMLib.segmentation.dynunet import DynUNetMethod, DynUNetSegmenter
        ControlBranch(network.config, ControlConfig(images=1))
        BodyRegressor()(torch.zeros(1, 5, 8, 8, 8))
        MedSegDiff(MedSegDiffConfig(channels=(8, 8), anchor=True))
        DynUNetSegmenter(DynUNetMethod(window=16, filters=(4, 8, 8)), 2).part(torch.zeros(1, 5, 16, 16, 16))
        assert "monai.transforms" not in sys.modules and "lean_monai" in repr(sys.meta_path)
    """)
    assert "monai.networks.nets.diffusion_model_unet" in loaded
    assert not {"mlflow", "matplotlib", "skimage", "scipy", "nibabel", "pydicom", "tensorboard"} & set(loaded)
    assert sum(name.startswith("monai") for name in loaded) < 60


@pytest.mark.slow
def test_whoever_imports_more_has_all_of_monai() -> None:
    """Every public name of every package is what it is in a MONAI that was loaded as usual, and no hook remains."""
    answers = in_child("""
        import sys, warnings
        warnings.simplefilter("ignore")
        from MedDiffFMLib.core.lean_monai import lean_monai

        def origin(value):
            return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"

        def public(package):
            names = [name for name in vars(package) if name[0] != "_" and name != "old_showwarning"]  # set before MONAI
            return {name: origin(vars(package)[name]) for name in names if callable(vars(package)[name])}

        def packages():
            found = [name for name in sys.modules if name.split(".")[0] == "monai"]
            return {name: public(sys.modules[name]) for name in found if hasattr(sys.modules[name], "__path__")}

        lean_monai()
        from monai.networks.nets import DiffusionModelUNet
        assert "monai.transforms" not in sys.modules
        import monai.transforms
        import monai
        assert monai.networks.nets.DiffusionModelUNet is DiffusionModelUNet, "two classes of one name"
        first = packages()
        for name in [name for name in sys.modules if name.split(".")[0] == "monai"]:
            del sys.modules[name]
        assert "lean_monai" not in repr(sys.meta_path)
        import monai
        usual = packages()
        assert first.keys() == usual.keys()
        for name in usual:
            assert first[name] == usual[name], name
        print(len(usual), sum(map(len, usual.values())))
    """)
    assert int(answers[0]) > 30 and int(answers[1]) > 1000


@pytest.mark.slow
def test_a_bundle_finds_classes_by_name_alone() -> None:
    """MONAI's reader of configurations searches what is loaded; here a name of a network asked for the rest.

    Before that a lean import that fails leaves no trace.
    """
    assert in_child("""
        import sys
        from MedDiffFMLib.core import lean_monai
        used, lean_monai.USED = lean_monai.USED, {"monai.losses": ("DiceLoss", "Renamed")}
        lean_monai.lean_monai()
        assert not [name for name in sys.modules if name.startswith("monai")]
        assert "lean_monai" not in repr(sys.meta_path)
        lean_monai.USED = used
        lean_monai.lean_monai()
        from monai.networks.nets import VISTA3D
        assert "monai.transforms.compose" in sys.modules
        from monai.bundle import ConfigParser
        parsed = ConfigParser({"losses": {"_target_": "DiceCELoss"}}).get_parsed_content("losses")
        from monai.losses import DiceCELoss
        print(type(parsed) is DiceCELoss)
    """) == ["True"]


def test_a_loaded_monai_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(sys.meta_path)
    monkeypatch.setitem(sys.modules, "monai", sys)
    lean_monai()
    assert sys.meta_path == before


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('"""Doc."""\nfrom __future__ import annotations\nfrom .a import b, c as d\n', {"b": ".a b", "d": ".a c"}),
        ("from .a.e import b\nfrom .f import b", {"b": ".f b"}),
        ("", {}),
        ("from .a import *", None),
        ("from . import a", None),
        ("from ..a import b", None),
        ("import os", None),
        ("from .a import b\nregister(b)", None),
    ],
)
def test_only_what_imports_and_nothing_else_is_a_table(source: str, names: dict[str, str] | None) -> None:
    found = _names_imported(source.encode())
    assert (None if found is None else {name: " ".join(pair) for name, pair in found.items()}) == names
