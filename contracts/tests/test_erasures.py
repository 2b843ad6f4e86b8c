"""What an erasure takes, however many others there are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested
from tunewheel_contracts.withdrawals import Withdrawals

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
NAMES, MINUTES = st.sampled_from(["a", "b"]), st.integers(0, 3)


def requested(
    project: str, name: str, minute: int, *, by_person: bool, letter: int
) -> Envelope[ErasureRequested]:
    data = ErasureRequested.model_validate(
        {
            "project": project,
            "erasure_id": f"letter-{letter}",
            "requested_by": "privacy",
            "customer" if by_person else "source_id": name,
        }
    )
    return new_event(data, source="/test", time=NOON + timedelta(minutes=minute))


EVENTS = st.lists(
    st.builds(requested, NAMES, NAMES, MINUTES, by_person=st.booleans(), letter=st.integers(0, 2)),
    max_size=8,
)


@given(events=EVENTS, project=NAMES, customer=st.none() | NAMES, source_id=st.none() | NAMES, minute=MINUTES)
def test_the_lookup_by_name_finds_the_same_as_a_search_of_all_erasures(
    events, project, customer, source_id, minute
) -> None:
    fold = Erasures()
    for event in events:
        fold.apply(event)
    asked = {
        "project": project,
        "customer": customer,
        "source_id": source_id,
        "at": NOON + timedelta(minutes=minute),
    }
    assert fold.take(**asked) == any(erasure.takes(**asked) for erasure in fold.all())


def test_an_erasure_of_tomorrow_does_not_reach_beyond_its_own_time_on_the_log() -> None:
    for moment in ("9999-12-31T00:00:00Z", "2026-05-01T21:00:00"):
        data = {"project": "p", "erasure_id": "e", "customer": "jane", "requested_by": "crm"}
        event = new_event(ErasureRequested.model_validate(data | {"requested_at": moment}), source="crm")
        sent, erasures = event.to_kafka(), Erasures()
        for late in (timedelta(), timedelta(days=1)):  # sent again: the first moment counts
            logged_ms = int((NOON + late).timestamp() * 1000)
            erasures.apply(
                Envelope.from_kafka(ErasureRequested, sent.value, sent.headers, logged_ms=logged_ms)
            )
        taken = [
            erasures.take(project="p", customer="jane", source_id="T-1", at=NOON + timedelta(minutes=minutes))
            for minutes in (-1, 0, 1, 60 * 24)
        ]
        assert taken == [True, True, False, False]


def test_a_withdrawal_of_tomorrow_does_not_take_what_is_published_later() -> None:
    data = DocumentWithdrawn.model_validate(
        {"project": "p", "document_id": "a.md", "withdrawn_at": "2099-01-01T00:00:00Z"}
    )
    sent, withdrawals = new_event(data, source="cms").to_kafka(), Withdrawals()
    event = Envelope.from_kafka(
        DocumentWithdrawn, sent.value, sent.headers, logged_ms=int(NOON.timestamp() * 1000)
    )
    withdrawals.apply(event, 0, 0)
    assert withdrawals.takes("p", "a.md", NOON)
    assert not withdrawals.takes("p", "a.md", NOON + timedelta(minutes=1))
