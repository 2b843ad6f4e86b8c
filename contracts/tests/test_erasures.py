"""What an erasure takes, however many others there are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import ErasureRequested

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
