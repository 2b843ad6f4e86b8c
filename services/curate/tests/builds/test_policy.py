from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.formats.dataset_spec import BuildPolicy
from tunewheel_contracts.withdrawals import Withdrawal
from tunewheel_curate.builds.policy import due, pending_records
from tunewheel_curate.records.table import RecordTable

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def arrivals(tmp_path, records):
    def make(*rows):
        table = RecordTable(str(tmp_path / "records"))
        table.append(records(*rows))
        return table.arrivals()

    return make


def test_only_what_can_be_learned_from_counts(arrivals) -> None:
    frame = arrivals({}, {"kind": "document"}, {"output": None}, {})
    pending = pending_records(frame, {})
    assert pending.count == 2
    assert pending.upto == {"0": 2, "1": 1, "2": 1}


def test_documents_count_where_examples_are_made_of_them(arrivals) -> None:
    old, new = {"kind": "document", "record_id": "rec-old"}, {"kind": "document", "record_id": "rec-new"}
    frame = arrivals({}, old, {"output": None}, old, new)
    assert pending_records(frame, {}).count == 1
    assert pending_records(frame, {}, documents=True).count == 3
    built = {"0": 1, "1": 1, "2": 1}
    assert pending_records(frame, built).count == 0
    replaced = pending_records(frame, built, documents=True)
    assert replaced.count == 1, "the old text again is not new, another text is"
    assert replaced.request != pending_records(frame, {}, documents=True).request
    assert pending_records(frame, replaced.upto, documents=True).count == 0


def test_a_withdrawn_document_that_comes_back_is_new(arrivals) -> None:
    at = [START + timedelta(days=day) for day in range(4)]
    sop = {"kind": "document", "source_id": "sop.md", "record_id": "rec-sop", "output": None}
    built = {"0": 1, "1": 1, "2": 1}
    rows = [sop | {"published_at": at[0]}, {}, {}]
    withdrawn = [Withdrawal(document_id="sop.md", until=at[1])]
    once = arrivals(*rows)
    asked = pending_records(once.filter(pl.col("record_id") == "rec-sop"), {}, documents=True)
    assert pending_records(once, built, documents=True, withdrawals=withdrawn).count == 0
    sent = {"published_at": pl.lit(at[2], pl.Datetime("us", "UTC")), "offset": pl.lit(5, pl.Int64)}
    both = pl.concat([once, once.filter(pl.col("record_id") == "rec-sop").with_columns(**sent)])
    assert pending_records(both, built, documents=True).count == 0, "nobody withdrew it"
    back = pending_records(both, built, documents=True, withdrawals=withdrawn)
    assert back.count == 1
    assert back.request != asked.request, "a request of that name was answered long ago"
    assert pending_records(both, back.upto, documents=True, withdrawals=withdrawn).count == 0
    assert pending_records(both, built, withdrawals=withdrawn).count == 0
    gone = [Withdrawal(document_id="sop.md", until=at[3])]
    assert pending_records(both, built, documents=True, withdrawals=gone).count == 0


def test_ratings_count_where_they_are_learnt_from(arrivals) -> None:
    thumb = {"kind": "feedback", "output": None, "rated_output": "Ring."}
    frame = arrivals({}, thumb | {"rating": "up"}, thumb | {"rating": "down"})
    assert pending_records(frame, {}).count == 1
    assert pending_records(frame, {}, ratings=True).count == 2, "an answer to avoid is no example"


def test_a_correction_that_waits_for_a_person_counts_once_it_is_released(arrivals) -> None:
    correction = {"kind": "feedback", "trust": "corrected"}
    ids = [f"rec-{n:04}" for n in range(4)]
    frame = arrivals({}, correction, correction, {"kind": "feedback", "trust": "expert"})
    assert pending_records(frame, {}).count == 4
    assert pending_records(frame, {}, corrections=False).count == 2
    assert pending_records(frame, {}, corrections=False, released={ids[1]: "0-0"}).count == 3
    built = pending_records(frame, {}, corrections=False).upto
    assert pending_records(frame, built, corrections=False).count == 0
    first, later = (
        pending_records(frame, built, corrections=False, released={ids[1]: place}) for place in ("0-0", "0-7")
    )
    assert (first.count, later.count) == (1, 1)
    assert first.request != later.request, "released, refused and released again"
    gone = [Withdrawal(document_id="T-1", kind="feedback", until=START + timedelta(days=9))]
    taken = pending_records(frame, built, corrections=False, released={ids[1]: "0-0"}, withdrawals=gone)
    assert taken.count == 0


def test_what_was_built_and_comes_again_is_not_new(arrivals) -> None:
    frame = arrivals({}, {}, {}, {"record_id": "rec-0000"}, {"record_id": "rec-new"})
    pending = pending_records(frame, {"0": 1, "1": 1, "2": 1})
    assert pending.count == 1
    assert pending_records(frame, pending.upto).count == 0


def test_a_request_is_named_by_its_records(arrivals) -> None:
    frame = arrivals({}, {}, {})
    assert pending_records(frame, {}).request == pending_records(frame.reverse(), {}).request
    assert pending_records(frame, {}).request != pending_records(frame, {"0": 1}).request


@pytest.mark.parametrize(
    ("count", "quiet", "reason"),
    [
        (0, 1000, None),
        (1, 1000, None),
        (19, 1, None),
        (9, 1000, None),
        (10, 5, BuildReason.QUIET),
        (20, 0, BuildReason.COUNT),
    ],
)
def test_a_build_is_due_by_count_or_by_silence(count, quiet, reason) -> None:
    policy = BuildPolicy(min_new_records=20, quiet_seconds=5)
    assert due(policy, count=count, quiet_seconds=quiet) is reason


def test_how_few_records_silence_builds_may_be_said() -> None:
    policy = BuildPolicy(quiet_min_records=1)
    assert due(policy, count=1, quiet_seconds=60) is BuildReason.QUIET
    assert due(policy, count=0, quiet_seconds=60) is None


def test_silence_may_be_switched_off() -> None:
    policy = BuildPolicy(min_new_records=10, quiet_seconds=None)
    assert due(policy, count=9, quiet_seconds=1e9) is None
