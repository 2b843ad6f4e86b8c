from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.formats.dataset import ChatExample, DatasetManifest
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_eval.unseen import unseen
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.datasets import put_dataset

SPEC = ProjectSpec.model_validate(
    {
        "project": "desk",
        "base_model": "tiny",
        "task": {"system_prompt": "s"},
        "criteria": [{"metric": "perplexity", "minimum": 1.0}],
    }
)
STRANGER = {"example_id": "ex-x", "group": "g-x", "record_ids": ("rec-x",)}


async def version(store: ObjectStore, name: str, *train: ChatExample) -> DatasetManifest:
    rows = [one.model_dump(mode="json") for one in train]
    manifest, _ = await put_dataset(store, SPEC, dataset_id=name, train=rows)
    return manifest


def asks(example: ChatExample, text: str) -> tuple[Any, ...]:
    return tuple(
        turn.model_copy(update={"content": text}) if turn.role == "user" else turn
        for turn in example.messages
    )


async def test_what_the_run_trained_on_is_left_out_however_it_is_known(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    other = asks(examples[0], "Something else entirely")
    same = {
        "record": examples[0].model_copy(update=STRANGER | {"record_ids": ("rec-0",), "messages": other}),
        "customer": examples[1].model_copy(update=STRANGER | {"group": "g-1", "messages": other}),
        "question": examples[2].model_copy(
            update=STRANGER | {"messages": asks(examples[2], "the parcel  has NOT arrived")}
        ),
    }
    own = await version(store, "ds-1", *same.values())
    assert await unseen(store, examples, own=own, champion=None) == examples[3:]


async def test_what_is_one_observation_with_a_trained_row_goes_with_it(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    """A customer's other row, and a question that is nearly the same of a third customer."""
    customer = examples[1].model_copy(update={"group": examples[0].group})
    alike = examples[2].model_copy(update={"messages": asks(examples[2], "Where is my parcel 17?")})
    own = await version(store, "ds-1", examples[0])
    rows = (examples[0], customer, alike, *examples[3:])
    assert await unseen(store, rows, own=own, champion=None) == examples[3:]


async def test_what_the_champion_trained_on_is_left_out_where_it_can_be_known(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    own = await version(store, "ds-1", examples[5])
    await version(store, "ds-2", examples[4])
    assert await unseen(store, examples, own=own, champion="ds-2") == examples[:4]
    await store.delete(["datasets/ds-2/train.parquet"])
    assert await unseen(store, examples, own=own, champion="ds-2") == examples[:5]
    assert await unseen(store, examples, own=own, champion="ds-gone") == examples[:5]


async def test_without_the_run_s_training_rows_nobody_can_say_what_it_saw(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    own = await version(store, "ds-1", examples[5])
    await store.delete(["datasets/ds-1/train.parquet"])
    with pytest.raises(InvalidEvent) as caught:
        await unseen(store, examples, own=own, champion=None)
    assert caught.value.field == "dataset.train"
