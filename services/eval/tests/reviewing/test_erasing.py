"""An erasure reaches review sets, answers, and what was published of them."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.erasures import proof_of
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.evaluation import EvalPassed
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.formats.erasure import ErasureFinding
from tunewheel_eval.forgetting import Erased, erase_corrections, forget
from tunewheel_eval.reviewing.cases import Cases
from tunewheel_runtime.store import ObjectStore

SAID = "only rec-2's customer knows this"


async def curates(store: ObjectStore, *records: str) -> Envelope[ErasureCompleted]:
    asked = ErasureRequested(project="desk", erasure_id="letter", customer="g-2", requested_by="privacy")
    found = ErasureFinding(records=1, dataset_ids=("ds-1",), record_ids=records)
    ref = await store.put("erasures/desk/found.json", found.model_dump_json().encode())
    proof = proof_of(
        asked, holder="curate", erased_by="curate", records=1, dataset_ids=("ds-1",), finding=ref
    )
    return new_event(proof, source="/test", cause=new_event(asked, source="/test"))


def place_of_example(desk: Any, name: str) -> int:
    return next(n for n, item in enumerate(desk.reviewed.items) if item.example_id == name)


async def stored(store: ObjectStore) -> bytes:
    return b"".join([await store.read(path) or b"" for path in await store.list("reviews")])


async def test_an_erased_example_leaves_the_set_and_its_correction_is_not_published(
    open_review: Any, store: ObjectStore
) -> None:
    desk = await open_review()
    desk.answer_all("ada")
    desk.answer("ada", place_of_example(desk, "ex-2"), corrected=SAID, revision=2)
    proof = await forget(await curates(store, "rec-2"), store)
    assert proof is not None
    assert proof.records == 4  # two generations, two outputs of the item
    left = await Cases(store).read_set(desk.reviewed.review_id)
    assert left is not None
    assert {item.example_id for item in left.items} == {"ex-0", "ex-1", "ex-3", "ex-4", "ex-5"}
    assert b"parcel has not arrived" not in await stored(store)
    (passed,) = await desk.submit("ada")
    assert isinstance(passed, EvalPassed)
    assert SAID.encode() not in await stored(store)


async def test_a_correction_that_was_published_is_asked_to_be_erased_too(
    open_review: Any, store: ObjectStore
) -> None:
    desk = await open_review()
    desk.answer_all("ada")
    desk.answer("ada", place_of_example(desk, "ex-2"), corrected=SAID, revision=2)
    desk.answer("ada", place_of_example(desk, "ex-3"), corrected="of another", revision=2)
    verdict, *published = await desk.submit("ada")
    (corrected,) = [one for one in published if one.output == SAID]
    proof = await curates(store, "rec-2")
    asked = await erase_corrections(proof, store)
    await forget(proof, store)
    assert [(one.source_id, one.requested_by) for one in asked] == [(corrected.example_id, "eval")]
    assert SAID.encode() not in await stored(store)
    # Cut short in between and delivered again, both say the same; so does the submission.
    again = await erase_corrections(proof, store)
    assert [one.event_id() for one in again] == [one.event_id() for one in asked]
    (once_more, *others) = await desk.submit("ada")
    assert once_more == verdict
    assert [one.output for one in others] == ["of another"]


async def test_a_review_all_of_whose_examples_are_erased_can_still_be_decided(
    open_review: Any, store: ObjectStore
) -> None:
    desk = await open_review()
    await forget(await curates(store, *(f"rec-{n}" for n in range(6))), store)
    assert await Cases(store).read_set(desk.reviewed.review_id) is None
    (passed,) = await desk.submit("ada")
    assert isinstance(passed, EvalPassed)


async def test_an_erasure_in_the_middle_leaves_no_answer_owed(open_review: Any, store: ObjectStore) -> None:
    desk = await open_review()
    for n in range(6):
        if n != place_of_example(desk, "ex-2"):
            desk.answer("ada", n)
    await forget(await curates(store, "rec-2"), store)
    (passed,) = await desk.submit("ada")
    assert passed.review.answers == 5


async def test_a_set_that_was_drawn_while_nobody_knew_is_mended(open_review: Any, store: ObjectStore) -> None:
    desk, erased = await open_review(), Erased()
    erased.apply(await curates(store, "rec-2"))
    await erased.forget_in("desk", "ds-1", store)
    left = await Cases(store).read_set(desk.reviewed.review_id)
    assert left is not None
    assert len(left.items) == 5


async def test_the_proofs_of_others_ask_for_nothing(store: ObjectStore) -> None:
    event = await curates(store, "rec-2")
    others = event.data.model_copy(update={"holder": "ingest"})
    assert await erase_corrections(new_event(others, source="/test"), store) == ()
