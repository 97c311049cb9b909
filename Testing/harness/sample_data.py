"""Slicer's SampleData module as far as extensions register data with it."""

from __future__ import annotations

import types
from typing import Any

import slicer


class SampleDataSource:
    """One data set; single texts become lists."""

    def __init__(self, **fields: Any) -> None:
        for name in ("uris", "fileNames", "nodeNames", "loadFileTypes", "checksums"):
            value = fields.get(name)
            fields[name] = value if isinstance(value, list) or value is None else [value]
        self.__dict__.update(fields)
        for name in ("fileNames", "nodeNames", "checksums"):
            if len(fields[name]) != len(fields["uris"]):
                raise ValueError(f"{name} and uris have different lengths")


class SampleDataLogic:
    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: Any = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: Any = None,
        loadFileTypes: Any = None,
        loadFiles: Any = None,
        loadFileProperties: Any = None,
        checksums: Any = None,
        loadFileType: Any = None,
    ) -> None:
        """Arguments as in Slicer 5.12; the same name is registered once."""
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        sources = slicer.modules.sampleDataSources.setdefault(category, [])
        if all(source.sampleName != sampleName for source in sources):
            sources.append(
                SampleDataSource(
                    sampleName=sampleName,
                    uris=uris,
                    fileNames=fileNames,
                    nodeNames=nodeNames,
                    thumbnailFileName=thumbnailFileName,
                    loadFileTypes=loadFileTypes,
                    checksums=checksums,
                )
            )


def module() -> types.ModuleType:
    """The module ``SampleData``."""
    made = types.ModuleType("SampleData")
    made.__dict__.update(SampleDataLogic=SampleDataLogic, SampleDataSource=SampleDataSource)
    return made
