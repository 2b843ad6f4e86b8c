"""Dataset versions over the control API: what they hold, their rows, and how two of them differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tunewheel_contracts.formats.dataset import ChatExample, DatasetManifest, PreferencePair
from tunewheel_contracts.formats.erasure import ErasureFinding
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_testing.datasets import parquet, put_dataset
from tunewheel_testing.story import example


def chat(number: int, *, answer: str = "an answer", label: str = "bell") -> dict[str, Any]:
    turns = [("system", "Help."), ("user", f"Question {number}?"), ("assistant", answer)]
    messages = [{"role": role, "content": content} for role, content in turns]
    row = {"example_id": f"ex-{number}-{answer}", "messages": messages, "label": label, "group": f"g{number}"}
    return ChatExample.model_validate(row | {"trust": "expert", "record_ids": [f"rec-{number}"]}).model_dump(
        mode="json"
    )


@pytest.fixture
def put(state: Any, desk: Any, store: Any) -> Any:
    """Store a version and tell of it."""

    async def put(name: str, train: Any, holdout: Any, **changes: Any) -> ProjectSpec:
        pairs = [
            PreferencePair.model_validate(example("preference-pair", "correction")).model_dump(mode="json")
        ]
        ref = await store.put(f"datasets/{name}/preferences.parquet", parquet(pairs))
        found = await put_dataset(
            store, desk.spec(), dataset_id=name, train=train, holdout=holdout, preferences=ref
        )
        desk.dataset_id = name
        told = desk.versioned().data.model_dump() | {"manifest": found[1], "reason": "count"} | changes
        state.apply(desk.say("dataset.versioned", **told))
        return found[0].spec

    return put


@pytest.fixture
async def versions(put: Any) -> None:
    await put("ds-one", [chat(n) for n in range(4)], [chat(9)])
    changed = [chat(0), chat(1, answer="another answer"), chat(5, label="horn")]
    await put("ds-two", changed, [chat(9), chat(2)], reason="drift")


def _erase(desk: Any, ref: Any, *, deleted: tuple[str, ...] = ()) -> Any:
    versions = {"dataset_ids": ("ds-one",), "deleted_dataset_ids": deleted, "finding": ref}
    return desk.say(
        "erasure.completed", erasure_id="L", customer="C", requested_by="m", erased_by="curate", records=1,
        completed_at="2026-01-02T00:00:00Z", **versions,
    )  # fmt: skip


async def test_a_version_tells_its_manifest_labels_and_funnel(versions: None, ask: Any):
    found = (await ask("/projects/desk/datasets/latest")).json()
    assert (found["dataset_id"], found["reason"]) == ("ds-two", "drift")
    assert found["labels"] == {"bell": {"train": 2, "holdout": 2}, "horn": {"train": 1, "holdout": 0}}
    assert found["funnel"][0]["reasons"] == {"exact": 10}
    assert found["manifest"]["spec"]["project"] == "desk"
    assert found["power"] is None


@pytest.mark.parametrize("unlabelled", ["train", "holdout", "both"])
async def test_rows_without_a_column_of_labels_have_none(put: Any, ask: Any, unlabelled: str):
    def rows(split: str, *numbers: int) -> list[dict[str, Any]]:
        left_out = "label" if unlabelled in (split, "both") else ""
        return [{name: cell for name, cell in chat(n).items() if name != left_out} for n in numbers]

    await put("ds-one", [chat(0)], [chat(9)])
    await put("ds-two", rows("train", 0, 1), rows("holdout", 9))
    train, holdout = ({"train": 0, "holdout": 1}, {"train": 2, "holdout": 0})
    found = await ask("/projects/desk/datasets/ds-two")
    assert found.json()["labels"] == {"train": {"bell": train}, "holdout": {"bell": holdout}}.get(
        unlabelled, {}
    )
    difference = (await ask("/projects/desk/datasets/ds-one/diff/ds-two")).json()
    assert difference["added"] == {"train": 1}
    assert difference["labels"] == {"bell": [1, 2 if unlabelled == "holdout" else None]}
    for split, name in (("train", "ex-0-an answer"), ("holdout", "ex-9-an answer")):
        label = None if unlabelled in (split, "both") else "bell"
        assert (await ask(f"/projects/desk/datasets/ds-two/rows/{name}")).json()["label"] == label
        page = (await ask("/projects/desk/datasets/ds-two/rows", split=split, label="bell")).json()
        assert bool(page["total"]) == bool(label)


async def test_what_the_criteria_can_show_is_simulated_on_demand(versions: None, ask: Any):
    power = (await ask("/projects/desk/datasets/ds-one", power=True)).json()["power"]
    assert (power["rows"], power["customers"]) == (1, 1)
    assert power["chances"]


async def test_versions_are_listed_newest_first_and_filtered_by_reason(versions: None, ask: Any):
    page = (await ask("/projects/desk/datasets")).json()
    assert [one["dataset_id"] for one in page["items"]] == ["ds-two", "ds-one"]
    page = (await ask("/projects/desk/datasets", reason="count")).json()
    assert [one["dataset_id"] for one in page["items"]] == ["ds-one"]


async def test_rows_come_in_pages_of_every_split(versions: None, ask: Any):
    first = (await ask("/projects/desk/datasets/ds-one/rows", limit=3)).json()
    rest = (await ask("/projects/desk/datasets/ds-one/rows", limit=3, after=first["next"])).json()
    shown = [row["row_id"] for row in (*first["items"], *rest["items"])]
    assert (shown, rest["next"], rest["total"]) == ([f"ex-{n}-an answer" for n in range(4)], None, 4)
    (pair,) = (await ask("/projects/desk/datasets/ds-one/rows", split="preferences")).json()["items"]
    assert pair["chosen"] != pair["rejected"]
    for query, field in (({"split": "negatives"}, "split"), ({"after": "x"}, "after")):
        answer = await ask("/projects/desk/datasets/ds-one/rows", **query)
        assert answer.json()["error"]["param"] == field


async def test_rows_are_searched_by_text_label_and_source(versions: None, ask: Any):
    path = "/projects/desk/datasets/ds-two/rows"
    for query, shown in (
        ({"text": "QUESTION 1"}, ["ex-1-another answer"]), ({"text": "another"}, ["ex-1-another answer"]),
        ({"label": "horn"}, ["ex-5-an answer"]), ({"label": "horn", "text": "question 0"}, []),
        ({"text": ".*"}, []), ({"source": "ticket"}, []),
    ):  # fmt: skip
        page = (await ask(path, **query)).json()
        assert [row["row_id"] for row in page["items"]] == shown, query
        assert page["total"] == len(shown)
    pairs = (await ask("/projects/desk/datasets/ds-one/rows", split="preferences")).json()["items"]
    word = pairs[0]["rejected"].split()[0].upper()
    found = await ask("/projects/desk/datasets/ds-one/rows", split="preferences", text=word)
    assert found.json()["items"] == pairs


async def test_a_row_is_found_in_whichever_split_it_is(versions: None, ask: Any):
    for name, split in (("ex-1-an answer", "train"), ("ex-9-an answer", "holdout")):
        row = (await ask(f"/projects/desk/datasets/ds-one/rows/{name}")).json()
        assert (row["row_id"], row["split"]) == (name, split)
    for path in ("rows/ex-none", "rows/ex-none/tokens"):
        answer = await ask(f"/projects/desk/datasets/ds-one/{path}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "row_id")
    answer = await ask("/projects/desk/datasets/ds-one/rows/ex-1-an answer/tokens")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "dataset_id"), "no tokenizer"


async def test_dropped_records_are_listed_by_stage_and_reason(put: Any, store: Any, state: Any, ask: Any):
    fates = [
        {"record_id": f"rec-{n}", "kind": "ticket", "stage": stage, "reason": reason}
        for n, (stage, reason) in enumerate([(None, None), ("duplicates", "exact"), ("cleaning", "empty")])
    ]
    await put("ds-three", [chat(0)], [chat(9)])
    assert (await ask("/projects/desk/datasets/ds-three/dropped")).json()["total"] == 0
    made = state.projects["desk"].datasets["ds-three"].data
    manifest = DatasetManifest.model_validate_json(await store.get(made.manifest))
    ref = await store.put("datasets/ds-three/lineage.parquet", parquet(fates))
    told = manifest.model_copy(update={"lineage": ref}).model_dump_json().encode()
    made = made.model_copy(update={"manifest": await store.put("datasets/ds-three/m2.json", told)})
    event = state.projects["desk"].datasets["ds-three"]
    state.projects["desk"].datasets["ds-three"] = replace(event, data=made)
    for query, shown in (({}, ["rec-1", "rec-2"]), ({"stage": "cleaning"}, ["rec-2"]), ({"reason": "x"}, [])):
        page = (await ask("/projects/desk/datasets/ds-three/dropped", **query)).json()
        assert [one["record_id"] for one in page["items"]] == shown


async def test_rows_of_erased_records_have_no_texts(
    versions: None, state: Any, desk: Any, store: Any, ask: Any
):
    await ask("/projects/desk/datasets/ds-one/rows")  # so that they are in memory
    finding = ErasureFinding(records=1, dataset_ids=("ds-one",), record_ids=("rec-1",))
    state.apply(_erase(desk, await store.put("erasures/f.json", finding.model_dump_json().encode())))
    answer = await ask("/projects/desk/datasets/ds-one/rows")
    assert [row["erased"] for row in answer.json()["items"]] == [False, True, False, False]
    assert "Question 1" not in answer.text
    found = await ask("/projects/desk/datasets/ds-one/rows", text="question")
    assert found.json()["total"] == 3, "what was erased is not searched"
    row = await ask("/projects/desk/datasets/ds-one/rows/ex-1-an answer")
    assert (row.json()["erased"], "Question 1" in row.text) == (True, False)
    assert (await ask("/projects/desk/datasets/ds-one/rows/ex-1-an answer/tokens")).status_code == 404
    difference = await ask("/projects/desk/datasets/ds-one/diff/ds-two")
    assert "Question 1" not in difference.text


async def test_deleted_rows_are_gone_and_the_version_still_tells_of_itself(
    versions: None, state: Any, desk: Any, store: Any, ask: Any
):
    await ask("/projects/desk/datasets/ds-one/rows")
    state.apply(_erase(desk, None, deleted=("ds-one",)))
    answer = await ask("/projects/desk/datasets/ds-one/rows")
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "gone")
    found = (await ask("/projects/desk/datasets/ds-one")).json()
    assert (found["rows_deleted"], found["labels"]) == (True, {})


async def test_no_row_is_shown_after_an_erasure_that_names_no_records(
    versions: None, state: Any, desk: Any, store: Any, ask: Any
):
    finding = ErasureFinding(records=1, dataset_ids=("ds-one",))
    state.apply(_erase(desk, await store.put("erasures/f.json", finding.model_dump_json().encode())))
    assert (await ask("/projects/desk/datasets/ds-one/rows")).status_code == 410
    assert (await ask("/projects/desk/datasets/ds-one/diff/ds-two")).status_code == 410
    assert (await ask("/projects/desk/datasets/ds-two/rows")).status_code == 200
    left = (await ask("/projects/desk/datasets/ds-one")).json()
    assert "does not name the records" in left["rows_hidden"]
    assert (left["rows_deleted"], left["labels"]["bell"]["train"]) == (False, 4)
    assert (await ask("/projects/desk/datasets/ds-two")).json()["rows_hidden"] is None


async def test_a_difference_tells_what_came_went_and_changed(versions: None, ask: Any):
    found = (await ask("/projects/desk/datasets/ds-one/diff/ds-two")).json()
    assert (found["added"], found["removed"]) == ({"train": 2}, {"train": 2})
    assert (found["moved"], found["answers_changed"]) == ({"train → holdout": 1}, 1)
    assert found["changed_questions"] == ["Question 1?"]
    assert found["labels"] == {"bell": [4, 2], "horn": [None, 1]}


async def test_two_versions_are_named_by_the_field_that_is_wrong(versions: None, ask: Any):
    for path, field in (("ds-none/diff/ds-two", "dataset_id"), ("ds-one/diff/ds-none", "other")):
        answer = await ask(f"/projects/desk/datasets/{path}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, field)


async def test_a_store_that_is_away_is_told(versions: None, ask: Any, store: Any, monkeypatch: Any):
    from tunewheel_contracts.errors import TransientError

    async def away(*_: Any) -> bytes:
        raise TransientError("the store is away")

    monkeypatch.setattr(store, "get", away)
    answer = await ask("/projects/desk/datasets/ds-one")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "away")
