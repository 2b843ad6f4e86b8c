"""What is kept of a completion and of a rating: figures that say enough, and no text."""

from __future__ import annotations

import base64
from math import exp
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.event import decode_data, new_event
from tunewheel_contracts.events.evaluation import EvalPassed
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.formats.confidence import Confidence
from tunewheel_contracts.formats.index import RetrievalUse
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_embedding.static import unit_length

from .conftest import START, bike_texts, route_of, spec_of, tax_texts
from .test_nearness import alarm

BIKES = bike_texts(200)
TASK = {
    "system_prompt": "Answer.",
    "output_schema": {
        "type": "object",
        "required": ["category"],
        "properties": {"category": {"type": "string", "enum": ["x", "bell", "horn"]}},
    },
    "label_field": "category",
    "refusal": "cannot help",
}


async def scores(desk: Any, *deliveries: Any) -> list[InferenceScored]:
    return [delivery.event.data for delivery in await desk.score(deliveries)]


async def in_production(desk: Any, **spec: Any) -> None:
    await desk.promote("desk-1", "ds-1", BIKES, **({"task": TASK} | spec))


async def test_a_completion_becomes_figures_under_its_own_name_without_text(desk: Any) -> None:
    await in_production(desk)
    delivery = desk.traffic.completion(
        tax_texts(1)[0], customer="Ann Example", client="app", latency_seconds=0.5, completion_tokens=7
    )
    (event,) = await desk.scorer.completions([delivery])
    scored = event.data
    assert InferenceScored.model_validate_json(scored.model_dump_json()) == scored, "what is built is valid"
    assert (scored.scored, event.causation_id) == (delivery.event.id, delivery.event.id)
    assert (scored.position.partition, scored.position.offset) == (0, 0)
    assert (scored.outcome, scored.format_valid, scored.label) == ("answered", True, "x")
    assert (scored.latency_seconds, scored.completion_tokens, scored.client) == (0.5, 7, "app")
    assert (scored.dataset_id, scored.novel, scored.refusal, scored.invented) == ("ds-1", True, False, 0)
    assert len(base64.b64decode(scored.vector)) == 384
    assert scored.user.startswith("user-")
    written = scored.model_dump_json()
    assert "Ann" not in written
    assert "May I" not in written


async def test_what_an_answer_took_from_passages_is_not_called_invented(desk: Any) -> None:
    await in_production(desk)
    fit = {"similarity": 0.61, "retrieval_sha256": "a" * 64}
    use = RetrievalUse(index_id="ix-1", passage_ids=("ps-1",), scores=(0.5,), **fit)
    plain, shown = await scores(
        desk,
        *(
            desk.traffic.completion(BIKES[0], output="Order LM-0099 costs 350 EUR.", retrieval=retrieval)
            for retrieval in (None, use)
        ),
    )
    assert plain.invented > 0
    assert shown.invented is None
    assert (plain.similarity, plain.retrieval_sha256) == (None, None)
    assert (shown.similarity, shown.retrieval_sha256) == (0.61, "a" * 64)


async def test_a_question_like_those_of_the_reference_is_not_novel(desk: Any) -> None:
    await in_production(desk)
    (known,) = await scores(desk, desk.traffic.completion(BIKES[3]))
    assert (known.novel, known.vector) == (False, None)
    assert known.novelty == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("text", ["hi", "Thanks!"])
async def test_a_question_shorter_than_nearly_all_of_the_dataset_s_is_not_compared(
    desk: Any, text: str
) -> None:
    await in_production(desk)
    greeting, new = await scores(desk, *(desk.traffic.completion(one) for one in (text, tax_texts(1)[0])))
    assert (greeting.dataset_id, new.novel) == ("ds-1", True)
    assert (greeting.cell, greeting.novelty, greeting.novel, greeting.vector) == (None,) * 4


async def test_a_user_is_one_pseudonym_of_the_project_in_every_process(desk: Any) -> None:
    await in_production(desk)
    asked = [desk.traffic.completion(BIKES[0], customer=name) for name in ("Ann", "Ann", "Bob")]
    one, same, other = await scores(desk, *asked)
    assert one.user == same.user != other.user
    desk.revive()
    assert [score.user for score in await scores(desk, *asked)] == [one.user, one.user, other.user]


