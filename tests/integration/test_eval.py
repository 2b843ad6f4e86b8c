"""Eval on real Kafka, with its real measuring process: verdicts, reviews, redelivery, bad input.

Eval is killed in ``chaos/test_loop``, its measuring process beside the service.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.evaluation import EvalRequested, ReviewSubmitted
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_eval.main import make_app
from tunewheel_eval.settings import Settings
from tunewheel_runtime.service import Service
from tunewheel_testing.judging import Judged, RequestRefused, judge_again

from .bus import Bus, running
from .evaluations import Ground, make_ground
from .fork_server import forked

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 400.0
"""Each evaluation starts a process that imports torch: seconds alone, minutes on a busy machine."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return make_ground(tmp_path_factory.mktemp("eval"))


@pytest.fixture
def settings(kafka: str, shared: Ground, tmp_path: Path) -> Settings:
    items = [
        {"item_id": "a", "kind": "k", "prompt": "The sky is", "choices": ["blue", "loud"],
         "answer": "blue", "match": "choice"},
    ]  # fmt: skip
    regression = tmp_path / "regression.jsonl"
    regression.write_text("".join(json.dumps(item) + "\n" for item in items))
    return Settings(
        bootstrap_servers=kafka, store_url=shared.store.url, cache_dir=tmp_path / "cache",
        session_timeout_ms=30_000, eval_regression_set=regression, eval_dtype="float32", eval_threads=1,
        eval_batch_size=1,
    )  # fmt: skip


@pytest.fixture
def service(settings: Settings) -> Service:
    return make_app(settings, worker=forked("tunewheel_eval.worker"))


def review(
    run: Envelope[TrainCompleted], verdict: str, *, reviewer: str = "ada"
) -> Envelope[ReviewSubmitted]:
    values = {"project": run.project, "run_id": run.data.run_id, "reviewer": reviewer, "verdict": verdict}
    return new_event(ReviewSubmitted.model_validate(values), source="/test")


async def test_a_pass_waits_for_a_person_and_a_rejection_is_final(
    service: Service, shared: Ground, project: str
) -> None:
    asked = {"required": True}
    good, bad = [await shared.trained(project, name, review=asked) for name in ("good", "bad")]
    ours = lambda event: event.project == project  # noqa: E731
    async with Bus(service.settings.bootstrap_servers) as bus, running(service):
        await bus.publish(good, bad)
        found = await bus.collect(topics.REVIEW_REQUESTED, 2, where=ours, patience=PATIENCE_SECONDS)
        # Two runs may lie in two partitions: either may be judged first.
        requests = {one.data.run_id: one for one in found}
        assert {run_id: one.causation_id for run_id, one in requests.items()} == {
            good.data.run_id: good.id, bad.data.run_id: bad.id,
        }  # fmt: skip
        approval, rejection = review(good, "approved"), review(bad, "rejected")
        await bus.publish(approval, rejection, review(bad, "approved", reviewer="bob"))
        (passed,) = await bus.collect(topics.EVAL_PASSED, 1, where=ours, patience=PATIENCE_SECONDS)
        (failed,) = await bus.collect(topics.EVAL_FAILED, 1, where=ours, patience=PATIENCE_SECONDS)
        (letter,) = await bus.dead_letters("review.submitted", 1, about=project)
    assert (passed.data.run_id, passed.data.reviewed_by) == (good.data.run_id, "ada")
    assert passed.data.scorecard == requests[good.data.run_id].data.scorecard
    assert passed.causation_id == approval.id
    assert (failed.data.run_id, failed.data.reasons) == (bad.data.run_id, ("rejected by ada",))
    assert letter.field == "verdict"
    assert "ada rejected" in letter.reason


