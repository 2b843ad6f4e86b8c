"""The monitor as a whole, on a log in memory and a real store: what it says, once and only once."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.upstream import ErasureRequested, ProjectDeclared
from tunewheel_contracts.formats.index import RetrievalUse
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_monitor.checkpoints import Overtaken
from tunewheel_monitor.detectors.novelty import encoder_of

from .conftest import START, Traffic, bike_texts, route_of, spec_of, tax_texts

BIKES = bike_texts(200)
MORE_BIKES = bike_texts(200, start=200)
INVALID = "no JSON"


async def in_production(desk: Any, **spec: Any) -> None:
    await desk.promote("desk-1", "ds-1", BIKES, **spec)


async def test_new_questions_raise_an_alarm_whose_texts_lie_in_the_store_alone(desk: Any) -> None:
    await in_production(desk)
    asked = [desk.traffic.completion(text, customer=f"Ann-{n}") for n, text in enumerate(tax_texts(40))]
    await desk.send(asked)
    novelty = desk.alarms["novelty"]
    assert (novelty.dataset_id, novelty.model_id, novelty.window.completions) == ("ds-1", "desk-1", 20)
    told = "".join(event.data.model_dump_json() for event in desk.broker.events)
    assert "May I" not in told
    assert "Ann" not in told
    assert "May I" in desk.files()[novelty.evidence]
    event = next(one for one in desk.broker.events if one.data.ce_subject == "desk")
    assert event.causation_id in {delivery.event.id for delivery in asked}
    assert event.correlation_id == event.causation_id
    (request, *_) = desk.broker.of("labels.requested")
    assert request.prompts == f"monitor/desk/alarms/{request.alarm_id}.json"
    assert "may" in request.keywords


async def test_later_windows_add_their_prompts_to_the_request_and_to_the_store(desk: Any) -> None:
    await in_production(desk)
    texts = tax_texts(120)
    scored = await desk.score([desk.traffic.completion(t, customer=f"C-{n}x") for n, t in enumerate(texts)])
    await desk.watch.take(scored[:70])
    desk.revive()
    await desk.watch.take(scored[70:])
    alarm_id = desk.alarms["novelty"].alarm_id
    first, *more = [one for one in desk.broker.of("labels.requested") if one.alarm_id == alarm_id]
    newest = more[-1]
    assert len(newest.completion_ids) > 2 * len(first.completion_ids)
    assert all(one.adds_prompts for one in (first, *more))
    files = desk.files()
    shown = [
        item["completion_id"] for path in newest.prompt_files for item in json.loads(files[path])["items"]
    ]
    assert tuple(shown) == newest.completion_ids, "each prompt once, in the request's order"
    assert all("May I" in files[path] for path in newest.prompt_files)
    assert "may" in newest.keywords
    desk.revive()
    await desk.watch.take(scored[100:])  # delivered again
    assert desk.files().keys() == files.keys()
    last = json.loads(files[newest.prompt_files[-1]])["items"][-1]
    await desk.watch.forget(erasure(customer=last["customer"]))
    left = "".join(desk.files().values())
    assert last["messages"][0]["content"] not in left
    assert last["customer"] not in left
    states = "".join(text for path, text in desk.files().items() if "/state/" in path)
    assert last["completion_id"] not in states


async def test_what_the_documents_lack_is_named_by_keywords_and_shown_until_it_is_erased(desk: Any) -> None:
    await in_production(desk)
    known = (MORE_BIKES * 3)[:500]
    looked_up = partial(RetrievalUse, index_id="ix-1", retrieval_sha256="a" * 64)
    use = [looked_up(similarity=0.5 + 0.001 * (n % 97)) for n in range(len(known))]
    fits = [desk.traffic.completion(text, retrieval=one) for text, one in zip(known, use, strict=True)]
    badly = looked_up(index_id="ix-2", similarity=0.1)
    lacking = [
        desk.traffic.completion(text, retrieval=badly, customer=f"C-{n}x")
        for n, text in enumerate(tax_texts(80))
    ]
    await desk.send([*fits, *lacking])
    alarm = desk.alarms["documents"]
    assert "may" in alarm.cluster.keywords
    shown = desk.files()[alarm.evidence]
    assert "May I" in shown
    assert all(one.alarm_id != alarm.alarm_id for one in desk.broker.of("labels.requested"))
    last = next(item for item in json.loads(shown)["items"] if item["customer"] == "C-7x")
    await desk.watch.forget(erasure(customer="C-7x"))
    assert last["messages"][0]["content"] not in desk.files()[alarm.evidence]
    states = "".join(text for path, text in desk.files().items() if "/state/" in path)
    assert f'"{last["completion_id"]}"' not in states


async def test_metrics_tell_what_was_scored_folded_and_judged_and_which_alarms_are_open(desk: Any) -> None:
    await in_production(desk)
    asked = desk.ask(tax_texts(40))
    await desk.send([*asked[:20], desk.traffic.rating("c-00001", "up"), *asked[20:]])
    told = desk.metrics_text().splitlines()
    for line in (
        'tunewheel_monitor_scores_made_total{of="completion"} 40',
        'tunewheel_monitor_scores_made_total{of="rating"} 1',
        "tunewheel_monitor_scores_folded_total 41",
        'tunewheel_monitor_windows_judged_total{of="answers"} 2',
        'tunewheel_monitor_looks_total{detector="novelty"} 2',
        'tunewheel_monitor_looks_total{detector="labels"} 0',
        'tunewheel_monitor_alarms_open{detector="novelty"} 1',
        'tunewheel_monitor_evidence{project="desk",detector="novelty"} 1.0',
    ):
        assert line in told
    (lag,) = (line for line in told if line.startswith("tunewheel_monitor_fold_lag_seconds "))
    assert float(lag.split()[1]) > 86_400, "they were asked long ago"
    desk.broker.elsewhere.add("desk")
    told = desk.metrics_text()
    assert "tunewheel_monitor_evidence{" not in told
    assert "tunewheel_monitor_alarms_open{" not in told, "whoever has the project tells of its alarms"
    assert "tunewheel_monitor_fold_lag_seconds 0.0" in told


async def test_the_same_kind_of_questions_raises_none(desk: Any) -> None:
    await in_production(desk)
    await desk.send(desk.ask(MORE_BIKES))
    assert not desk.alarms


async def test_broken_answers_raise_one_by_the_gateway_s_verdict(desk: Any) -> None:
    await in_production(desk)
    await desk.send(desk.ask(MORE_BIKES[:120], format_valid=True, output=INVALID))
    assert not desk.alarms
    await desk.send(desk.ask(MORE_BIKES[120:180], format_valid=False))
    assert "format" in desk.alarms


async def test_killed_in_the_middle_of_a_window_it_says_the_same(desk: Any) -> None:
    await in_production(desk)
    scored = await desk.score(desk.ask(tax_texts(40)))
    await desk.watch.take(scored[:13])
    desk.revive()
    await desk.watch.take(scored[13:])
    assert desk.alarms["novelty"].window.first_completion_id in {"c-00000", "c-00020"}
    said = len({event.id for event in desk.broker.events})
    desk.revive()
    await desk.watch.take(scored[30:])  # delivered again
    assert len({event.id for event in desk.broker.events}) == said


async def test_killed_between_the_checkpoint_and_the_event_it_says_it_after_the_restart(desk: Any) -> None:
    await in_production(desk)
    scored = await desk.score(desk.ask(tax_texts(40)))
    desk.broker.refusals = 1
    with pytest.raises(TransientError):
        await desk.watch.take(scored)
    assert not desk.alarms
    desk.revive()
    await desk.watch.take(scored)
    assert "novelty" in desk.alarms
    assert desk.resolved == {}


async def test_a_batch_repeated_after_an_error_counts_once(desk: Any) -> None:
    await in_production(desk)
    scored = await desk.score(desk.ask(MORE_BIKES[:9]))
    desk.broker.refusals = 0
    await desk.watch.take(scored)
    await desk.watch.take(scored)
    state = (await desk.watch.checkpoints.latest("desk")).state
    assert state.version.answers.items == 9


async def test_a_completion_scored_twice_counts_once(desk: Any) -> None:
    await in_production(desk)
    asked = desk.ask(MORE_BIKES[:9])
    await desk.send(asked)
    await desk.send(asked)
    state = (await desk.watch.checkpoints.latest("desk")).state
    assert (state.version.answers.items, state.offsets) == (9, {"1": 18})


async def test_of_two_that_go_on_from_the_same_state_one_reads_again(desk: Any) -> None:
    await in_production(desk)
    scored = await desk.score(desk.ask(tax_texts(40)))
    await desk.watch.take(scored[:5])
    stale = desk.watch
    _, _, owner = desk.replica()
    await owner.take(scored[5:10])
    with pytest.raises(Overtaken):
        await stale.take(scored[5:12])  # it has lost the partition and does not know yet
    assert not desk.alarms, "nothing is said by a state that is old"
    await stale.take(scored[5:12])
    with pytest.raises(Overtaken):
        await owner.take(scored[10:])
    await owner.take(scored[10:])  # the runtime repeats a batch, which goes on where the other one is now
    state = (await owner.checkpoints.latest("desk")).state
    assert state.offsets == {"1": 40}
    assert "novelty" in desk.alarms


async def test_a_partition_that_was_with_another_process_meanwhile_is_taken_up_from_the_store(
    desk: Any,
) -> None:
    await in_production(desk)
    scored = await desk.score(desk.ask(tax_texts(30)))
    await desk.watch.take(scored[:5])
    _, _, other = desk.replica()
    await other.take(scored[5:20])
    await desk.watch.take(scored[20:])
    state = (await desk.watch.checkpoints.latest("desk")).state
    assert (state.version.answers.items, state.offsets) == (10, {"1": 30})


async def test_a_project_that_moves_to_another_partition_goes_on(desk: Any) -> None:
    await in_production(desk)
    scored = await desk.score(desk.ask(MORE_BIKES[:12]))
    await desk.watch.take(scored[:7])
    moved = [
        type(one)(one.event, type(one.position)(one.position.topic, 4, n), {})
        for n, one in enumerate(scored[7:])
    ]
    await desk.watch.take(moved)
    state = (await desk.watch.checkpoints.latest("desk")).state
    assert (state.version.answers.items, state.offsets) == (12, {"1": 7, "4": 5})


async def test_of_a_disabled_project_nothing_is_read_and_nothing_written(desk: Any) -> None:
    await in_production(desk)
    scored = await desk.score(desk.ask(tax_texts(40)))
    desk.declare(drift={"enabled": False})
    await desk.watch.take(scored)
    await desk.send(desk.ask(tax_texts(40)))
    assert desk.files() == {}
    desk.declare()
    await desk.send(desk.ask(tax_texts(30)))
    state = (await desk.watch.checkpoints.latest("desk")).state
    assert state.version.answers.items == 10, "what came while it was disabled is not made up for"


async def test_switching_drift_off_ends_its_alarms_without_traffic(desk: Any) -> None:
    await in_production(desk)
    await desk.send(desk.ask(tax_texts(40)))
    desk.revive()  # its own alarms are known from the log
    later = START + timedelta(days=400)
    await desk.watch.tick("desk", later)
    assert desk.resolved == {}
    desk.declare(drift={"enabled": False})
    await desk.watch.tick("desk", later)
    assert desk.resolved.keys() == desk.alarms.keys()
    assert {one.reason for one in desk.resolved.values()} == {"off"}


async def test_a_new_version_takes_over_and_its_alarm_is_over(desk: Any) -> None:
    await in_production(desk)
    await desk.send(desk.ask(tax_texts(60)))
    first = desk.alarms["novelty"]
    await desk.promote("desk-2", "ds-2", BIKES + tax_texts(200))
    await desk.send(desk.ask(tax_texts(200)[60:140], model_id="desk-2"))
    over = desk.resolved["novelty"]
    assert (over.reason, over.alarm_id, over.model_id) == ("covered", first.alarm_id, "desk-2")


async def test_a_dataset_that_is_gone_leaves_the_other_detectors_working(desk: Any) -> None:
    await in_production(desk)
    desk.serve(route_of("desk-1", RouteRole.PRODUCTION, 100, "ds-gone"))
    desk.knowledge._holdouts["desk", "desk-1"] = (0, 200)
    await desk.send(desk.ask(tax_texts(60), output=INVALID))
    assert "format" in desk.alarms
    assert "novelty" not in desk.alarms


async def test_old_checkpoints_are_pruned(desk: Any) -> None:
    await in_production(desk)
    for n in range(8):
        await desk.send(desk.ask(MORE_BIKES[n : n + 1]))
    assert len(desk.files()) == 3


def erasure(**subject: str) -> Any:
    data = ErasureRequested.model_validate(
        {"project": "desk", "erasure_id": "letter", "requested_by": "privacy"} | subject
    )
    return new_event(data, source="/test", time=START + timedelta(days=1))


def shown(desk: Any) -> list[dict[str, Any]]:
    """Return the texts behind alarms."""
    kept = [json.loads(text) for path, text in desk.files().items() if "/alarms/" in path]
    return [item for one in kept for item in one["items"]]


def pseudonyms_of(desk: Any, name: str) -> list[str]:
    """Return the pseudonyms that the keys in the store make of ``name``."""
    folder = desk.store.local_root / "monitor/desk/pseudonyms"
    keys = [Pseudonyms("desk", path.read_bytes().hex()) for path in folder.glob("*")]
    return [key.of("user", name) for key in keys]


@pytest.mark.parametrize("by", ["customer", "source_id"])
async def test_an_erased_person_is_in_no_artifact(desk: Any, by: str) -> None:
    await in_production(desk)
    texts = tax_texts(40)
    await desk.send([desk.traffic.completion(text, customer=f"C-{n}x") for n, text in enumerate(texts)])
    taken = shown(desk)[0]
    name, customer, text = taken["completion_id"], taken["customer"], taken["messages"][0]["content"]
    asked = erasure(**{by: customer if by == "customer" else name})
    proof = await desk.watch.forget(asked)
    assert proof.holder == "monitor"
    assert proof.records >= 1
    assert (await desk.watch.forget(asked)).records == proof.records, "as it was at first"
    left = "".join(desk.files().values())
    assert text not in left
    assert customer not in left
    assert name not in "".join(text for path, text in desk.files().items() if "/state/" in path)
    user = next(one.event.data.user for one in desk.scored if one.event.data.completion_id == name)
    assert user not in left
    assert (user in pseudonyms_of(desk, customer)) is (by == "source_id"), "whose it was nobody can tell"
    assert any(item["messages"] for item in shown(desk)), "others stay"
    await desk.send(desk.ask(MORE_BIKES[:30]))
    assert (await desk.watch.checkpoints.latest("desk")).state.version.answers.items == 10


async def test_an_erasure_that_was_killed_before_the_texts_went_takes_them_and_the_names(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_production(desk)
    await desk.send([desk.traffic.completion(t, customer=f"C-{n}x") for n, t in enumerate(tax_texts(40))])
    taken = shown(desk)[0]

    async def killed(*_: Any) -> None:
        raise TransientError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(type(desk.watch.exhibits), "empty", killed)
        with pytest.raises(TransientError):
            await desk.watch.forget(erasure(customer=taken["customer"]))
    desk.revive()
    assert (await desk.watch.forget(erasure(customer=taken["customer"]))).records >= 1
    assert taken["customer"] not in "".join(desk.files().values())
    states = [text for path, text in desk.files().items() if "/state/" in path]
    assert states
    assert taken["completion_id"] not in "".join(states)


async def test_an_alarm_that_opens_after_an_erasure_does_not_show_what_it_took(desk: Any) -> None:
    await in_production(desk)
    texts = tax_texts(40)
    scored = await desk.score([desk.traffic.completion(t, customer=f"C-{n}") for n, t in enumerate(texts)])
    for n in range(0, 40, 2):
        desk.knowledge.apply(erasure(customer=f"C-{n}", erasure_id=f"letter-{n}"))
    await desk.watch.take(scored)
    readable = [item["completion_id"] for item in shown(desk) if item["messages"]]
    assert readable
    assert all(int(name.removeprefix("c-")) % 2 for name in readable)


@pytest.mark.parametrize("every", [1, 2])
async def test_an_erasure_that_another_process_carries_out_before_the_file_is_there_empties_it(
    desk: Any, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    await in_production(desk)
    texts = tax_texts(40)
    scored = await desk.score([desk.traffic.completion(t, customer=f"C-{n}x") for n, t in enumerate(texts)])
    failures = [TransientError("killed between the file and what empties it")]

    async def refresh() -> None:
        if not desk.files():
            return
        for n in range(0, 40, every):
            desk.knowledge.apply(erasure(customer=f"C-{n}x", erasure_id=f"letter-{n}"))
        if failures:
            raise failures.pop()

    monkeypatch.setattr(desk.knowledge, "refresh", refresh)
    with pytest.raises(TransientError):
        await desk.watch.take(scored)
    assert any(item["messages"] for item in shown(desk))
    await desk.watch.take(scored)
    left = [int(item["completion_id"].removeprefix("c-")) for item in shown(desk) if item["messages"]]
    assert all(n % every for n in left)
    assert bool(left) is (every == 2)
    assert "C-0x" not in "".join(desk.files().values())


async def test_a_project_without_a_state_is_proven_too(desk: Any) -> None:
    await in_production(desk)
    assert (await desk.watch.forget(erasure(customer="C-7"))).records == 0
    assert desk.files() == {}


async def start_canary(desk: Any, **rollout: Any) -> None:
    await in_production(desk, rollout=rollout)
    desk.serve(
        route_of("desk-1", RouteRole.PRODUCTION, 80, "ds-1"),
        route_of("desk-2", RouteRole.CANARY, 20, "ds-2"),
    )
    desk.step("desk-2", Stage.CANARY)


async def test_a_worse_canary_is_judged_once_also_after_a_restart(desk: Any) -> None:
    await start_canary(desk)
    canary = {"model_id": "desk-2", "role": RouteRole.CANARY}
    for n in range(0, 100, 10):
        await desk.send(
            desk.ask(MORE_BIKES[n : n + 10]) + desk.ask(MORE_BIKES[n : n + 10], output=INVALID, **canary)
        )
        desk.revive()
    (judged,) = desk.broker.of("rollout.judged")
    assert (judged.model_id, judged.stage, judged.verdict) == ("desk-2", "canary", "failed")
    event = next(one for one in desk.broker.events if one.data is judged)
    assert event.correlation_id == "turn-of-desk-2"


async def test_a_canary_without_traffic_is_over_at_its_deadline(desk: Any) -> None:
    await start_canary(desk, canary={"deadline_seconds": 60})
    await desk.watch.tick("desk", START + timedelta(seconds=59))
    assert not desk.broker.events
    await desk.watch.tick("desk", START + timedelta(seconds=61))
    await desk.watch.tick("desk", START + timedelta(seconds=62))
    desk.revive()
    await desk.watch.tick("desk", START + timedelta(seconds=63))
    (judged,) = desk.broker.of("rollout.judged")
    assert (judged.verdict, judged.decided_by) == ("failed", "deadline")


async def test_a_project_that_awaits_no_clock_is_not_read_by_it(desk: Any) -> None:
    await in_production(desk)
    await desk.send(desk.ask(MORE_BIKES[:5]))
    before = desk.files()
    await desk.watch.tick("desk", START + timedelta(days=400))
    await desk.watch.tick("nobody", START)
    assert desk.files() == before


async def test_a_model_that_nobody_knows_is_looked_up_once(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_production(desk)
    looks: list[str] = []

    async def refresh() -> None:
        looks.append("again")

    monkeypatch.setattr(desk.desired, "refresh", refresh)
    for _ in range(3):
        await desk.send([desk.traffic.completion("x", model_id=f"nobody-{n}") for n in range(4)])
    assert len(looks) == 4
    await desk.send([desk.traffic.rating(f"x-{n}", "up", model_id=f"anybody-{n}") for n in range(4)])
    assert len(looks) == 4, "ratings come from outside and may name any"


async def test_what_is_of_no_declared_project_is_left_alone(desk: Any) -> None:
    await in_production(desk)
    scored = await desk.score(desk.ask(MORE_BIKES[:3]))
    desk.declared.latest.clear()
    await desk.watch.take(scored)
    assert desk.files() == {}


@pytest.mark.parametrize("damaged", ['{"format": 1, "numb', '{"format": 99}'])
async def test_an_unreadable_state_of_one_project_stops_no_other(desk: Any, damaged: str) -> None:
    await in_production(desk)
    desk.declared.put(ProjectDeclared(project="shop", spec=spec_of("shop")))
    await desk.store.put("monitor/shop/state/000000000007.json", damaged.encode())
    shop = Traffic("shop")
    known = [shop.completion(text) for text in BIKES[:5]]
    await desk.send([*known, *desk.ask(tax_texts(40))])
    assert "novelty" in desk.alarms
    assert "000000000007.json" in desk.broker.warnings["checkpoint of shop"]
    assert "checkpoint of desk" not in desk.broker.warnings
    assert "tunewheel_monitor_checkpoints_unreadable_total 1\n" in desk.metrics_text()
    assert "monitor/shop/state/000000000008.json" in desk.files()


async def test_pairs_that_differ_are_requested_and_lie_redacted_in_the_store_until_they_are_erased(
    desk: Any,
) -> None:
    judge = {"base_url": "https://judge.example/v1", "model": "large"}
    shadow_spec = {"shadow": {"enabled": True, "max_label_changes": 1}}
    await in_production(desk, rollout=shadow_spec, evaluation={"judge": judge})
    desk.serve(
        route_of("desk-1", RouteRole.PRODUCTION, 100, "ds-1"),
        route_of("desk-2", RouteRole.SHADOW, 100, "ds-2"),
    )
    desk.step("desk-2", Stage.SHADOW)
    shadow = {"model_id": "desk-2", "role": RouteRole.SHADOW}
    for n in range(8):
        text, who = f"{MORE_BIKES[n]} ann{n}@example.com", {"customer": f"Customer {n}"}
        (first,) = desk.ask([text], output=f"Old ann{n}@example.com", **who)
        said = first.event.data.output if n < 2 else f"New  {n} bob@example.com"
        (second,) = desk.ask([text], output=said, shadow_of=first.event.data.completion_id, **who, **shadow)
        await desk.send([second, first] if n % 2 else [first, second])
        desk.revive()
    (asked,) = desk.broker.of("comparisons.requested")
    assert (asked.model_id, asked.against, asked.stage, asked.revision) == ("desk-2", "desk-1", "shadow", 1)
    assert asked.judge is not None
    assert asked.judge.model == "large"
    items = json.loads(desk.files()[asked.pairs[0]])["items"]
    assert [item["completion_id"] for item in items] == list(asked.completion_ids)
    assert len(items) == 5
    assert items[0]["output"] == "Old <EMAIL_ADDRESS>"
    assert items[0]["candidate"] == "New  2 <EMAIL_ADDRESS>"
    proof = await desk.watch.forget(erasure(customer="Customer 2"))
    assert proof.records == 1
    first, second, *_ = json.loads(desk.files()[asked.pairs[0]])["items"]
    assert first == {"completion_id": asked.completion_ids[0], "customer": None, "messages": [], "output": ""}
    assert second["candidate"]
    assert asked.completion_ids[0] not in str(desk.watch._held["desk"].state.trials)


async def test_where_texts_are_not_logged_no_pair_is_requested(desk: Any) -> None:
    await in_production(desk, rollout={"shadow": {"enabled": True}})
    desk.serve(
        route_of("desk-1", RouteRole.PRODUCTION, 100, "ds-1"),
        route_of("desk-2", RouteRole.SHADOW, 100, "ds-2"),
    )
    desk.step("desk-2", Stage.SHADOW)
    for n in range(8):
        first = desk.traffic.completion("", output=f"hash {n}", texts="hashed")
        names = {"shadow_of": first.event.data.completion_id, "model_id": "desk-2", "role": RouteRole.SHADOW}
        await desk.send([first, desk.traffic.completion("", output="other", texts="hashed", **names)])
    assert not desk.broker.of("comparisons.requested")


async def test_novelty_judges_by_the_encoder_once_the_dataset_is_encoded(desk: Any, encoder: Any) -> None:
    await in_production(desk)
    desk.encode(encoder)
    await desk.send(desk.ask(MORE_BIKES[:25]))
    assert encoder_of(desk.watch._held["desk"].state.version.detectors["novelty"]) is None
    await desk.references.encoded()
    for start in (25, 50):
        await desk.send(desk.ask(MORE_BIKES[start : start + 25]))
    desk.revive()
    await desk.send(desk.ask(tax_texts(40)))
    state = desk.watch._held["desk"].state.version.detectors["novelty"]
    assert encoder_of(state) == encoder.name
    assert sum(state["encoded"]["recent"]) + sum(state["encoded"]["window"]) >= 60, "none was dropped"
    assert set(desk.alarms) <= {"novelty", "clusters"}
    assert "May I" in desk.files()[desk.alarms["novelty"].evidence]


async def test_an_erasure_deletes_the_encoded_questions(desk: Any, encoder: Any) -> None:
    await in_production(desk)
    desk.encode(encoder)
    await desk.send(desk.ask(MORE_BIKES[:25]))
    await desk.references.encoded()
    assert await desk.store.list("monitor/desk/encodings") != []
    await desk.watch.forget(erasure(customer="C-7"))
    assert await desk.store.list("monitor/desk/encodings") == []


@pytest.mark.parametrize("by", ["customer", "source_id"])
async def test_a_request_for_labels_names_no_erased_prompt_any_more(
    desk: Any, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_production(desk)
    await desk.send([desk.traffic.completion(t, customer=f"C-{n}x") for n, t in enumerate(tax_texts(60))])
    before, publish = desk.broker.of("labels.requested")[-1], desk.broker.publish_many
    item = json.loads(desk.files()[before.prompts])["items"][0]
    gone = item["completion_id"]
    event = erasure(**{by: gone if by == "source_id" else item["customer"]})

    async def killed(_: Any) -> None:
        raise TransientError("killed")

    monkeypatch.setattr(desk.broker, "publish_many", killed)
    with pytest.raises(TransientError):
        await desk.watch.forget(event)
    monkeypatch.setattr(desk.broker, "publish_many", publish)
    desk.revive()
    for _ in range(2):
        await desk.watch.forget(event)
    after = desk.broker.of("labels.requested")[-1]
    assert after.completion_ids == tuple(name for name in before.completion_ids if name != gone)
    assert all(gone not in one.completion_ids for one in after.clusters)
    assert after.revision == before.revision + 1
    assert (before.adds_prompts, after.adds_prompts) == (True, False)


def pool(held: Any) -> list[str]:
    """Return the questions that people may be asked about."""
    return list(held.state.version.detectors["novelty"].get("asking", {"pool": ()})["pool"])


@pytest.mark.parametrize(("by", "left"), [("customer", 0), ("source_id", 11)])
async def test_an_erasure_of_a_person_leaves_no_question_that_nobody_was_asked_about_yet(
    desk: Any, by: str, left: int
) -> None:
    await in_production(desk)
    completions = [desk.traffic.completion(text, customer=f"C-{n}x") for n, text in enumerate(tax_texts(12))]
    await desk.send(completions)
    before = pool(await desk.watch.checkpoints.latest("desk"))
    assert len(before) == 12
    assert shown(desk) == []
    await desk.watch.forget(erasure(**{by: "C-3x" if by == "customer" else before[3]}))
    assert len(pool(await desk.watch.checkpoints.latest("desk"))) == left
