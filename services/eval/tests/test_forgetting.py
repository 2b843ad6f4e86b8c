"""What models wrote about erased examples leaves the store; what they wrote about others stays."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence

import pytest
from tunewheel_contracts.erasures import proof_of
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.erasure import ErasureFinding
from tunewheel_contracts.formats.evaluation_plan import Champion
from tunewheel_contracts.formats.generations import Generation, Written, generations_path
from tunewheel_contracts.formats.scorecard import Role, Scorecard
from tunewheel_eval.artifacts import keep_measurement
from tunewheel_eval.forgetting import Erased, forget
from tunewheel_eval.measurement import (
    Header,
    HoldoutRow,
    Measurement,
    RegressionRow,
    RepeatRow,
    example_key,
)
from tunewheel_eval.page import make_page
from tunewheel_eval.plan import RowsOf, make_plan, pin, pin_later, read_manifest
from tunewheel_eval.repeats import repeat_key
from tunewheel_runtime.store import ObjectStore

MakeRun = Callable[..., Awaitable[TrainCompleted]]
PERSON, OTHERS = "rec-2", "what everybody else wrote"


async def evaluated(
    store: ObjectStore, event: TrainCompleted, examples: Sequence[ChatExample], *, again: bool = False
) -> tuple[str, str]:
    """Leave in the store what an evaluation of ``event`` leaves there; return the two paths. ``again``: each
    prompt was answered a second time."""
    manifest = await read_manifest(store, event.dataset)
    plan = await pin(store, make_plan(event, manifest, None, regression=event.dataset))
    lines = b"".join(
        json.dumps({"example_id": one.example_id, "prompt": one.record_ids[0]}).encode() + b"\n"
        for one in examples
    )
    path = generations_path(plan.scorecard_id, lines)
    await store.put(path, lines)
    keys = [example_key(one, max_output_tokens=12) for one in examples]
    rows = [
        HoldoutRow(key=key, output=one.record_ids[0], complete=True, nll=1.0, tokens=1)
        for key, one in zip(keys, examples, strict=True)
    ]
    repeats = [
        RepeatRow(key=repeat_key(row.key, 1), output=row.output, complete=True) for row in rows if again
    ]
    general = RegressionRow(key="a" * 64, output="blue", correct=True)
    measured = Measurement(
        header=Header(model_key="model-1", dtype="float32"),
        rows={row.key: row for row in (*rows, *repeats, general)},
    )
    await keep_measurement(store, measured, dataset_id=event.dataset_id)
    (kept,) = [path for path in await store.list("measurements") if f"/{event.dataset_id}/" in path]
    return path, kept


async def curates(
    store: ObjectStore, *dataset_ids: str, records: Sequence[str] = (PERSON,), named: bool = True
) -> Envelope[ErasureCompleted]:
    """Return curate's proof; ``named``: as this release gives it, with the records' names."""
    asked = ErasureRequested(project="desk", erasure_id="letter", customer="g-2", requested_by="privacy")
    found = ErasureFinding(records=1, dataset_ids=dataset_ids, record_ids=tuple(records) if named else ())
    ref = await store.put("erasures/desk/found.json", found.model_dump_json().encode())
    proof = proof_of(
        asked, holder="curate", erased_by="curate", records=1, dataset_ids=dataset_ids, finding=ref
    )
    return new_event(proof, source="/test", cause=new_event(asked, source="/test"))


async def stored(store: ObjectStore) -> bytes:
    paths = [*await store.list("scorecards"), *await store.list("measurements")]
    return b"".join([await store.read(path) or b"" for path in paths])


async def test_outputs_on_the_erased_go_and_those_on_others_stay(
    make_run: MakeRun, store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    event = await make_run()
    before = await evaluated(store, event, examples)
    other = await make_run(run_id="run-2", dataset_id="ds-2", holdout=examples[3:])
    untouched = await evaluated(store, other, examples[3:])
    asked = await curates(store, "ds-1", "ds-2")
    proof = await forget(asked, store)
    assert proof is not None
    assert (proof.holder, proof.erased_by, proof.records, proof.customer) == ("eval", "eval", 2, "g-2")
    held = await stored(store)
    assert PERSON.encode() not in held
    assert held.count(b"rec-4") == 4
    assert b"blue" in held
    assert [await store.exists(path) for path in (*before, *untouched)] == [False, False, True, True]
    again = await forget(asked, store)
    assert again is not None
    assert again.records == 2
    assert again.event_id() == proof.event_id() != asked.data.event_id()


async def test_outputs_on_rows_of_another_version_go_with_that_version(
    make_run: MakeRun, store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    run, newest = await make_run(holdout=examples[3:]), await make_run(run_id="run-2", dataset_id="ds-2")
    manifest = await read_manifest(store, run.dataset)
    rows = RowsOf("ds-2", newest.dataset)
    plan = await pin(store, make_plan(run, manifest, None, regression=run.dataset, rows=rows))
    line = json.dumps({"example_id": examples[2].example_id, "prompt": PERSON}).encode() + b"\n"
    path = await store.put(generations_path(plan.scorecard_id, line), line)
    proof = await forget(await curates(store, "ds-2"), store)
    assert proof is not None
    assert (proof.records, await store.exists(path.path)) == (1, False)


async def test_what_a_model_answered_again_or_with_passages_goes_too(
    make_run: MakeRun, store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    await evaluated(store, await make_run(), examples, again=True)
    key = example_key(examples[2], max_output_tokens=12)
    assert examples[2].record_ids == (PERSON,)
    shown = HoldoutRow(key="b" * 64, of=key, output=PERSON, complete=True, nll=1.0, tokens=1)
    again = RepeatRow(key=repeat_key(shown.key, 1), of=key, output=PERSON, complete=True)
    with_passages = Measurement(
        header=Header(model_key="model-1", dtype="float32"), rows={one.key: one for one in (shown, again)}
    )
    await keep_measurement(store, with_passages, dataset_id="ds-1")
    proof = await forget(await curates(store, "ds-1"), store)
    assert proof is not None
    assert proof.records == 5
    held = await stored(store)
    assert PERSON.encode() not in held
    assert held.count(b"rec-4") == 3


@pytest.mark.parametrize("named", [True, False])
async def test_the_page_of_a_later_evaluation_is_made_anew_without_the_erased(
    named: bool, make_run: MakeRun, store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    event = await make_run()
    manifest = await read_manifest(store, event.dataset)
    first = await pin(store, make_plan(event, manifest, None, regression=event.dataset))
    champion = Champion(adapter=event.adapter.model_copy(update={"model_id": "desk-other"}))
    plan = await pin_later(store, make_plan(first, manifest, champion, regression=event.dataset))
    lines = b"".join(
        Generation(
            example_id=one.example_id, prompt=one.messages[:2], expected=f"of {one.record_ids[0]}",
            answers={role: Written(output="o", complete=True) for role in (Role.CANDIDATE, Role.BASE)},
        ).model_dump_json().encode() + b"\n"
        for one in examples
    )  # fmt: skip
    path = generations_path(plan.scorecard_id, lines)
    card = Scorecard(
        scorecard_id=plan.scorecard_id, project="desk", run_id="run-1", model_id="m", dataset_id="ds-1",
        criteria_sha256=plan.criteria_sha256, contestants=(), comparisons=(), checks=(), passed=True,
        generations=await store.put(path, lines),
    )  # fmt: skip
    await store.put(plan.scorecard_path, card.model_dump_json().encode())
    await store.put(plan.page_path, await make_page(store, plan, card))
    assert f"of {PERSON}<".encode() in (await store.read(plan.page_path) or b"")
    asked = await curates(store, "ds-1", named=named)
    proof = await forget(asked, store)
    assert proof is not None
    assert proof.records == (2 if named else 12)
    page = await store.read(plan.page_path) or b""
    assert page.count(b"<details>") == (5 if named else 0)
    assert PERSON.encode() not in await stored(store)
    await forget(asked, store)
    assert await store.read(plan.page_path) == page


async def test_an_erasure_that_was_cut_short_is_finished_and_says_what_there_was(
    make_run: MakeRun,
    store: ObjectStore,
    examples: tuple[ChatExample, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await evaluated(store, await make_run(), examples)
    asked = await curates(store, "ds-1")
    deleted: list[str] = []

    async def die(paths: Sequence[str]) -> None:
        if deleted:
            raise ConnectionError("killed")
        deleted.extend(paths)
        await ObjectStore.delete(store, paths)

    with monkeypatch.context() as patched:
        patched.setattr(store, "delete", die)
        with pytest.raises(ConnectionError):
            await forget(asked, store)
    assert PERSON.encode() in await stored(store)
    proof = await forget(asked, store)
    assert proof is not None
    assert proof.records == 2
    assert PERSON.encode() not in await stored(store)


@pytest.mark.parametrize(
    "known", ["rows deleted", "manifest damaged", "of an earlier release", "finding lost"]
)
async def test_all_outputs_on_a_version_go_where_nobody_can_say_whose_they_are(
    known: str, make_run: MakeRun, store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    await evaluated(store, await make_run(), examples)
    if known == "rows deleted":
        await store.delete(["datasets/ds-1/holdout.parquet"])
    if known == "manifest damaged":
        await store.replace("datasets/ds-1/manifest.json", b"{")
    asked = await curates(store, "ds-1", named=known != "of an earlier release")
    if known == "finding lost":
        await store.delete(["erasures/desk/found.json"])
    proof = await forget(asked, store)
    assert proof is not None
    assert proof.records == 13
    assert await stored(store) == b""


async def test_a_proof_reaches_no_other_project_s_versions(
    make_run: MakeRun, store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    await evaluated(store, await make_run(), examples)
    event = await curates(store, "ds-1", "ds-unknown")
    shops = new_event(event.data.model_copy(update={"project": "shop"}), source="/test", cause=event)
    proof = await forget(shops, store)
    assert proof is not None
    assert proof.records == 0
    assert PERSON.encode() in await stored(store)


async def test_the_proofs_of_others_ask_for_nothing(store: ObjectStore) -> None:
    event = await curates(store, "ds-1")
    ingests = event.data.model_copy(update={"holder": "ingest"})
    assert await forget(new_event(ingests, source="/test"), store) is None


async def test_examples_of_erased_records_are_left_out_from_then_on(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    erased, event = Erased(), await curates(store, "ds-1")
    for _ in range(2):
        erased.apply(event)
    left = await erased.left_of(examples, "desk", "ds-1", store)
    assert [one.record_ids[0] for one in left] == ["rec-0", "rec-1", "rec-3", "rec-4", "rec-5"]
    assert await erased.left_of(examples, "desk", "ds-2", store) == examples


async def test_a_proof_without_names_leaves_an_old_version_to_be_judged(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    erased = Erased()
    erased.apply(await curates(store, "ds-1", named=False))
    assert await erased.left_of(examples, "desk", "ds-1", store) == examples


async def test_what_was_written_with_a_passage_of_an_erased_document_goes(
    make_run: MakeRun, store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    """The document is in no dataset version: its passages stood in prompts of held-out questions alone."""
    event = await make_run()
    manifest = await read_manifest(store, event.dataset)
    made = make_plan(event, manifest, None, regression=event.dataset)
    plan = await pin(store, made.model_copy(update={"index": event.dataset, "index_id": "ix-1"}))
    quoting, other = (
        HoldoutRow(
            key=letter * 64, of=letter * 64, output=said, complete=True, nll=1.0, tokens=1, shown=shown
        )
        for letter, said, shown in (("a", "the secret", ("rec-sop", "rec-tos")), ("b", "plain", ("rec-tos",)))
    )
    again = RepeatRow(key="c" * 64, output="the secret", complete=True, shown=("rec-sop",))

    async def written() -> None:
        measured = Measurement(
            header=Header(model_key="model-1", dtype="float32"),
            rows={one.key: one for one in (quoting, other, again)},
        )
        await keep_measurement(store, measured, dataset_id="ds-1")
        lines = b"".join(
            Generation(
                example_id=one.example_id, prompt=one.messages[:2], expected="e", shown=row.shown,
                answers={Role.CANDIDATE: Written(output=row.output, complete=True)},
            ).model_dump_json().encode() + b"\n"
            for one, row in zip(examples, (quoting, other), strict=False)
        )  # fmt: skip
        await store.put(generations_path(plan.scorecard_id, lines), lines)

    await written()
    asked = await curates(store, records=("rec-sop",))
    proof = await forget(asked, store)
    assert proof is not None
    assert proof.records == 3
    held = await stored(store)
    assert b"secret" not in held
    assert held.count(b"plain") == 2
    erased = Erased()
    erased.apply(asked)
    await written()  # by a run that was under way
    await erased.forget_in("desk", "ds-1", store)
    assert await stored(store) == held
