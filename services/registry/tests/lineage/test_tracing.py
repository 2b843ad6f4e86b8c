"""From any name to all that led to it, and to all that came of it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.errors import TransientError
from tunewheel_registry.lineage.index import TOPICS, LineageIndex
from tunewheel_registry.lineage.records import RecordFiles
from tunewheel_registry.lineage.tracing import Lineage, trace

from ..wheel import Wheel, row


async def traced(wheel: Wheel, name: str, *, most: int = 100) -> Lineage:
    found = await trace(wheel.index.graph("desk"), wheel.files, name, project="desk", most_records=most)
    assert found is not None
    assert "SECRET" not in found.model_dump_json(), "nobody's words, and no customer"
    return found


def ids(lineage: Lineage, kind: str | None = None) -> set[str]:
    return {node.id for node in lineage.nodes if kind in (None, node.kind)}


async def turn(wheel: Wheel) -> dict[str, str]:
    """Two versions, each with a model; the first went all the way to a canary and was retired by a person."""
    request = wheel.requested()
    first = await wheel.dataset(1, [row(1), row(2), row(3, used=False)], cause=request)
    model = wheel.model(1, first)
    passed = wheel.reviewed(1)
    canary = wheel.promoted(1, passed)
    judged = wheel.judged(1)
    command = wheel.commanded(1)
    alarm = wheel.drifted(1)
    again = wheel.requested(alarm)
    second = await wheel.dataset(2, [row(2), row(4, kind="document")], cause=again)
    wheel.model(2, second)
    return {"request": request.id, "model": model.data.model_id, "canary": canary.id, "judged": judged.id,
            "command": command.id, "alarm": alarm.id, "again": again.id}  # fmt: skip


async def test_a_model_leads_back_to_its_records_and_on_to_its_rollout(wheel: Wheel) -> None:
    names = await turn(wheel)
    found = await traced(wheel, names["model"])
    assert found.found == [names["model"]]
    before = {names["request"], "ds-1", "run-1", "rec-1", "rec-2"}
    after = {"evaluation-1", "review-1", names["canary"], names["judged"], names["command"], names["alarm"]}
    assert ids(found) == before | {names["model"]} | after
    edges = {(edge.source, edge.target): edge for edge in found.edges}
    assert edges["rec-1", "ds-1"].facts == {"examples": ["ex-1"]}
    assert {("ds-1", "run-1"), ("run-1", names["model"]), ("evaluation-1", names["canary"])} <= edges.keys()
    assert (found.records.used, found.records.left_out) == (2, 1)
    assert found.records.by_kind == {"ticket": 2}


async def test_a_record_leads_on_to_every_version_and_model_that_learnt_it(wheel: Wheel) -> None:
    await turn(wheel)
    found = await traced(wheel, "rec-2")
    assert ids(found, "dataset") == {"ds-1", "ds-2"}
    assert ids(found, "model") == {wheel.desk.model_id(1), wheel.desk.model_id(2)}
    assert ids(found, "record") == {"rec-2"}
    for name in ("source-2", "event-of-2", "ex-2"):
        assert ids(await traced(wheel, name)) == ids(found)


async def test_a_record_that_was_left_out_leads_to_no_model_and_says_why(wheel: Wheel) -> None:
    await turn(wheel)
    found = await traced(wheel, "rec-3")
    assert ids(found) == {"rec-3", "ds-1"}
    (edge,) = found.edges
    assert (edge.relation, edge.facts) == ("left out of", {"stage": "cleaning", "reason": "too_short"})


async def test_a_walk_ends_at_an_alarm_which_the_next_version_shows(wheel: Wheel) -> None:
    names = await turn(wheel)
    assert "ds-2" not in ids(await traced(wheel, names["model"]))
    found = await traced(wheel, "ds-2")
    assert {names["again"], names["alarm"]} <= ids(found)
    assert names["model"] not in ids(found)
    assert {names["model"], "ds-2"} <= ids(await traced(wheel, names["alarm"]))


async def test_every_name_of_an_evaluation_and_its_review_leads_there(wheel: Wheel) -> None:
    await turn(wheel)
    for name in ("evaluation-1", "sc-1", next(e.id for e in wheel.log if e.data.type == "eval.passed")):
        assert (await traced(wheel, name)).found == ["evaluation-1"]
    found = await traced(wheel, "review-1")
    review = next(node for node in found.nodes if node.id == "review-1")
    assert review.facts["reviewers"] == {
        "Ada": {"items": 2, "by": "ada-key", "verdict": "approved"}, "Bo": {"items": 1, "by": "bo-key"},
    }  # fmt: skip
    judged = next(node for node in found.nodes if node.id == "evaluation-1")
    assert (judged.facts["outcome"], judged.facts["principal"]) == ("passed", "ada-key")


async def test_the_order_of_reading_and_a_second_delivery_change_nothing(wheel: Wheel) -> None:
    names = await turn(wheel)
    expected = await traced(wheel, names["model"])
    shuffled = wheel.log * 2
    random.Random(5).shuffle(shuffled)
    wheel.index = LineageIndex()
    for event in shuffled:
        wheel.index.apply(event)
    again = await traced(wheel, names["model"])
    assert sorted(map(repr, again.edges)) == sorted(map(repr, expected.edges))
    strip = lambda lineage: {n.id: (n.kind, n.facts, set(n.event_ids)) for n in lineage.nodes}  # noqa: E731
    assert strip(again) == strip(expected)


async def test_records_are_named_up_to_the_number_asked_for(wheel: Wheel) -> None:
    await wheel.dataset(1, [row(n) for n in range(9)])
    found = await traced(wheel, "ds-1", most=4)
    assert (len(ids(found, "record")), found.records.shown, found.records.used) == (4, 4, 9)
    assert ids(await traced(wheel, "ds-1", most=0), "record") == set()


async def test_an_erased_record_is_shown_as_erased(wheel: Wheel) -> None:
    await wheel.dataset(1, [row(1), row(2)])
    await wheel.erased(("rec-1",), ("ds-1",))
    told = {node.id: node.facts for node in (await traced(wheel, "ds-1")).nodes}
    assert told["rec-1"]["erased_by"] == "letter-7"
    assert "erased_by" not in told["rec-2"]


async def test_records_of_a_deleted_version_are_not_told_though_they_were_read(wheel: Wheel) -> None:
    files = wheel.files
    await wheel.dataset(1, [row(1), row(2)])
    await files.rows(wheel.index.graph("desk").nodes["ds-1"].artifacts["manifest"])
    await wheel.erased(("rec-1",), ("ds-1",), deleted=("ds-1",))
    graph = wheel.index.graph("desk")
    whole = await trace(graph, files, "ds-1", project="desk", most_records=9)
    assert whole is not None
    assert ids(whole) == {"ds-1", "letter-7"}
    assert whole.unreadable == {"ds-1": "deleted by an erasure"}
    erased = await trace(graph, files, "rec-1", project="desk", most_records=9)
    assert erased is not None
    assert ids(erased) == {"rec-1", "letter-7"}
    assert await trace(graph, files, "rec-2", project="desk", most_records=9) is None


async def test_a_version_whose_file_is_gone_does_not_hide_the_others(wheel: Wheel) -> None:
    await turn(wheel)
    await wheel.store.delete(["datasets/ds-1/lineage.parquet"])
    found = await traced(wheel, "rec-2")
    assert ids(found, "dataset") == {"ds-2"}
    assert "ds-1/lineage.parquet is not in" in found.unreadable["ds-1"]


async def test_a_store_that_is_away_is_no_answer(wheel: Wheel) -> None:
    await turn(wheel)

    class Away:
        async def get(self, ref: Any) -> bytes:
            raise TransientError("cannot read it")

    with pytest.raises(TransientError):
        await trace(wheel.index.graph("desk"), RecordFiles(Away()), "ds-1", project="desk", most_records=9)


async def test_few_frames_stay_in_memory_and_the_answer_is_the_same(wheel: Wheel) -> None:
    await turn(wheel)
    files = RecordFiles(wheel.store, cached_bytes=1)
    for _ in range(2):
        found = await trace(wheel.index.graph("desk"), files, "rec-2", project="desk", most_records=9)
        assert found is not None
        assert ids(found, "dataset") == {"ds-1", "ds-2"}
    assert not files._frames


async def test_a_graph_holds_nothing_of_other_projects(wheel: Wheel) -> None:
    await turn(wheel)
    assert (
        await trace(wheel.index.graph("shop"), wheel.files, "rec-2", project="shop", most_records=9) is None
    )


def test_topics_that_grow_by_the_record_or_the_request_are_not_read() -> None:
    per_record = {topics.INFERENCE_COMPLETED, topics.RECORD_INGESTED, topics.FEEDBACK_RECEIVED}
    assert not {*per_record, *topics.COMES_AGAIN, topics.TRAIN_PROGRESSED} & set(TOPICS)
