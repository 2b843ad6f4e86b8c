"""The monitor as a whole, on a log in memory and a real store: what it says, once and only once."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_monitor import sorting
from tunewheel_monitor.records import STRIPPED

from .conftest import START, bike_texts, route_of, tax_texts

BIKES = bike_texts(200)
MORE_BIKES = bike_texts(200, start=200)
INVALID = "no JSON"


async def in_production(desk: Any, **spec: Any) -> None:
    await desk.promote("desk-1", "ds-1", BIKES, **spec)
    await desk.watch.start()


async def test_new_questions_are_input_drift(desk: Any):
    await in_production(desk)
    await desk.send(desk.ask(tax_texts(20)))
    (drift,) = desk.drifts
    assert (drift.detector, drift.dataset_id, drift.model_id) == ("input", "ds-1", "desk-1")
    assert drift.p_value < drift.threshold == 0.01
    assert drift.window.completions == 20
    assert {drift.window.first_completion_id, drift.window.last_completion_id} == {"c-00000", "c-00019"}
    assert len(drift.examples) == 3
    assert all(example.excerpt.startswith("May I") for example in drift.examples)
    event = desk.broker.published[0]
    assert event.causation_id == desk.broker.traffic[19].event.id


async def test_the_same_kind_of_questions_is_none(desk: Any):
    await in_production(desk)
    await desk.send(desk.ask(MORE_BIKES[:100]))
    assert not desk.drifts


async def test_broken_outputs_are_format_drift_by_the_holdout(desk: Any):
    await in_production(desk)
    desk.knowledge._scores["desk", "desk-1"] = (1, 100)
    await desk.send(desk.ask(MORE_BIKES[:12]) + desk.ask(MORE_BIKES[12:20], output=INVALID))
    (drift,) = desk.drifts
    assert (drift.detector, drift.statistic) == ("format", pytest.approx(8 / 20 - 1 / 100))
    assert drift.examples[0].excerpt == INVALID


async def test_without_a_scorecard_the_first_window_is_the_reference(desk: Any):
    await in_production(desk)
    await desk.send(desk.ask(MORE_BIKES[:20], output=INVALID))
    assert not desk.drifts
    desk.revive()
    await desk.promote("desk-1", "ds-1", BIKES)
    await desk.watch.start()
    await desk.send(desk.ask(MORE_BIKES[20:40], output=INVALID))
    assert not desk.drifts


async def test_worse_ratings_are_feedback_drift(desk: Any):
    await in_production(desk)
    good = [desk.traffic.rating(f"a-{n}", "up") for n in range(20)]
    bad = [desk.traffic.rating(f"b-{n}", "down", comment="wrong") for n in range(20)]
    await desk.send([*good, desk.traffic.rating("x", "down", model_id=None), *bad])
    (drift,) = desk.drifts
    assert (drift.detector, drift.statistic, drift.examples[0].excerpt) == ("feedback", 1.0, "wrong")


@pytest.mark.parametrize("cooldown", [0, 20, 30])
async def test_a_shift_that_lasts_is_one_alarm_also_after_a_restart(desk: Any, cooldown: int):
    spec = {"drift": {"window": 20, "cooldown_completions": cooldown}}
    await in_production(desk, **spec)
    await desk.send(desk.ask(tax_texts(60)))
    desk.revive()
    await desk.promote("desk-1", "ds-1", BIKES, **spec)
    await desk.watch.start()
    await desk.send(desk.ask(tax_texts(120)[60:]))
    assert [drift.window.last_completion_id for drift in desk.drifts] == ["c-00019"]


async def test_a_shift_that_is_seen_in_every_other_window_is_one_alarm(desk: Any):
    await in_production(desk)
    for n in range(3):
        await desk.send(desk.ask(tax_texts(20) + MORE_BIKES[20 * n : 20 * n + 20]))
    assert [drift.window.last_completion_id for drift in desk.drifts] == ["c-00019"]


async def test_a_shift_after_one_that_is_over_is_another_alarm(desk: Any):
    await in_production(desk)
    await desk.send(desk.ask(tax_texts(20) + MORE_BIKES[:60] + tax_texts(40)[20:]))
    assert [drift.window.last_completion_id for drift in desk.drifts] == ["c-00019", "c-00099"]


@pytest.mark.parametrize(
    "changes",
    [
        {"pinned": True},
        {"role": RouteRole.CANARY},
        {"error": "timeout"},
        {"model_id": "desk-0"},
        {"cancelled": True},
    ],
    ids=str,
)
async def test_only_what_production_answered_counts(desk: Any, changes: Any):
    await in_production(desk)
    await desk.send(desk.ask(tax_texts(60), **changes))
    assert not desk.drifts


async def test_model_ids_that_nobody_knows_are_looked_up_once_and_not_kept_for_ever(
    desk: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sorting, "UNKNOWN_KEPT", 3)
    await in_production(desk)
    looks: list[str] = []

    async def refresh() -> None:
        looks.append("again")

    monkeypatch.setattr(desk.declared, "refresh", refresh)
    ratings = [desk.traffic.rating(f"x-{n}", "up", model_id=f"nobody-{n}") for n in range(8)]
    again = [desk.traffic.rating(f"y-{n}", "up", model_id=f"nobody-{n}") for n in (5, 6, 7)]
    await desk.send([*ratings, *again])
    assert len(looks) == 8
    assert len(desk.watch.sorter._unknown) == 3


async def test_drift_that_nobody_wants_is_not_looked_for(desk: Any):
    await in_production(desk, drift={"enabled": False, "window": 20})
    await desk.send(desk.ask(tax_texts(40)))
    assert not desk.drifts


async def test_a_new_dataset_version_starts_new_windows(desk: Any):
    await in_production(desk)
    await desk.send(desk.ask(tax_texts(15)))
    await desk.promote("desk-2", "ds-2", BIKES + tax_texts(200))
    await desk.send(desk.ask(bike_texts(10, start=250) + tax_texts(10), model_id="desk-2"))
    assert not desk.drifts
    await desk.send(desk.ask(["Nine lizards sang opera in the submarine"] * 20, model_id="desk-2"))
    assert [drift.dataset_id for drift in desk.drifts] == ["ds-2"]


async def test_a_dataset_that_is_gone_leaves_the_other_detectors_working(desk: Any):
    await in_production(desk)
    desk.serve(route_of("desk-1", RouteRole.PRODUCTION, 100, "ds-gone"))
    desk.knowledge._scores["desk", "desk-1"] = (0, 100)
    await desk.send(desk.ask(tax_texts(20), output=INVALID))
    assert [drift.detector for drift in desk.drifts] == ["format"]


async def test_killed_in_the_middle_of_a_window_it_says_the_same(desk: Any):
    await in_production(desk)
    asked = desk.ask(tax_texts(20))
    await desk.send(asked[:13])
    desk.revive()
    await desk.watch.start()
    await desk.send(asked[13:])
    (drift,) = desk.drifts
    assert drift.window.first_completion_id == "c-00000"
    desk.revive()
    await desk.watch.start()
    await desk.send(asked[13:])  # delivered again
    assert len(desk.drifts) == 1


async def test_killed_between_the_record_and_the_event_it_says_it_after_the_restart(desk: Any):
    await in_production(desk)
    asked = desk.ask(tax_texts(20))
    desk.broker.failures = 1
    with pytest.raises(TransientError):
        await desk.send(asked)
    assert not desk.drifts
    desk.revive()
    await desk.watch.start()
    (drift,) = desk.drifts
    await desk.send(asked)
    assert desk.drifts == [drift]


async def test_a_batch_repeated_after_an_error_counts_once(desk: Any):
    await in_production(desk)
    asked = desk.ask(tax_texts(30))
    desk.broker.failures = 1
    with pytest.raises(TransientError):
        await desk.send(asked)
    await desk.send(asked)
    assert len(desk.drifts) == 1
    await desk.send(desk.ask(MORE_BIKES[:9]))
    assert len(desk.watch.sorter.streams["desk", "completions"].pending) == 19


async def test_what_another_process_took_in_meanwhile_is_read_from_the_log(desk: Any):
    await in_production(desk)
    asked = desk.ask(tax_texts(20))
    await desk.send(asked[:3])
    desk.broker.traffic += asked[3:17]
    await desk.send(asked[17:])
    (drift,) = desk.drifts
    assert drift.window.completions == 20


def canary_traffic(desk: Any, *, bad: int) -> list[Any]:
    champion = desk.ask(MORE_BIKES[:12])
    canary = {"model_id": "desk-2", "role": RouteRole.CANARY}
    good = desk.ask(MORE_BIKES[12 : 22 - bad], **canary)
    return champion + good + desk.ask(MORE_BIKES[22 - bad : 22], output=INVALID, **canary)


async def start_canary(desk: Any) -> None:
    await in_production(desk)
    desk.serve(
        route_of("desk-1", RouteRole.PRODUCTION, 80, "ds-1"),
        route_of("desk-2", RouteRole.CANARY, 20, "ds-2"),
    )
    desk.step("desk-2", Stage.CANARY)


@pytest.mark.parametrize(("bad", "verdict"), [(0, "passed"), (4, "failed")])
async def test_a_canary_is_judged_once(desk: Any, bad: int, verdict: str):
    await start_canary(desk)
    pinned = desk.ask(MORE_BIKES[:30], model_id="desk-2", pinned=True, output=INVALID)
    await desk.send(pinned + canary_traffic(desk, bad=bad))
    (judged,) = desk.broker.of(topics.ROLLOUT_JUDGED)
    assert (judged.model_id, judged.stage, judged.verdict) == ("desk-2", "canary", verdict)
    assert (judged.requests, judged.generation) == (10, 7)
    assert judged.candidate["invalid_rate"] == bad / 10
    assert desk.broker.published[-1].correlation_id == "turn-of-desk-2"
    desk.revive()
    await desk.watch.start()
    await desk.send(canary_traffic(desk, bad=5))
    assert len(desk.broker.of(topics.ROLLOUT_JUDGED)) == 1


async def test_clients_that_leave_and_wrong_requests_say_nothing_of_a_canary(desk: Any):
    await start_canary(desk)
    canary = {"model_id": "desk-2", "role": RouteRole.CANARY}
    left = desk.ask(MORE_BIKES[:20], output="{", cancelled=True, **canary)
    wrong = desk.ask(MORE_BIKES[:20], output="", error="too long", fault="client", **canary)
    await desk.send(left + wrong + canary_traffic(desk, bad=0))
    (judged,) = desk.broker.of(topics.ROLLOUT_JUDGED)
    assert (judged.verdict, judged.requests) == ("passed", 10)


async def test_the_gateway_s_verdict_on_the_format_counts_where_it_gave_one(desk: Any):
    await in_production(desk)
    desk.knowledge._scores["desk", "desk-1"] = (1, 100)
    await desk.send(desk.ask(MORE_BIKES[:20], output=INVALID, format_valid=True))
    assert not desk.drifts
    await desk.send(desk.ask(MORE_BIKES[20:40], format_valid=False))
    assert [drift.detector for drift in desk.drifts] == ["format"]


@pytest.mark.parametrize(
    ("texts", "messages"), [("off", ()), ("hashed", [{"role": "user", "content": "text-1"}])]
)
async def test_without_texts_drift_of_the_input_is_not_measured(desk: Any, texts: str, messages: Any):
    await in_production(desk)
    desk.knowledge._scores["desk", "desk-1"] = (1, 100)
    hidden: Any = {"texts": texts, "messages": messages, "output": "", "format_valid": False}
    await desk.send([desk.traffic.completion("", **hidden) for _ in range(20)])
    (drift,) = desk.drifts
    assert (drift.detector, {example.excerpt for example in drift.examples}) == ("format", {""})
    record = await desk.watch.sorter.records.latest("desk", "ds-1", "completions")
    assert record.not_measured == ("input",)
    assert [finding.detector for finding in record.findings] == ["format"]


@pytest.mark.parametrize(("texts", "output"), [("off", ""), ("hashed", "text-1")])
async def test_an_answer_that_nobody_can_judge_is_neither_valid_nor_invalid(
    desk: Any, texts: str, output: str
):
    await start_canary(desk)
    desk.knowledge._scores["desk", "desk-1"] = (1, 100)
    canary = {"model_id": "desk-2", "role": RouteRole.CANARY}
    hidden: Any = {"texts": texts, "messages": (), "output": output}
    await desk.send([desk.traffic.completion("", **hidden) for _ in range(20)])
    await desk.send([desk.traffic.completion("", **hidden, **canary) for _ in range(20)])
    assert not desk.drifts
    assert not desk.broker.of(topics.ROLLOUT_JUDGED), "nothing says that the candidate is valid either"
    await desk.send(canary_traffic(desk, bad=1))
    (judged,) = desk.broker.of(topics.ROLLOUT_JUDGED)
    assert (judged.requests, judged.candidate["invalid_rate"]) == (30, 0.1)


async def test_killed_in_the_middle_of_a_canary_it_counts_on(desk: Any):
    await start_canary(desk)
    asked = canary_traffic(desk, bad=0)
    await desk.send(asked[:17])
    desk.revive()
    await desk.watch.start()
    await desk.send(asked[17:])
    (judged,) = desk.broker.of(topics.ROLLOUT_JUDGED)
    assert (judged.candidate["requests"], judged.champion["requests"]) == (10, 12)


def record_texts(desk: Any) -> str:
    root = desk.store.local_root / "monitor"
    return "".join(path.read_text("utf-8") for path in sorted(root.rglob("*.json")))


def erasure(**subject: str) -> Any:
    data = ErasureRequested.model_validate(
        {"project": "desk", "erasure_id": "letter", "requested_by": "privacy"} | subject
    )
    return new_event(data, source="/test", time=START + timedelta(days=1))


async def test_what_users_wrote_leaves_the_store_once_it_is_on_the_log(desk: Any):
    await in_production(desk)
    desk.broker.failures = 1
    with pytest.raises(TransientError):
        await desk.send(desk.ask(tax_texts(20)))
    assert "May I" in record_texts(desk)
    await desk.send(desk.broker.traffic)
    assert len(desk.drifts) == 1
    assert "May I" in desk.drifts[0].examples[0].excerpt
    assert "May I" not in record_texts(desk)


async def test_a_drift_whose_event_the_log_dropped_is_not_said_again(desk: Any):
    await in_production(desk)
    await desk.send(desk.ask(tax_texts(20)))
    desk.broker.published.clear()
    desk.revive()
    await desk.watch.start()
    assert not desk.drifts


async def test_records_of_earlier_releases_lose_their_excerpts(desk: Any):
    await in_production(desk)
    await desk.send(desk.ask(tax_texts(100)))
    (desk.store.local_root / STRIPPED).unlink()
    paths = sorted((desk.store.local_root / "monitor").rglob("*.json"))
    detected = [drift.model_dump(mode="json") for drift in desk.drifts]
    for path in paths:
        record = json.loads(path.read_text())
        del record["said"]
        path.write_text(json.dumps(record | {"detections": detected}))
    desk.revive()
    await desk.watch.start()
    assert len(paths) == 5
    assert "May I" not in record_texts(desk)
    assert [event.id for event in desk.broker.published] == list(
        dict.fromkeys(event.id for event in desk.broker.published)
    )


async def test_the_last_record_under_an_earlier_dataset_loses_its_excerpts_too(desk: Any):
    await in_production(desk)
    await desk.send(desk.ask(tax_texts(20)))
    (drift,) = desk.drifts
    (desk.store.local_root / STRIPPED).unlink()
    (path,) = (desk.store.local_root / "monitor").rglob("*.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"said": False, "detections": [drift.model_dump(mode="json")]}))
    desk.revive()
    await desk.promote("desk-2", "ds-2", BIKES)
    await desk.watch.start()
    assert "May I" not in record_texts(desk)
    assert len(desk.drifts) == 1


async def test_a_damaged_record_of_long_ago_ends_no_start(desk: Any):
    await in_production(desk)
    await desk.send(desk.ask(tax_texts(40)))
    (desk.store.local_root / STRIPPED).unlink()
    damaged, _ = sorted((desk.store.local_root / "monitor").rglob("*.json"))
    damaged.write_text("{")
    desk.revive()
    await desk.watch.start()
    assert (desk.store.local_root / STRIPPED).exists()


@pytest.mark.parametrize("subject", [{"customer": "C-7"}, {"source_id": "c-00003"}])
async def test_an_erased_completion_counts_and_is_not_shown(desk: Any, subject: dict[str, str]):
    await in_production(desk)
    texts = tax_texts(20)
    asked = [desk.traffic.completion(text, customer=f"C-{4 + n}") for n, text in enumerate(texts)]
    await desk.send(asked[:19])
    event = erasure(**subject)
    desk.knowledge.apply(event)
    proof = await desk.watch.forget(event)
    assert (proof.holder, proof.records) == ("monitor", 1)
    await desk.send([asked[19]])
    assert (await desk.watch.forget(event)).records == 1, "as it was when it was asked for first"
    (drift,) = desk.drifts
    assert drift.window.completions == 20
    shown = {example.completion_id: example.excerpt for example in drift.examples}
    assert sum(text == "" for text in shown.values()) == ("c-00003" in shown)
    assert texts[3] not in shown.values()


async def test_an_erased_answer_is_not_shown_where_its_window_was_recorded_and_not_said(desk: Any):
    await in_production(desk)
    desk.knowledge._scores["desk", "desk-1"] = (1, 100)
    desk.broker.failures = 2
    bad = [desk.traffic.completion(t, output=INVALID, customer="C-7") for t in MORE_BIKES[:20]]
    with pytest.raises(TransientError):
        await desk.send(bad, commit=False)
    assert INVALID in record_texts(desk)
    desk.knowledge.apply(erasure(customer="C-7"))
    with pytest.raises(TransientError):
        await desk.send(bad, commit=False)
    assert INVALID not in record_texts(desk), "closed again, without the text"
    await desk.send(bad, commit=False)
    (drift,) = desk.drifts
    assert {example.excerpt for example in drift.examples} == {""}


async def test_a_dead_process_leaves_no_excerpt_that_was_erased_since(desk: Any):
    await in_production(desk)
    desk.broker.failures = 1
    with pytest.raises(TransientError):
        await desk.send(desk.ask(tax_texts(20), customer="C-7"), commit=False)
    desk.lifecycle.append(erasure(customer="C-7"))
    desk.revive()
    await desk.watch.start()
    (drift,) = desk.drifts
    assert {example.excerpt for example in drift.examples} == {""}
    assert "May I" not in record_texts(desk)
