"""Networks of a prior by name. Imports no torch; a row names the module of a network.

Weight files and runs name their network as ``network_name``; those without a name have the first one.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from .backbone import BackboneConfig

_PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True)
class NetworkRow:
    """One network.

    Attributes:
        sentence: one sentence for the user.
        module: where config and network are.
        config, network: names of the :class:`.backbone.BackboneConfig` and the :class:`.backbone.Backbone`.
    """

    sentence: str
    module: str
    config: str
    network: str

    def make_config(self, fields: Mapping[str, Any]) -> BackboneConfig:
        """Config from its fields, JSON's lists as tuples.

        Raises:
            TypeError: it has no such field.
        """
        kind = getattr(importlib.import_module(self.module), self.config)
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})

    def build(self, config: BackboneConfig) -> nn.Module:
        """The network with fresh weights."""
        return getattr(importlib.import_module(self.module), self.network)(config)


UNNAMED = "prior-unet"
"""Network of files that name none: there was one only."""
NETWORKS = {
    UNNAMED: NetworkRow(
        "MONAI's diffusion U-Net behind the Haar stem.", f"{_PACKAGE}.unet", "NetworkConfig", "PriorUNet"
    ),
}


def network_config(described: Mapping[str, Any]) -> BackboneConfig:
    """Config of the network that a description has under ``network`` and ``network_name``.

    Raises:
        ModelError: a network or sizes that this version does not know.
    """
    try:
        row = NETWORKS.get(name := described.get("network_name", UNNAMED))
        if row is None:
            raise ValueError(f"there is no network called {name!r}")
        config = row.make_config(described["network"])
        config.check()
        return config
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"The model's description does not fit this version ({error}).", "Update MedDiff-FM."
        ) from error


def name_of(config: BackboneConfig) -> dict[str, str]:
    """Part of a description besides the fields of a network: its name, where it is not the unnamed one."""
    return {} if config.name == UNNAMED else {"network_name": config.name}


def build_network(config: BackboneConfig) -> nn.Module:
    """The network of a config with fresh weights."""
    return NETWORKS[config.name].build(config)
