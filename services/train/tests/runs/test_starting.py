from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest
from tunewheel_testing.adapters import BASE, OTHER_BASE
from tunewheel_train.errors import RunFailed
from tunewheel_train.runs.runs import plan_run
from tunewheel_train.runs.starting import decide_start, decided, fetch_start

MODEL = "helpdesk-0123456789ab"


async def planned(bench, **train):
    made = await bench(**({"continue_from": MODEL} | train))
    return made.store, plan_run(made.manifest, made.event.manifest, BASE)


@pytest.mark.parametrize("beside", ["", ".fedcba987654"])
async def test_the_adapters_files_are_brought_from_where_its_run_put_them(
    bench, store_run, tmp_path: Path, beside: str
):
    store, run = await planned(bench)
    if beside:  # what another worker began lies at the usual place
        await store.put(f"adapters/{MODEL}/adapter_model.safetensors", b"of a worker that died")
    await store_run(store, MODEL, beside=beside)
    await store_run(store, "helpdesk-0123456789ac")
    directory = await fetch_start(store, run, tmp_path / "start")
    assert directory == tmp_path / "start"
    assert sorted(path.name for path in directory.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "tunewheel.json",
    ]  # fmt: skip
    assert (directory / "adapter_model.safetensors").read_bytes() == b"weights"


async def test_a_run_that_starts_anew_brings_nothing(bench, tmp_path: Path):
    store, run = await planned(bench, continue_from=None)
    assert await fetch_start(store, run, tmp_path / "start") is None
    assert not (tmp_path / "start").exists()


@pytest.mark.parametrize(
    ("told", "train", "words"),
    [
        (
            {"base": OTHER_BASE},
            {},
            f"was trained on org/Other at r, this run's base is {BASE.name} at {BASE.revision}",
        ),
        ({"quantization": "nf4"}, {}, "trained on a base that is nf4; train by method qlora"),
        ({}, {"method": "qlora"}, "trained on a base that is unquantised; train by method lora"),
        ({"method": "full"}, {}, "is a whole model and no adapter"),
        (None, {}, "is not in the store; name the model_id of a completed run"),
        ({}, {"continue_from": "helpdesk-0123"}, "is not in the store"),
        ({}, {"continue_from": "other-0123456789ab"}, "is no model of helpdesk"),
    ],
)
async def test_an_adapter_that_does_not_belong_is_refused(
    bench, store_run, tmp_path: Path, told, train, words
):
    store, run = await planned(bench, **train)
    if told is not None:
        await store_run(store, MODEL, **told)
    with pytest.raises(RunFailed, match=words) as caught:
        await fetch_start(store, run, tmp_path / "start")
    assert caught.value.field == "train.continue_from"


async def test_another_projects_adapter_is_refused_though_its_name_begins_alike(
    bench, store_run, tmp_path: Path
):
    model = "helpdesk-eu-0123456789ab"
    store, run = await planned(bench, continue_from=model)
    await store_run(store, model)
    with pytest.raises(RunFailed, match=f"{model} is a model of helpdesk-eu; name one of helpdesk") as caught:
        await fetch_start(store, run, tmp_path / "start")
    assert caught.value.field == "train.continue_from"
    assert not (tmp_path / "start").exists()


@pytest.mark.parametrize("damage", [b"other weights", None])
async def test_a_damaged_adapter_is_refused_and_nothing_is_left_of_it(
    bench, store_run, tmp_path: Path, damage: bytes | None
):
    store, run = await planned(bench)
    await store_run(store, MODEL)
    weights = tmp_path / "store" / "adapters" / MODEL / "adapter_model.safetensors"
    weights.unlink() if damage is None else weights.write_bytes(damage)
    with pytest.raises(RunFailed, match=r"is damaged in the store: .*restore the file"):
        await fetch_start(store, run, tmp_path / "start")
    assert not (tmp_path / "start").exists()


@pytest.fixture
def continuing(bench, store_run, conversation_of):
    """A version of ``rows`` that continues from the champion, which learned from ``learnt`` of them. Keywords
    change the champion's recipe, or its version's task."""

    async def make(learnt=range(16), rows=range(24), prompt: str = "Answer.", **recipe):
        made = await bench(continue_from="champion")
        store, manifest = made.store, made.manifest
        refs = [
            await store.put(
                f"datasets/{name}/rows.parquet", parquet_of(conversation_of(at) for at in numbers)
            )
            for name, numbers in (("ds-new", rows), ("ds-old", learnt))
        ]
        task = manifest.spec.task.model_copy(update={"system_prompt": prompt})
        earlier = manifest.model_copy(
            update={"train": refs[1], "spec": manifest.spec.model_copy(update={"task": task})}
        )
        dataset = await store.put("datasets/ds-old/manifest.json", earlier.model_dump_json().encode())
        run = manifest.spec.train.model_copy(update={"continue_from": None} | recipe)
        await store_run(store, MODEL, of={"dataset": dataset, "recipe": run})
        return store, manifest.model_copy(update={"dataset_id": "ds-new", "train": refs[0]}), earlier

    return make


def parquet_of(rows) -> bytes:
    file = io.BytesIO()
    pl.DataFrame(list(rows)).write_parquet(file)
    return file.getvalue()


def serving(model_id: str | None):
    """What is in production of any project."""

    async def champion_of(project: str) -> str | None:
        return model_id

    return champion_of


async def nobody_asks(project: str) -> str | None:
    raise AssertionError("the champion does not matter")


async def test_a_run_continues_from_the_champion_and_a_later_champion_changes_nothing(continuing):
    store, manifest, earlier = await continuing()
    start = await decide_start(store, manifest, BASE, serving(MODEL))
    assert (start.model_id, start.learnt, start.reason) == (MODEL, earlier.train, None)
    assert await decide_start(store, manifest, BASE, serving(None)) == start
    assert await decide_start(store, manifest, BASE, nobody_asks) == start == await decided(store, manifest)
    names = {plan_run(manifest, manifest.train, BASE, None, one).run_id for one in (start, None)}
    assert len(names) == 2


NEWER_BASE = BASE.model_copy(update={"revision": "abd"})


@pytest.mark.parametrize(
    ("changes", "champion", "base", "words"),
    [
        ({}, None, BASE, "no model is in production"),
        ({}, "helpdesk-0123456789ac", BASE, "no run of it is in the store"),
        ({}, MODEL, NEWER_BASE, "this run's base is org/Tiny-Base at abd"),
        ({"rank": 8, "alpha": 16}, MODEL, BASE, "train.rank, train.alpha changed"),
        ({"target_modules": ("q_proj",)}, MODEL, BASE, "train.target_modules changed"),
        ({"prompt": "Answer in French."}, MODEL, BASE, "task changed"),
        ({"learnt": range(8, 30)}, MODEL, BASE, "6 of 22 rows that helpdesk-0123456789ab learned from"),
        ({"learnt": range(24)}, MODEL, BASE, "learned from all rows"),
    ],
)
async def test_a_champion_that_may_not_be_continued_is_left_with_the_reason(
    continuing, changes, champion, base, words
):
    store, manifest, _ = await continuing(**changes)
    start = await decide_start(store, manifest, base, serving(champion))
    assert (start.model_id, start.learnt) == (None, None)
    assert words in start.reason


async def test_a_recipe_that_names_no_champion_decides_nothing(bench):
    made = await bench()
    assert await decide_start(made.store, made.manifest, BASE, nobody_asks) is None
    assert await decided(made.store, made.manifest) is None