async def test_an_erased_user_has_no_pseudonym(desk: Any) -> None:
    await in_production(desk)
    asked = ErasureRequested(
        project="desk", erasure_id="e", customer="Ann", requested_by="privacy", requested_at=START
    )
    desk.knowledge.apply(new_event(asked, source="/test"))
    before, after = await scores(desk, *(desk.traffic.completion(BIKES[n], customer="Ann") for n in range(2)))
    assert before.user is None
    assert after.user is not None, "what comes later is new"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"error": "timeout", "fault": "engine"},
            {"outcome": "failed", "fault": "engine", "format_valid": None},
        ),
        ({"cancelled": True}, {"outcome": "cancelled", "novel": None}),
        ({"finish_reason": "length"}, {"truncated": True}),
        ({"overrides": ("system_prompt",)}, {"overrides": ("system_prompt",)}),
        (
            {"output": "I cannot help."},
            {"refusal": True, "format_valid": False, "violations": ("output_schema",)},
        ),
        ({"output": '{"category": "Ann wrote"}'}, {"format_valid": False, "label": None}),
        ({"output": "x", "format_valid": True}, {"format_valid": True, "violations": ()}),
        ({"role": RouteRole.CANARY, "model_id": "desk-2"}, {"novel": None, "format_valid": True}),
        ({"pinned": True}, {"pinned": True, "novel": None}),
    ],
    ids=str,
)
async def test_what_happened_is_told(desk: Any, changes: Any, expected: Any) -> None:
    await in_production(desk)
    (scored,) = await scores(desk, desk.traffic.completion(BIKES[0], **changes))
    assert scored.model_dump(include=set(expected)) == expected


async def test_a_canary_s_question_says_whether_it_is_near_an_alarm_and_is_not_measured(desk: Any) -> None:
    await in_production(desk)
    unit = unit_length(desk.scorer.embedder.embed([BIKES[0]]))[0]
    opened = alarm("alarm-1", *map(float, unit))
    desk.knowledge.apply(new_event(opened, source="/test"))
    canary: dict[str, Any] = {"role": RouteRole.CANARY, "model_id": "desk-2"}
    asked = (
        desk.traffic.completion(text, **changes)
        for text, changes in ((BIKES[0], {}), (BIKES[0], canary), (tax_texts(1)[0], canary))
    )
    champion, near, far = await scores(desk, *asked)
    assert (champion.near, near.near, far.near) == (("alarm-1",), ("alarm-1",), ())
    assert champion.novel is not None
    assert (near.novel, near.cell, near.novelty, near.vector) == (None, None, None, None)


@pytest.mark.parametrize("texts", ["hashed", "off"])
async def test_without_texts_only_the_gateway_s_verdict_is_known(desk: Any, texts: str) -> None:
    await in_production(desk)
    hidden: Any = {"texts": texts, "messages": (), "output": ""}
    judged, unjudged = await scores(
        desk,
        desk.traffic.completion("", **hidden, format_valid=False),
        desk.traffic.completion("", **hidden),
    )
    assert (judged.format_valid, judged.novel, judged.label) == (False, None, None)
    assert unjudged.format_valid is None


async def test_a_rating_says_thumb_correction_and_whether_the_labels_agree(desk: Any) -> None:
    await in_production(desk)
    answer = '{"category": "bell"}'
    rated = await scores(
        desk,
        desk.traffic.rating("c-1", "up"),
        desk.traffic.rating("c-2", "down", output=answer, correction={"category": "horn"}, customer="Ann"),
        desk.traffic.rating("c-3", "down", output=answer, correction={"category": "bell"}),
        desk.traffic.rating("c-4", "down", output="no JSON", correction={"category": "bell"}),
        desk.traffic.rating("c-5", "down", model_id=None),
        desk.traffic.rating("c-6", "down", overrides=("system_prompt",), pinned=True),
    )
    *rated, replaced = rated
    assert (replaced.overrides, replaced.pinned, rated[0].pinned) == (("system_prompt",), True, False)
    assert [(one.of, one.rating, one.corrected, one.agrees) for one in rated] == [
        ("rating", "up", False, None),
        ("rating", "down", True, False),
        ("rating", "down", True, True),
        ("rating", "down", True, None),
    ], "nothing says which model the last one is about"
    assert rated[1].user is not None
    assert rated[0].role is RouteRole.PRODUCTION


async def test_the_language_of_a_question_is_told_where_it_is_certain(desk: Any) -> None:
    await in_production(desk)
    english = "The bell of my bicycle does not ring any more, and I would like to have a new one."
    german = "Die Klingel an meinem Fahrrad läutet nicht mehr, ich hätte gern eine neue."
    asked = [desk.traffic.completion(text) for text in (english, german, "bell?", "")]
    messages = ({"role": "user", "content": german},)
    rated = desk.traffic.rating("c-1", "up", messages=messages)
    assert [one.language for one in await scores(desk, *asked, rated)] == ["en", "de", None, None, "de"]


async def test_a_rating_bears_the_label_of_the_rated_answer_if_the_task_lists_it(desk: Any) -> None:
    await in_production(desk)
    outputs = ('{"category": "x"}', '{"category": "Ann wrote"}', "no JSON", None)
    rated = await scores(
        desk, *(desk.traffic.rating(f"c-{n}", "up", output=o) for n, o in enumerate(outputs))
    )
    assert [one.label for one in rated] == ["x", None, None, None]


