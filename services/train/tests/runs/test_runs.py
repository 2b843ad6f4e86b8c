from __future__ import annotations

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_testing.adapters import BASE
from tunewheel_train.errors import RunFailed
from tunewheel_train.progress import Completed
from tunewheel_train.runs.runs import (
    Result,
    completed,
    failed,
    make_adapter,
    make_manifest,
    plan_run,
    read_dataset,
)


async def planned(bench, base=BASE, **train):
    made = await bench(**train)
    return plan_run(made.manifest, made.event.manifest, base)


async def test_names_follow_from_dataset_base_and_recipe(bench):
    run = await planned(bench)
    assert run == await planned(bench)
    assert run.run_id.startswith("run-")
    assert run.model_id.startswith("helpdesk-")
    assert run.model_id.removeprefix("helpdesk-") == run.run_id.removeprefix("run-")[:12]


async def test_another_base_revision_is_another_run(bench):
    made = await bench()
    other = BASE.model_copy(update={"revision": "def"})
    runs = {plan_run(made.manifest, made.event.manifest, base).run_id for base in (BASE, other)}
    assert len(runs) == 2


async def test_another_recipe_is_another_run(bench):
    made = await bench()
    spec = made.manifest.spec
    changed = made.manifest.model_copy(
        update={"spec": spec.model_copy(update={"train": spec.train.model_copy(update={"seed": 3})})}
    )
    first = plan_run(made.manifest, made.event.manifest, BASE)
    assert first.chat_template_kwargs == spec.task.chat_template_kwargs == {}
    assert plan_run(changed, made.event.manifest, BASE).run_id != first.run_id


async def test_how_a_run_is_carried_out_is_no_part_of_its_name(bench):
    made = await bench()

    def name(**changes) -> str:
        train = made.manifest.spec.train.model_copy(update=changes)
        spec = made.manifest.spec.model_copy(update={"train": train})
        return plan_run(made.manifest.model_copy(update={"spec": spec}), made.event.manifest, BASE).run_id

    assert name(priority=9, keep_checkpoints=5, on_out_of_memory="fail") == name()
    assert name(patience=1) != name()


async def test_a_reward_is_part_of_the_name_with_all_that_scores_answers(bench, monkeypatch):
    from tunewheel_train.runs import runs

    made = await bench()

    def name(reward: bool, metric: str = "rouge_l", minimum: float = 0.1, **task) -> str:
        asked = made.manifest.spec.model_dump(mode="json")
        asked["criteria"] = [{"metric": metric, "minimum": minimum}]
        asked["task"] |= task
        asked["train"] |= {"reward": {}} if reward else {}
        spec = ProjectSpec.model_validate(asked)
        return plan_run(made.manifest.model_copy(update={"spec": spec}), made.event.manifest, BASE).run_id

    glossary = {"glossary": {"forbidden": ["cheap"]}}
    assert name(True, minimum=0.2) == name(True)
    assert len({name(True), name(True, "rouge_1"), name(True, **glossary), name(False)}) == 4
    plain, rewarded = name(False), name(True)
    monkeypatch.setattr(runs, "SCORING", runs.SCORING + 1)
    assert name(True) != rewarded
    assert name(False) == name(False, "rouge_1") == plain


async def test_the_completed_event_follows_from_the_manifest_alone(bench):
    made = await bench(method="qlora")
    run = plan_run(made.manifest, made.event.manifest, BASE)
    outcome = Completed(
        steps=6, tokens=900, wall_seconds=1.5, dtype="float32", metrics={"final_loss": 0.5}, versions={}
    )
    adapter = make_adapter(run, run.recipe, run.adapter_path, ())
    manifest = make_manifest(run, adapter, Result(outcome, run.recipe))
    event = completed(manifest, made.event.manifest)
    assert (event.final_loss, event.tokens, event.wall_seconds) == (0.5, 900, 1.5)
    assert event.adapter.quantization == "nf4"
    assert event.event_id() == completed(manifest, made.event.manifest).event_id()


async def test_a_failure_says_how_far_it_came(bench):
    event = failed(await planned(bench), RunFailed(field="(run)", reason="x", step=3, total_steps=12))
    assert (event.step, event.completed) == (3, 0.25)


async def test_a_manifest_of_another_dataset_is_refused(bench):
    made = await bench()
    event = made.event.model_copy(update={"dataset_id": "ds-other"})
    with pytest.raises(InvalidEvent, match="send the manifest of ds-other"):
        read_dataset(event, made.manifest.model_dump_json().encode())


async def test_criteria_that_changed_after_they_were_hashed_are_refused(bench):
    made = await bench()
    softened = made.manifest.model_dump(mode="json")
    softened["spec"]["criteria"][0]["maximum"] = 1e9
    changed = made.manifest.model_validate(softened)
    with pytest.raises(InvalidEvent, match="build a new version"):
        read_dataset(made.event, changed.model_dump_json().encode())


async def test_a_manifest_that_is_none_is_refused(bench):
    made = await bench()
    with pytest.raises(InvalidEvent, match="JSON"):
        read_dataset(made.event, b"{")
