from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.evaluation_plan import Champion, first_plan_path
from tunewheel_eval import plan as planning
from tunewheel_eval.plan import champion_of, make_plan, pin, pin_later, read_manifest, read_plan, read_plans
from tunewheel_runtime.store import ObjectStore

SET = ArtifactRef(path="regression/set.jsonl", sha256="1" * 64, size_bytes=1)
Serving = Callable[..., ServingDesired]
MakeRun = Callable[..., Awaitable[TrainCompleted]]


async def test_a_plan_is_named_by_all_that_decides_its_scorecard(
    make_run: MakeRun, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, other = await make_run(), await make_run(run_id="run-2")
    manifest = await read_manifest(store, event.dataset)
    other_set = SET.model_copy(update={"sha256": "2" * 64})
    others = [Criterion.model_validate({"metric": "valid_output", "minimum": 0.5})]
    task = manifest.spec.task.model_copy(update={"system_prompt": "Be brief."})
    prompted = with_spec(manifest, task=task)
    decoding = manifest.spec.evaluation.decoding.model_copy(update={"temperature": 0.5})
    sampled = with_spec(
        manifest, evaluation=manifest.spec.evaluation.model_copy(update={"decoding": decoding})
    )
    plan = make_plan(event, manifest, None, regression=SET)
    champion = Champion(adapter=other.adapter)
    ids = {
        plan.scorecard_id,
        make_plan(event, manifest, champion, regression=SET).scorecard_id,
        make_plan(other, manifest, None, regression=SET).scorecard_id,
        make_plan(event, manifest, None, regression=other_set).scorecard_id,
        make_plan(event, manifest, None, regression=SET, criteria=others).scorecard_id,
        make_plan(event, prompted, None, regression=SET).scorecard_id,
        make_plan(event, sampled, None, regression=SET).scorecard_id,
        make_plan(event, manifest, None, regression=SET, precision="bfloat16").scorecard_id,
        make_plan(event, manifest, champion, regression=SET, spent=0.04).scorecard_id,
        make_plan(event, manifest, champion, regression=SET, spent=0.05).scorecard_id,
    }
    assert len(ids) == 10
    assert make_plan(event, manifest, None, regression=SET, spent=0.04) == plan, "there is no margin"
    assert "spent" not in plan.model_dump(mode="json")
    assert plan.evaluation_id is not None
    with monkeypatch.context() as patched:
        patched.setattr(planning, "SCORING", planning.SCORING + 1)
        assert make_plan(event, manifest, None, regression=SET).scorecard_id not in ids
    later = event.model_copy(update={"final_loss": 0.123, "wall_seconds": 9.0})
    assert make_plan(later, manifest, None, regression=SET) == plan


def with_spec(manifest: DatasetManifest, **changes: Any) -> DatasetManifest:
    return manifest.model_copy(update={"spec": manifest.spec.model_copy(update=changes)})


async def test_the_run_s_own_criteria_are_not_others(make_run: MakeRun, store: ObjectStore) -> None:
    event = await make_run()
    manifest = await read_manifest(store, event.dataset)
    plain = make_plan(event, manifest, None, regression=SET)
    assert make_plan(event, manifest, None, regression=SET, criteria=manifest.spec.criteria) == plain


async def test_later_plans_lie_beside_the_first(make_run: MakeRun, store: ObjectStore) -> None:
    event, newer = await make_run(), await make_run(run_id="run-2")
    manifest = await read_manifest(store, event.dataset)
    first = await pin(store, make_plan(event, manifest, None, regression=SET))
    made = make_plan(first, manifest, Champion(adapter=newer.adapter), regression=SET)
    later = await pin_later(store, made)
    assert await pin_later(store, make_plan(first, manifest, None, regression=SET)) == first
    assert await read_plans(store, event.run_id) == [first, later]
    for plan in (first, later):
        assert await read_plan(store, event.run_id, plan.evaluation_id) == plan
    assert await read_plan(store, event.run_id, "evaluation-none") is None


async def test_a_plan_of_an_earlier_release_is_read(make_run: MakeRun, store: ObjectStore) -> None:
    event = await make_run()
    manifest = await read_manifest(store, event.dataset)
    plan = make_plan(event, manifest, None, regression=SET)
    old = plan.model_dump(mode="json", exclude={"evaluation_id", "criteria", "regression"})
    old["scorecard_id"] = "scorecard-old"
    await store.put(first_plan_path(event.run_id), json.dumps(old).encode())
    pinned = await pin(store, plan)
    assert (pinned.scorecard_id, pinned.evaluation_id, pinned.regression) == ("scorecard-old", None, None)


async def test_champion_is_pinned_by_the_first_delivery(make_run: MakeRun, store: ObjectStore) -> None:
    event, newer = await make_run(), await make_run(run_id="run-2")
    manifest = await read_manifest(store, event.dataset)
    first = await pin(store, make_plan(event, manifest, None, regression=SET))
    again = await pin(store, make_plan(event, manifest, Champion(adapter=newer.adapter), regression=SET))
    assert again == first
    assert await read_plan(store, event.run_id) == first
    assert await read_plan(store, "run-none") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("criteria_sha256", "0" * 64), ("dataset_id", "ds-other"), ("project", "other")],
)
async def test_event_that_contradicts_its_manifest_is_refused(
    make_run: MakeRun, store: ObjectStore, field: str, value: str
) -> None:
    event = (await make_run()).model_copy(update={field: value})
    manifest = await read_manifest(store, event.dataset)
    with pytest.raises(InvalidEvent, match="manifest says") as caught:
        make_plan(event, manifest, None, regression=SET)
    assert caught.value.field == field


async def test_criteria_changed_inside_the_manifest_are_noticed(
    make_run: MakeRun, store: ObjectStore
) -> None:
    event = await make_run(criteria_sha256="0" * 64)
    manifest = await read_manifest(store, event.dataset)
    tampered = manifest.model_copy(update={"criteria_sha256": "0" * 64})
    with pytest.raises(InvalidEvent) as caught:
        make_plan(event, tampered, None, regression=SET)
    assert caught.value.field == "dataset.spec.criteria"


async def test_reference_to_no_manifest_is_refused(make_run: MakeRun, store: ObjectStore) -> None:
    event = await make_run()
    missing = ArtifactRef(path="datasets/none/manifest.json", sha256="0" * 64, size_bytes=1)
    corrupt = event.dataset.model_copy(update={"sha256": "0" * 64})
    text = await store.put("datasets/text/manifest.json", b'{"dataset_id": "x"}')
    for ref, field in ((missing, "dataset"), (corrupt, "dataset"), (text, "dataset.project")):
        with pytest.raises(InvalidEvent) as caught:
            await read_manifest(store, ref)
        assert caught.value.field == field


async def test_champion_is_the_adapter_in_production(make_run: MakeRun, serving: Serving) -> None:
    event = await make_run()
    found = champion_of(serving(event), candidate_id="other")
    assert found == Champion(adapter=event.adapter, dataset_id="d")
    assert champion_of(serving(event), candidate_id=event.adapter.model_id) is None
    assert champion_of(serving(event, role="canary"), candidate_id="other") is None
    assert champion_of(serving(event, bare=True), candidate_id="other") is None
    assert champion_of(None, candidate_id="other") is None
