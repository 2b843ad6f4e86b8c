from __future__ import annotations

from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRejected, DatasetRequested, DatasetVersioned
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetCounts
from tunewheel_curate.builds.log_state import History, LogState
from tunewheel_runtime.service import Position
from tunewheel_testing.story import example

HASH = "0" * 64


def request(name: str, upto: dict[str, int] | None = None, cause=None):
    data = DatasetRequested(project="p", reason=BuildReason.COMMAND, request=name, records_upto=upto)
    return new_event(data, source="/test", cause=cause)


def versioned(cause, upto: dict[str, int]):
    data = DatasetVersioned(
        project="p",
        dataset_id="ds-1",
        manifest=ArtifactRef(path="m", sha256=HASH, size_bytes=1),
        spec_sha256=HASH,
        criteria_sha256=HASH,
        base_model="b",
        counts=DatasetCounts(records=1, examples=1, train=1, holdout=0),
        funnel=(),
        records_upto=upto,
    )
    return new_event(data, source="/test", cause=cause)


def test_a_request_is_answered_by_what_it_caused() -> None:
    history = History()
    asked = request("a")
    named = request(asked.id, {"0": 3}, cause=asked)
    made = versioned(named, {"0": 3})
    history.apply(asked)
    assert not history.has_answered(asked.id)
    history.apply(named)
    assert history.has_answered(asked.id)
    assert not history.has_answered(named.id)
    for _ in range(2):
        history.apply(made)
    assert history.has_answered(named.id)


def test_a_project_builds_while_its_newest_request_waits_for_its_outcome() -> None:
    history = History()
    dead_letter = request("before the project was declared", {"0": 1})
    named = request("a", {"0": 3})
    states: list[bool] = []
    for event in (request("names nothing"), dead_letter, named, versioned(named, {"0": 3})):
        history.apply(event)
        states.append(history.is_building("p"))
    assert states == [False, True, True, False]


def test_the_same_request_with_later_records_covers_no_more_than_is_built() -> None:
    history = History()
    history.apply(request("a", {"0": 3}))
    history.apply(request("a", {"0": 5}))
    assert history.built_upto("p") == {"0": 3}


def test_a_request_waits_for_an_index_until_one_answers_it() -> None:
    """It names no records: what comes meanwhile is in the version too."""
    asked = request("a")
    data = asked.data.model_copy(update={"request": asked.id, "awaits_index": True})
    waits = new_event(data, source="/test", cause=asked)
    named = request(waits.id, {"0": 3}, cause=waits)
    history = History()
    for event in (asked, waits, waits):
        history.apply(event)
    assert history.has_answered(asked.id)
    assert (history.waiting("p"), history.projects_waiting()) == ([waits], ["p"])
    assert history.has_requested("p", waits.id)
    assert history.is_building("p")
    assert history.built_upto("p") == {}
    for event in (named, waits):
        history.apply(event)
    assert (history.waiting("p"), history.projects_waiting()) == ([], [])
    assert history.has_answered(waits.id)


def test_a_request_that_drift_caused_answers_nobody() -> None:
    history = History()
    cause = request("a")
    history.apply(request("b", cause=cause))
    assert not history.has_answered(cause.id)


def test_coverage_only_grows() -> None:
    history = History()
    history.apply(request("a", {"0": 5, "1": 2}))
    rejected = DatasetRejected(
        project="p", spec_sha256=HASH, rows_sha256=HASH, reasons=("no",), records_upto={"0": 3, "1": 4}
    )
    history.apply(new_event(rejected, source="/test"))
    assert history.built_upto("p") == {"0": 5, "1": 4}
    assert history.built_upto("q") == {}


def test_adapters_are_known_by_the_version_they_were_trained_on() -> None:
    data = TrainCompleted.model_validate(example("train.completed", "lora"))
    known = LogState()
    for _ in range(2):
        known.apply(new_event(data, source="/test"), Position("train.completed", 0, 0))
    assert known.adapters_of({data.dataset_id, "ds-other"}) == (data.adapter.model_id,)
    assert known.adapters_of({"ds-other"}) == ()