async def test_redelivery_gives_the_same_verdict_and_a_request_one_against_the_champion_of_now(
    service: Service, shared: Ground, project: str
) -> None:
    run, other = await shared.trained(project, "one"), await shared.trained(project, "two")
    ours = lambda event: event.project == project  # noqa: E731
    async with Bus(service.settings.bootstrap_servers) as bus, running(service):
        await bus.publish(run)
        (first,) = await bus.collect(topics.EVAL_PASSED, 1, where=ours, patience=PATIENCE_SECONDS)
        await bus.publish(production(other), run)
        again = (await bus.collect(topics.EVAL_PASSED, 2, where=ours, patience=PATIENCE_SECONDS))[1]
        assert (again.id, again.data) == (first.id, first.data)
        # A new run, though, meets that champion.
        await bus.publish(await shared.trained(project, "three"))
        third = (await bus.collect(topics.EVAL_PASSED, 3, where=ours, patience=PATIENCE_SECONDS))[2]
        ask = partial(again_by_command, service, shared, run)
        met = await ask(request="once more")
        fourth = (await bus.collect(topics.EVAL_PASSED, 4, where=ours, patience=PATIENCE_SECONDS))[3]
        informed = await ask(request="by words", criteria=(Criterion(metric="rouge_l", minimum=0.9),))
        with pytest.raises(RequestRefused, match="run_id: 'run-of-nobody' names no evaluated run"):
            await ask(request="nobody's", run_id="run-of-nobody")
        verdicts = await bus.collect(topics.EVAL_PASSED, 4, where=ours)
    roles = {one.role.value: one.model_id for one in third.data.contestants}
    assert roles["champion"] == other.data.adapter.model_id
    assert set(roles) == {"base", "candidate", "champion"}
    assert fourth.data.evaluation_id == met.plan.evaluation_id != first.data.evaluation_id
    assert met.plan.champion is not None
    assert met.plan.champion.adapter.model_id == other.data.adapter.model_id
    assert [check.criterion.metric for check in informed.scorecard.checks] == ["rouge_l"]
    assert informed.plan.evaluation_id not in {one.data.evaluation_id for one in verdicts}


async def again_by_command(
    service: Service, ground: Ground, run: Envelope[TrainCompleted], **changes: Any
) -> Judged:
    values = {"project": run.project, "run_id": run.data.run_id, **changes}
    request = new_event(EvalRequested.model_validate(values), source="/test")
    options = {"bootstrap_servers": service.settings.bootstrap_servers}
    judged = await judge_again(options, ground.store, request, timeout_seconds=PATIENCE_SECONDS)
    assert judged is not None
    return judged


def production(run: Envelope[TrainCompleted]) -> Envelope[ServingDesired]:
    adapter = run.data.adapter
    route = {
        "model_id": adapter.model_id, "role": "production", "percent": 100, "adapter": adapter,
        "dataset_id": run.data.dataset_id,
    }  # fmt: skip
    values = {
        "project": run.project, "generation": 1, "base": adapter.base, "system_prompt": "s",
        "desired": {"routes": [route]},
    }  # fmt: skip
    return new_event(ServingDesired.model_validate(values), source="/test")


async def test_bad_input_is_named_and_what_follows_still_flows(
    service: Service, shared: Ground, project: str
) -> None:
    changed = await shared.trained(project, "changed")
    changed = new_event(
        changed.data.model_copy(update={"criteria_sha256": "0" * 64, "run_id": "run-changed"}), source="/test"
    )
    incomplete = await shared.trained(project, "incomplete", method="full")
    good = await shared.trained(project, "good")
    ours = lambda event: event.project == project  # noqa: E731
    async with Bus(service.settings.bootstrap_servers) as bus, running(service):
        await bus.publish(changed, incomplete, good)
        (failed,) = await bus.collect(topics.EVAL_FAILED, 1, where=ours, patience=PATIENCE_SECONDS)
        (passed,) = await bus.collect(topics.EVAL_PASSED, 1, where=ours, patience=PATIENCE_SECONDS)
        (letter,) = await bus.dead_letters("train.completed", 1, about=project)
    assert letter.field == "criteria_sha256"
    assert "fixed before training" in letter.reason
    assert failed.data.field == "adapter.files"
    assert "lacks config.json" in failed.data.reasons[0]
    assert passed.data.run_id == good.data.run_id
