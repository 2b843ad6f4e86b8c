from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_eval.plan import Champion, champion_of, make_plan, pin, read_manifest, read_plan
from tunewheel_runtime.store import ObjectStore

MakeRun = Callable[..., Awaitable[TrainCompleted]]


def serving(event: TrainCompleted, *, role: str = "production", bare: bool = False) -> ServingDesired:
    adapter = None if bare else event.adapter
    answering: list[dict[str, Any]] = [
        {
            "model_id": event.adapter.model_id,
            "role": role,
            "percent": 100,
            "adapter": adapter,
            "dataset_id": "d",
        }
    ]
    return ServingDesired.model_validate(
        {
            "project": event.project,
            "generation": 3,
            "base": event.adapter.base,
            "system_prompt": "s",
            "desired": {"routes": answering},
        }
    )


async def test_plan_is_named_by_run_champion_and_criteria(make_run: MakeRun, store: ObjectStore) -> None:
    event, other = await make_run(), await make_run(run_id="run-2")
    manifest = await read_manifest(store, event.dataset)
    plan = make_plan(event, manifest, None)
    champion = Champion(adapter=other.adapter)
    ids = {
        plan.scorecard_id,
        make_plan(event, manifest, champion).scorecard_id,
        make_plan(other, manifest, None).scorecard_id,
    }
    assert len(ids) == 3
    later = event.model_copy(update={"final_loss": 0.123, "wall_seconds": 9.0})
    assert make_plan(later, manifest, None) == plan


async def test_champion_is_pinned_by_the_first_delivery(make_run: MakeRun, store: ObjectStore) -> None:
    event, newer = await make_run(), await make_run(run_id="run-2")
    manifest = await read_manifest(store, event.dataset)
    first = await pin(store, make_plan(event, manifest, None))
    again = await pin(store, make_plan(event, manifest, Champion(adapter=newer.adapter)))
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
        make_plan(event, manifest, None)
    assert caught.value.field == field


async def test_criteria_changed_inside_the_manifest_are_noticed(
    make_run: MakeRun, store: ObjectStore
) -> None:
    event = await make_run(criteria_sha256="0" * 64)
    manifest = await read_manifest(store, event.dataset)
    tampered = manifest.model_copy(update={"criteria_sha256": "0" * 64})
    with pytest.raises(InvalidEvent) as caught:
        make_plan(event, tampered, None)
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


async def test_champion_is_the_adapter_in_production(make_run: MakeRun) -> None:
    event = await make_run()
    found = champion_of(serving(event), candidate_id="other")
    assert found == Champion(adapter=event.adapter, dataset_id="d")
    assert champion_of(serving(event), candidate_id=event.adapter.model_id) is None
    assert champion_of(serving(event, role="canary"), candidate_id="other") is None
    assert champion_of(serving(event, bare=True), candidate_id="other") is None
    assert champion_of(None, candidate_id="other") is None
