"""Parts of the node by themselves: when a series is whole, who may call, which rule fits, what outlives a torn line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from MedDiffFMLib.cli.listen import task_settings
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.node.arrivals import Arrival, Arrivals, Patience, key_of
from MedDiffFMLib.node.audit import Audit
from MedDiffFMLib.node.jobs import DoneSeries, Job, Result
from MedDiffFMLib.node.peers import caller_of, parse_caller
from MedDiffFMLib.node.rules import read_rules

KEY = key_of("CT1", "1.2.3")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def arrivals(tmp_path: Path, clock: Clock) -> Arrivals:
    return Arrivals(tmp_path / "arriving", Patience(10, 60, 600, images=5), clock)


def come(arrivals: Arrivals, link: int, *instances: str) -> None:
    for instance in instances:
        arrivals.take(link, Arrival(KEY, "CT1", "10.0.0.5", "1.2", "1.2.3", {}), instance, instance.encode())


def test_a_released_series_is_whole_after_some_silence(arrivals: Arrivals, clock: Clock) -> None:
    come(arrivals, 1, "1", "2")
    arrivals.released(1)
    clock.now = 30.0
    assert arrivals.due() == {}  # the connection is still there
    arrivals.closed(1)
    assert arrivals.due() == {KEY: ""}
    come(arrivals, 2, "3")  # and more comes after all
    arrivals.closed(2)
    assert arrivals.due() == {}
    clock.now = 700.0
    assert "broke off after 3 images" in arrivals.due()[KEY]


def test_a_silent_connection_and_a_number_of_images_make_a_series_whole(arrivals: Arrivals, clock: Clock) -> None:
    come(arrivals, 1, "1", "2")
    clock.now = 59.0
    assert arrivals.due() == {}
    clock.now = 61.0
    assert arrivals.due() == {KEY: ""}
    clock.now = 62.0
    come(arrivals, 1, "3", "4", "5")
    assert arrivals.due() == {KEY: ""}


def test_another_process_knows_what_came_and_whether_it_was_released(
    arrivals: Arrivals, tmp_path: Path, clock: Clock
) -> None:
    """An image that comes again is taken as the one that is there; another one of its name is not."""
    come(arrivals, 1, "1", "2")
    again = Arrivals(tmp_path / "arriving", Patience(10, 60, 600), clock)
    arrival = Arrival(KEY, "CT1", "10.0.0.5", "1.2", "1.2.3", {})
    assert again.take(7, arrival, "1", b"1") is False and again.count(KEY) == 2
    with pytest.raises(ValueError, match="another content"):
        again.take(7, arrival, "1", b"other")
    again.released(7)
    third = Arrivals(tmp_path / "arriving", Patience(10, 60, 600), clock)
    clock.now = 11.0
    assert third.due() == {KEY: ""}


def test_callers() -> None:
    callers = [parse_caller("CT1@127.0.0.1:104"), parse_caller("CT2"), parse_caller("CT3@[::1]")]
    assert [(c.title, c.host, c.port) for c in callers] == [
        ("CT1", "127.0.0.1", 104),
        ("CT2", "", None),
        ("CT3", "::1", None),
    ]
    assert caller_of(callers, "CT1", "127.0.0.1") is callers[0] and caller_of(callers, "CT1", "127.0.0.2") is None
    assert caller_of(callers, "CT2", "10.1.2.3") is callers[1] and caller_of(callers, "CT4", "127.0.0.1") is None
    assert caller_of(callers, "ct1", "127.0.0.1") is None
    for text in ("", "@host", "CT1@", "CT1@host:0", "CT1@host:99999", "A TITLE THAT IS TOO LONG", "CT\\1"):
        with pytest.raises(InputError, match="names no caller"):
            parse_caller(text)


def test_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    rows = [
        {
            "name": "chest",
            "task": "denoise --strength 0.5",
            "match": {"SeriesDescription": "*thorax*", "caller": "ct?"},
        },
        {"name": "all", "task": ["radiograph", "--force"], "to": ["sender", "dicomweb://pacs.example/rs"]},
    ]
    path.write_text(json.dumps({"rules": rows}))
    chest, whole = read_rules(path, task_settings)
    assert chest.settings.as_dict()["parameters"]["strength"] == 0.5 and chest.to == (None,) and not chest.force
    assert whole.force and [str(target) for target in whole.to] == ["None", "dicomweb://pacs.example/rs"]
    tags = {"Modality": "CT", "SeriesDescription": "Thorax 1.0", "caller": "CT1"}
    assert (
        chest.fits(tags) and not chest.fits({**tags, "caller": "CT10"}) and not chest.fits({**tags, "Modality": "MR"})
    )
    assert whole.fits({"Modality": "CT"}) and not whole.fits({})
    path.write_text(json.dumps({"rules": [{"name": "thigh", "task": "translate"}]}))
    (thigh,) = read_rules(path, task_settings)
    assert thigh.fits({"Modality": "MR"}) and not thigh.fits({"Modality": "CT"}), "a CT is made of an MR"
    if sys.version_info >= (3, 11):
        toml = tmp_path / "rules.toml"
        toml.write_text('[[rules]]\nname = "chest"\ntask = "denoise"\n')
        assert [rule.name for rule in read_rules(toml, task_settings)] == ["chest"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"name": "../x", "task": "denoise"}, "Its name is"),
        ({"name": "x", "task": "dance"}, "invalid choice"),
        ({"name": "x", "task": "denoise ct.nrrd"}, "--input has no place"),
        ({"name": "x", "task": "denoise --dicom out"}, "--dicom has no place"),
        ({"name": "x", "task": "denoise --strength much"}, "invalid float"),
        ({"name": "x", "task": "inpaint"}, "also needs mask"),
        ({"name": "x", "task": "synthesize"}, "takes no scan"),
        ({"name": "x", "task": "denoise", "match": {"PatientName": "*"}}, "It matches"),
        ({"name": "x", "task": "denoise", "to": "pacs://PACS"}, "no address to send to"),
        ({"name": "x", "task": "denoise", "color": "red"}, "A rule has"),
        ("denoise", "A rule has"),
    ],
)
def test_rules_that_make_no_sense(tmp_path: Path, row: object, words: str) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"rules": [row]}))
    with pytest.raises(InputError, match=words):
        read_rules(path, task_settings)


def test_what_was_sent_outlives_a_torn_line(tmp_path: Path) -> None:
    folder = tmp_path / "jobs" / "1-key" / "results" / "xray"
    (folder / "dicom").mkdir(parents=True)
    result = Result(folder, ("dicom/a.dcm", "dicom/b.dcm"), ("pacs://A@h:1", "pacs://B@h:1"), 0.0)
    result.add_sent("pacs://A@h:1", folder / "dicom/a.dcm")
    with (folder / "sent.jsonl").open("a") as file:
        file.write('["pacs://A@h:1", "dicom/b')
    assert result.left("pacs://A@h:1") == [folder / "dicom/b.dcm"] and len(result.left("pacs://B@h:1")) == 2
    result.add_sent("pacs://A@h:1", folder / "dicom/b.dcm")
    assert result.left("pacs://A@h:1") == [] and result.open_targets() == ["pacs://B@h:1"]


def test_done_series_are_known_and_forgotten_in_time(tmp_path: Path) -> None:
    job = Job(tmp_path / "jobs" / f"1-{KEY}")
    job.images.mkdir(parents=True)
    (job.images / "a.dcm").write_text("")
    (job.folder / "series.json").write_text(json.dumps(vars(Arrival(KEY, "CT1", "10.0.0.5", "1.2", "1.2.3", {}))))
    done = DoneSeries(tmp_path / "done", days=1)
    assert not done.has(job)
    done.add(job)
    assert done.has(job) and done.sets(KEY) == [{"a.dcm"}] and len(done) == 1
    done.forget_old()
    assert len(done) == 1
    DoneSeries(tmp_path / "done", days=-1).forget_old()
    assert len(done) == 0


def test_the_log_is_written_later_where_the_disk_refuses(tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    audit = Audit(folder)
    audit.write("first", caller="CT1\x1b[2J")
    folder.mkdir()
    audit.write("second", reason="")
    (path,) = folder.glob("audit-*.jsonl")
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["event"], second["event"]) == ("first", "second") and "reason" not in second
    assert "\x1b" not in path.read_text()
