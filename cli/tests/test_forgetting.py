from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tunewheel_cli.forgetting import Outcome, print_outcome
from tunewheel_contracts.erasures import HOLDERS, proof_of
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_testing.story import example

RUN = TrainCompleted.model_validate(example("train.completed", "lora"))


def outcome() -> Outcome:
    return Outcome(RUN.project, "letter-1", ASKED.id)


def request(erasure_id: str = "letter-1", **more: Any):
    data = ErasureRequested(
        project=RUN.project, erasure_id=erasure_id, customer="C-7", requested_by="privacy", **more
    )
    return new_event(data, source="/test")


ASKED = request(requested_at=datetime(2026, 5, 1, tzinfo=UTC))


def said(holder: str, *, records: int = 1, cause: Any = ASKED, **found: Any):
    proof = proof_of(cause.data, holder=holder, erased_by=holder, records=records, **found)
    return new_event(proof, source="/test", cause=cause)


def test_it_is_done_when_every_holder_has_said_so() -> None:
    told = outcome()
    for other in (request("another"), request()):  # the second bears this one's name
        for holder in HOLDERS:
            told.apply(said(holder, cause=other))
    assert told.missing == HOLDERS
    for holder in HOLDERS:
        assert holder in told.missing
        for _ in range(2):
            cause = said("curate") if holder == "eval" else ASKED
            told.apply(said(holder, records=len(holder), cause=cause))
    assert told.missing == ()
    assert told.as_json()["holders"] == {holder: len(holder) for holder in HOLDERS}


def test_versions_that_still_hold_it_and_adapters_trained_on_it_are_listed() -> None:
    told = outcome()
    told.apply(new_event(RUN, source="/test"))
    assert (told.dataset_ids, told.model_ids) == ((), ())
    held = (RUN.dataset_id, "ds-gone")
    told.apply(said("curate", dataset_ids=held, deleted_dataset_ids=("ds-gone",), model_ids=("desk-1",)))
    assert told.dataset_ids == (RUN.dataset_id,)
    assert told.model_ids == tuple(sorted(("desk-1", RUN.adapter.model_id)))


def test_a_person_reads_who_is_missing_and_what_remains(capsys: pytest.CaptureFixture[str]) -> None:
    told = outcome()
    told.apply(said("curate", records=1_200, dataset_ids=("ds-1",), model_ids=("desk-1",)))
    print_outcome(told)
    lines = capsys.readouterr().out
    assert "curate         took out 1,200" in lines
    assert "monitor        no answer yet" in lines
    assert "still hold it: ds-1" in lines
    assert "which stay as they are: desk-1" in lines
    assert "carries it out when it is back" in lines
