"""DICOMweb: QIDO-RS to find, WADO-RS to fetch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...core.errors import InputError
from ...core.extras import needed
from ..series import Series, patient_of
from .address import STUDY_KEYS, Address

TOKEN = "MEDDIFFFM_DICOMWEB_TOKEN"
"""Environment variable with a bearer token; names and passwords stand in ~/.netrc."""
_FIELDS = ["SeriesNumber", "SeriesDescription", "Modality", "NumberOfSeriesRelatedInstances", "PatientID", "StudyDate"]
_MOST_STUDIES = 100
_SECONDS = 60


def find(address: Address) -> list[Series]:
    """Series of the studies that fit."""
    from pydicom.dataset import Dataset

    client = client_of(address)
    of_study = {key: value for key, value in address.keys.items() if key in STUDY_KEYS}
    of_series = {key: value for key, value in address.keys.items() if key not in STUDY_KEYS}
    if address.series:
        of_series["SeriesInstanceUID"] = address.series
    found = []
    with failures_of(address):
        studies = [address.study]
        if not address.study:
            rows = client.search_for_studies(search_filters=of_study, limit=_MOST_STUDIES)
            studies = [str(Dataset.from_json(row).StudyInstanceUID) for row in rows]
        for study in studies:
            rows = client.search_for_series(study, fields=_FIELDS, search_filters=of_series)
            found += [_series(study, Dataset.from_json(row)) for row in rows]
    return found


def _series(study: str, row: Any) -> Series:
    return Series(
        uid=str(row.SeriesInstanceUID),
        study=study,
        number=str(row.get("SeriesNumber") or ""),
        description=str(row.get("SeriesDescription") or ""),
        modality=str(row.get("Modality") or ""),
        date=str(row.get("StudyDate") or ""),
        patients=(patient_of(row),) if patient_of(row) else (),
        images=int(row.get("NumberOfSeriesRelatedInstances") or 0),
    )


def fetch(address: Address, series: Series, folder: Path, tell: Callable[[int], None]) -> None:
    """Write the images of a series into a folder."""
    client = client_of(address)
    with failures_of(address):
        for number, dataset in enumerate(client.iter_series(series.study, series.uid), 1):
            tell(number)
            if str(dataset.get("SeriesInstanceUID")) != series.uid:
                raise InputError(
                    f"The archive sent an image of another series than {series.uid}.", "Report it to who runs it."
                )
            dataset.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)


def client_of(address: Address) -> Any:
    """A client of the service of an address, with the token if there is one."""
    web = needed("dicomweb_client.web", "a dicomweb:// address")
    token = os.environ.get(TOKEN)
    headers = {"Authorization": f"Bearer {token}"} if token else None
    client = web.DICOMwebClient(address.service, headers=headers, timeout=_SECONDS)
    client.set_http_retry_params(retry=False)
    return client


@contextlib.contextmanager
def failures_of(address: Address) -> Iterator[None]:
    """Turn failures on the way into words."""
    import requests

    try:
        yield
    except requests.HTTPError as problem:
        code = problem.response.status_code if problem.response is not None else 0
        remedies = {
            401: f"Put name and password into ~/.netrc, or a token into {TOKEN}.",
            403: "Ask who runs the archive for permission.",
            404: "Check the path: it ends where /studies would begin.",
        }
        raise InputError(
            f"{address.host} answers {code} to '{address}'.", remedies.get(code, "Try again later.")
        ) from problem
    except requests.RequestException as problem:
        kind = type(problem).__name__
        raise InputError(
            f"{address.host} cannot be reached ({kind}).", "Check the address and the network."
        ) from problem