async def test_a_rating_of_a_model_that_is_not_routed_counts_for_nobody(desk: Any) -> None:
    await in_production(desk)
    canary = route_of("desk-2", RouteRole.CANARY, 20, "ds-2")
    desk.serve(route_of("desk-1", RouteRole.PRODUCTION, 80, "ds-1"), canary)
    ratings = [desk.traffic.rating(f"c-{n}", "down", model_id=f"desk-{n}") for n in (1, 2, 3)]
    roles = {"desk-1": RouteRole.PRODUCTION, "desk-2": RouteRole.CANARY}
    assert {one.model_id: one.role for one in await scores(desk, *ratings)} == roles
    desk.serve(route_of("desk-1", RouteRole.PRODUCTION, 100, "ds-1"))
    late = desk.traffic.rating("c-9", "down", model_id="desk-2")
    assert await scores(desk, late) == [], "it was taken back: what is said of it is not the champion's"


async def test_a_project_that_is_not_declared_has_no_scores(desk: Any) -> None:
    assert await scores(desk, desk.traffic.completion("x")) == []


async def test_without_drift_only_trials_are_scored_and_nothing_is_compared_with_the_dataset(
    desk: Any,
) -> None:
    await in_production(desk, drift={"enabled": False})
    assert await scores(desk, desk.traffic.completion(tax_texts(1)[0])) == []
    desk.step("desk-2", Stage.CANARY)
    (scored,) = await scores(desk, desk.traffic.completion(tax_texts(1)[0]))
    assert (scored.novel, scored.format_valid) == (None, True)


async def test_a_batch_of_many_projects_keeps_its_order(desk: Any) -> None:
    await in_production(desk)
    desk.declared.put(type(desk.declared.get("desk").data)(project="shop", spec=spec_of(project="shop")))
    desk.traffic.project = "shop"
    shop = desk.traffic.completion("x")
    desk.traffic.project = "desk"
    batch = [desk.traffic.completion(BIKES[0]), shop, desk.traffic.completion(BIKES[1])]
    made = await desk.scorer.completions(batch)
    assert [event.data.scored for event in made] == [delivery.event.id for delivery in batch]
    assert [event.data.dataset_id for event in made] == ["ds-1", None, "ds-1"]


async def test_a_sample_of_the_questions_is_scored_by_the_encoder_too(desk: Any, encoder: Any) -> None:
    await in_production(desk)
    desk.encode(encoder, per_hour=40)
    asked = [*BIKES[:6], *tax_texts(6)]
    none = await scores(desk, *desk.ask(asked))
    assert {score.encoded for score in none} == {None}, "the dataset is not encoded yet"
    await desk.references.encoded()
    some = await scores(desk, *desk.ask(asked))
    drawn = [score.encoded for score in some if score.encoded]
    assert [score.encoded is not None for score in some] == [n in (0, 4, 7, 11) for n in range(12)]
    assert {one.encoder for one in drawn} == {encoder.name}
    assert [one.novel for one in drawn] == [False, False, True, True]
    assert [one.vector is None for one in drawn] == [True, True, False, False]
    read = InferenceScored.model_validate_json(some[-1].model_dump_json())
    assert read == some[-1], "what is built is valid"


async def test_a_copy_or_a_pinned_answer_takes_no_place_in_the_sample(desk: Any, encoder: Any) -> None:
    await in_production(desk)
    desk.encode(encoder)
    await scores(desk, desk.traffic.completion(BIKES[0]))
    await desk.references.encoded()
    (pinned,) = await scores(desk, desk.traffic.completion(BIKES[0], pinned=True))
    assert pinned.encoded is None


@pytest.mark.parametrize(("label", "measured"), [(-0.5, exp(-0.5)), (None, 0.0)])
async def test_the_probability_of_the_label_is_scored_where_it_was_measured(
    desk: Any, label: float | None, measured: float
) -> None:
    await in_production(desk)
    told = Confidence(tokens=3, total=-1.5, least=-0.9, label=label)
    sure, unsampled = await scores(
        desk, *(desk.traffic.completion("q", confidence=one) for one in (told, None))
    )
    assert sure.measures == {"confidence": pytest.approx(measured)}
    assert unsampled.measures == {}


async def test_the_calibration_of_a_model_comes_from_the_verdict_that_passed_it(desk: Any) -> None:
    path = Path(__file__).parents[3] / "contracts/examples/eval.passed/valid/first.json"
    passed = decode_data(EvalPassed, path.read_bytes())
    desk.knowledge.apply(new_event(passed, source="/test", time=START, correlation_id="turn"))
    (candidate,) = (one for one in passed.contestants if one.role == "candidate")
    known = desk.knowledge.calibration("helpdesk", passed.adapter.model_id)
    assert known == candidate.calibration_curve
    assert known is not None
    assert desk.knowledge.calibration("helpdesk", "another") is None
