"""Held-out questions with passages: what is looked up, what is judged, and what the scorecard says of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent, InvalidSpec
from tunewheel_contracts.events.evaluation import EvalPassed, EvalRequested, EvalUndecided
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.look import looks_folder
from tunewheel_contracts.formats.retrieval_scores import Cell
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_embedding.embedders import Embedders, FromThread
from tunewheel_embedding.errors import EndpointAway
from tunewheel_eval import evaluation
from tunewheel_eval.contest import NO_INDEX, NOTHING_FOUND
from tunewheel_eval.errors import PassagesAway
from tunewheel_eval.evaluation import Evaluator
from tunewheel_eval.forgetting import Erased
from tunewheel_eval.passages.looked_up import Found, LookedUp
from tunewheel_eval.passages.looking_up import LookUp, gold_passages
from tunewheel_eval.passages.staleness import Changes
from tunewheel_eval.plan import make_plan, read_manifest
from tunewheel_eval.requests import Asked
from tunewheel_eval.reviews import read_scorecard
from tunewheel_eval.settings import Settings
from tunewheel_eval.waiting import Turns
from tunewheel_retrieval.index import Index
from tunewheel_retrieval.opening import open_index
from tunewheel_runtime.jobs import LeaseLost
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.slots import Slots
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.indexes import STATIC, put_index, without_files
from tunewheel_testing.log import lease
from tunewheel_testing.waiting import until

from .conftest import example, make_spec

MakeRun = Callable[..., Awaitable[TrainCompleted]]
SOPS = {
    "returns.md": "# Refunds\n\nA refund takes 14 working days.",
    "lockers.md": "# Hours\n\nLockers open at six in the morning.",
    "billing.md": "# Invoices\n\nWe send the invoice as a PDF below Orders.",
}
CHANGED = SOPS | {"returns.md": "# Refunds\n\nA refund takes 30 working days by Kestrel."}
ASKED = [
    ("How long until my refund is here?", "A refund takes 14 working days."),
    ("When do the lockers open?", "Lockers open at six in the morning."),
    ("Where is my invoice?", "We send the invoice below Orders."),
    ("Is it raining?", "Nobody here can tell what the weather brings."),
]
EXAMPLES = tuple(example(n, asked, answer) for n, (asked, answer) in enumerate(ASKED))
RETRIEVAL = {"default": "on", "template": "{passages}", "passage_tokens": 32, "budget_tokens": 32, "top_k": 1}


@pytest.fixture
async def evaluator(
    store: ObjectStore, tmp_path: Path, regression_set: Path, measured_here: None
) -> Evaluator:
    settings = Settings(
        cache_dir=tmp_path / "cache", eval_regression_set=regression_set, eval_threads=1, eval_batch_size=4
    )
    made = Evaluator(store, settings, Erased())
    await made.prepare()
    return made


def spec(**retrieval: Any) -> Any:
    task = {"system_prompt": "You are the help desk.", "max_output_tokens": 8}
    criteria = [{"metric": "perplexity", "minimum": 1.0}]
    return make_spec(task=task, criteria=criteria, retrieval=RETRIEVAL | retrieval)


async def indexed(store: ObjectStore, texts: Mapping[str, str] = SOPS) -> IndexVersioned:
    return await put_index(store, "desk", texts, RetrievalSpec.model_validate(RETRIEVAL))


@pytest.fixture
async def sops(store: ObjectStore) -> Index:
    return await open_index(store, (await indexed(store)).manifest)


async def card_of(store: ObjectStore, verdict: Any) -> Scorecard:
    return Scorecard.model_validate_json(await store.get(verdict.scorecard))


async def holdout_rows(store: ObjectStore) -> list[dict[str, Any]]:
    lines = [
        line
        for path in await store.list("measurements")
        for line in (await store.read(path) or b"").split(b"\n")
    ]
    rows = [json.loads(line) for line in lines if line]
    return [row for row in rows if row["row"] == "holdout"]


async def test_what_serves_with_passages_is_judged_with_them(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = await indexed(store)
    event = await real_run(spec(), holdout=EXAMPLES)
    verdict = await evaluator.evaluate(event, None, lease(), index=version)
    assert isinstance(verdict, EvalPassed)
    card = await card_of(store, verdict)
    assert card.bundle is not None
    assert card.bundle.retrieval_sha256 == spec().retrieval.sha256
    assert {one.bundle.retrieval_sha256 for one in card.contestants if one.bundle} == {
        spec().retrieval.sha256
    }
    found = card.retrieval
    assert found is not None
    assert (found.index_id, found.with_passages, found.rows, found.reason) == (
        version.index_id,
        True,
        4,
        None,
    )
    assert {one.cell: one.serves for one in found.cells} == {
        cell: cell is Cell.TUNED_WITH_PASSAGES for cell in Cell
    }
    assert len({one.figures["perplexity"] for one in found.cells}) == 4
    both = next(one for one in found.cells if one.serves)
    assert both.figures["perplexity"] == pytest.approx(card.contestants[0].metrics["perplexity"])
    assert [("groundedness" in one.figures) for one in found.cells] == [False, True, False, True]
    assert found.metric == "perplexity"
    assert len([one for one in found.differences if one.metric == "perplexity"]) == 6
    assert found.advice is not None
    assert (found.advice.approach, found.advice.outcome) == ("hybrid", "undecided"), "four rows tell nothing"
    assert found.ranking is not None
    assert (found.ranking.questions, found.ranking.top_k) == (3, 1)
    assert found.ranking.figures == {"mrr": 1.0, "ndcg": 1.0, "recall_at_k": 1.0}
    assert found.ranking.low["recall_at_k"] < 0.5
    page = (await store.read(f"scorecards/{card.scorecard_id}.html") or b"").decode()
    assert "tuned with passages (serves)" in page
    assert version.index_id in page
    assert card.generations is not None
    lines = [json.loads(line) for line in (await store.get(card.generations)).splitlines()]
    assert all(len(line["prompt"]) == 2 and "14 working" not in str(line["prompt"]) for line in lines)
    assert all(len(line["passages"]) == 1 for line in lines), "passages are named, not repeated"
    plain = {row["of"] for row in await holdout_rows(store) if "of" in row}
    assert plain == {row["key"] for row in await holdout_rows(store) if "of" not in row}
    monkeypatch.setattr(evaluation, "run_worker", None)  # what was asked once is not asked again
    _, again = await evaluator.evaluate_again(asking(version), lease())
    assert isinstance(again, EvalPassed)
    assert again.evaluation_id == verdict.evaluation_id


def asking(index: IndexVersioned | None, **changes: Any) -> Asked:
    async def anybody(_: EvalRequested) -> None: ...

    plain = {"project": "desk", "run_id": "run-1", "request": "once more", **changes}
    return Asked(EvalRequested.model_validate(plain), None, anybody, index)


async def test_without_passages_a_sample_is_asked_with_them_and_a_changed_document_shows(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator
) -> None:
    event = await real_run(
        make_spec(
            task={"system_prompt": "You are the help desk.", "max_output_tokens": 8},
            criteria=[{"metric": "perplexity", "minimum": 1.0}],
            retrieval=RETRIEVAL | {"default": "off"},
            evaluation={"cells": 3},
        ),
        holdout=EXAMPLES,
    )
    champion = None
    first = await card_of(
        store, await evaluator.evaluate(event, champion, lease(), index=await indexed(store))
    )
    assert first.bundle is not None
    assert first.bundle.retrieval_sha256 is None
    assert first.contestants[0].metrics["examples"] == 4
    assert first.retrieval is not None
    assert (first.retrieval.with_passages, first.retrieval.rows) == (False, 3)
    assert next(one.cell for one in first.retrieval.cells if one.serves) is Cell.TUNED
    assert first.retrieval.staleness is None, "the documents are those of the evaluation itself"
    assert sum("of" in row for row in await holdout_rows(store)) == 3 * 2

    newer = await indexed(store, CHANGED)
    plan, verdict = await evaluator.evaluate_again(asking(newer), lease())
    assert verdict is not None
    assert plan.index_id == newer.index_id
    card = await card_of(store, verdict)
    assert card.retrieval is not None
    stale = card.retrieval.staleness
    assert stale is not None
    assert (stale.before, stale.documents) == (first.retrieval.index_id, 1)
    assert stale.questions == stale.telling <= 1


async def test_an_index_that_is_gone_holds_up_what_needs_it_and_only_that(
    make_run: MakeRun, store: ObjectStore, evaluator: Evaluator
) -> None:
    version = await indexed(store)
    event = await make_run(spec(), holdout=EXAMPLES)
    manifest = await read_manifest(store, event.dataset)
    plan = make_plan(event, manifest, None, regression=event.dataset, index=version)
    off = RetrievalSpec.model_validate(RETRIEVAL | {"default": "off"})
    files = await without_files(store, version)
    for path, data in files.items():
        await store.put(path, data[:-1] if "/vectors" in path else data)
    with pytest.raises(InvalidEvent, match="judged again") as caught:
        await evaluator.evaluate(event, None, lease(), index=version)
    assert caught.value.field == "plan.index", "a damaged file does not come back by itself"
    await store.delete([path for path in files if "/vectors" in path])
    look_up = LookUp(store, AllowedSources())
    for _ in range(2):
        for index in (version, None):  # an erasure builds the newest again: its tombstone comes first
            with pytest.raises(PassagesAway, match="no index: "):
                await evaluator.evaluate(event, None, lease(), index=index)
        with pytest.raises(PassagesAway, match="no index: "):
            await look_up.of(plan, off, EXAMPLES, needed=True)
        looked = await look_up.of(plan, off, EXAMPLES)
        assert looked is not None
        assert looked.reason is not None
        assert looked.asked(EXAMPLES[0], with_passages=True) is EXAMPLES[0]
        await without_files(store, version, fewest=0)


async def test_an_evaluation_that_lost_its_index_goes_on_with_the_newest(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await indexed(store), await indexed(store, CHANGED)
    event = await real_run(spec(), holdout=EXAMPLES)

    async def killed(*_: object, **__: object) -> None:
        raise RuntimeError("kill -9")

    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "run_worker", killed)
        with pytest.raises(RuntimeError):
            await evaluator.evaluate(event, None, lease(), index=first)
    await without_files(store, first)
    verdict = await evaluator.evaluate(event, None, lease(), index=second)
    assert isinstance(verdict, EvalPassed)
    card = await card_of(store, verdict)
    assert card.retrieval is not None
    assert card.retrieval.index_id == second.index_id
    (note,) = await store.list("runs/run-1/successors")
    assert verdict.evaluation_id in (await store.read(note) or b"").decode()
    third = await indexed(store, SOPS | {"new.md": "# New\n\nNothing else."})
    await without_files(store, second)
    assert await evaluator.evaluate(event, None, lease(), index=third) == verdict, "as whoever redelivers it"


async def test_documents_are_held_against_those_that_the_dataset_was_made_from(
    make_run: MakeRun, store: ObjectStore, evaluator: Evaluator
) -> None:
    old, newer = await indexed(store), await indexed(store, CHANGED)
    event = await make_run(spec(), holdout=EXAMPLES)
    manifest = await read_manifest(store, event.dataset)
    plan = make_plan(event, manifest, None, regression=evaluator._regression.ref, index=newer)
    trained = manifest.model_copy(update={"index": old.manifest, "index_id": old.index_id})
    contest = await evaluator._contest(plan, trained)
    assert contest.looked is not None
    assert (contest.looked.before_id, contest.looked.documents_changed) == (old.index_id, 1)
    assert [one.change is not None for one in contest.looked.found.values()] == [True, False, False, False]
    plain = await evaluator._contest(plan, manifest)
    assert plain.looked is not None
    assert plain.looked.before_id is None


async def test_an_index_names_another_evaluation_and_none_is_as_before(
    make_run: MakeRun, store: ObjectStore
) -> None:
    version = await indexed(store)
    event = await make_run(make_spec())
    manifest = await read_manifest(store, event.dataset)
    plain = make_plan(event, manifest, None, regression=event.dataset)
    assert make_plan(event, manifest, None, regression=event.dataset, index=version) == plain, (
        "retrieves nothing"
    )
    assert not {"index", "index_id"} & plain.model_dump().keys()
    other = await make_run(spec(), dataset_id="ds-2", run_id="run-2")
    retrieving = await read_manifest(store, other.dataset)
    make = partial(make_plan, other, retrieving, None, regression=event.dataset)
    newer = await indexed(store, CHANGED)
    assert len({make(index=one).evaluation_id for one in (None, version, newer)}) == 3


async def test_the_document_of_a_question_is_told_by_its_answer(sops: Index) -> None:
    found = {name: one.document_id for name, one in gold_passages(EXAMPLES, sops).items()}
    assert found == {"ex-0": "returns.md", "ex-1": "lockers.md", "ex-2": "billing.md"}
    other_figure = example(5, "How long?", "A refund takes 15 working days.")
    of_both = example(6, "What?", "We open lockers; refund takes days.")
    label = example(7, "My refund?", json.dumps({"category": "refund"}))
    assert not gold_passages([other_figure, of_both, label], sops)
    record = next(row.record_id for row in sops.rows if row.document_id == "lockers.md")
    drafted = example(8, "What do I need?", "Patience.").model_copy(update={"record_ids": (record,)})
    assert gold_passages([drafted], sops)["ex-8"].document_id == "lockers.md"


@pytest.mark.parametrize(
    ("answer", "stale", "current"),
    [
        ("It takes 14 days.", True, False),
        ('{"reply": "It takes 14 days, by Kestrel", "n": 3}', True, False),
        ("It takes 30 days.", False, True),
        ("Kestrel brings it.", False, True),
        ("It takes working days.", False, False),
        ("", False, False),
    ],
)
async def test_an_answer_is_stale_that_holds_what_only_the_old_version_says(
    store: ObjectStore, sops: Index, answer: str, stale: bool, current: bool
) -> None:
    now = await open_index(store, (await indexed(store, CHANGED)).manifest)
    changes = Changes(sops, now)
    gold = gold_passages(EXAMPLES, sops)
    change = changes.of(EXAMPLES[0], gold["ex-0"])
    assert change is not None
    assert (change.is_stale(answer), change.is_current(answer)) == (stale, current)
    assert changes.of(EXAMPLES[1], gold["ex-1"]) is None
    asked = example(0, "Is it true that a refund takes 14 days?", "A refund takes 14 working days.")
    repeated = changes.of(asked, gold["ex-0"])
    assert repeated is not None
    assert not repeated.is_stale("14"), "the question says so itself"


async def test_a_renamed_document_is_as_it_was_and_a_withdrawn_one_is_not(
    store: ObjectStore, sops: Index
) -> None:
    renamed = {f"sops/{name}": text for name, text in SOPS.items() if name != "lockers.md"}
    renamed["sops/billing.md"] += "\n\n# Appendix\n\nAsk by 1 May."
    now = await open_index(store, (await indexed(store, renamed)).manifest)
    changes = Changes(sops, now)
    gold = gold_passages(EXAMPLES, sops)
    assert changes.documents == {"lockers.md", "billing.md"}
    assert changes.of(EXAMPLES[0], gold["ex-0"]) is None, "a mere rename"
    withdrawn, edited = (changes.of(EXAMPLES[n], gold[f"ex-{n}"]) for n in (1, 2))
    assert withdrawn is not None
    assert edited is not None
    assert not edited.is_stale("We send the invoice as a PDF below Orders."), "the passage still stands"
    assert [changes.name_now(gold[f"ex-{n}"]) for n in range(3)] == [
        "sops/returns.md",
        None,
        "sops/billing.md",
    ]


async def test_prompts_with_passages_are_those_of_the_gateway(sops: Index, store: ObjectStore) -> None:
    event_spec = RetrievalSpec.model_validate(RETRIEVAL)
    hits = sops.search("refund", None, 1)
    looked = LookedUp("ix-1", event_spec, {"ex-0": Found(hits)})
    asked = looked.asked(EXAMPLES[0], with_passages=True)
    assert asked.messages[0].content.startswith("You are the help desk.\n\n[1]\n```\n")
    assert "14 working days" in asked.messages[0].content
    assert asked.messages[1:] == EXAMPLES[0].messages[1:]
    assert looked.asked(EXAMPLES[0], with_passages=False) is EXAMPLES[0]
    assert looked.asked(EXAMPLES[1], with_passages=True) is EXAMPLES[1]


class Away:
    """An endpoint that does not answer until it is back."""

    name, dimensions, is_back = STATIC.name, STATIC.dimensions, False

    async def units(self, texts: Sequence[str]) -> Any:
        if self.is_back:
            return STATIC.units(texts)
        raise EndpointAway("https://vectors.example/v1/embeddings does not answer")


async def away(_: object, embedding: object) -> Any:
    endpoint: Any = Away()
    return FromThread(endpoint, asyncio.get_running_loop())


async def not_allowed(_: object, embedding: object) -> Any:
    raise InvalidSpec(field="retrieval.embedding.base_url", reason="names a host that is not allowed here")


@pytest.mark.parametrize(
    ("default", "criterion", "waits"),
    [
        ("off", {"metric": "perplexity", "minimum": 1.0}, False),
        ("off", {"metric": "recall_at_k", "minimum": 0.1}, True),
        ("on", {"metric": "perplexity", "minimum": 1.0}, True),
    ],
)
async def test_an_endpoint_that_is_away_holds_up_only_verdicts_that_rest_on_passages(
    make_run: MakeRun,
    store: ObjectStore,
    evaluator: Evaluator,
    monkeypatch: pytest.MonkeyPatch,
    default: str,
    criterion: dict[str, Any],
    waits: bool,
) -> None:
    monkeypatch.setattr(Embedders, "of", away)
    asked = make_spec(criteria=[criterion], retrieval=RETRIEVAL | {"default": default})
    event = await make_run(asked, holdout=EXAMPLES)
    manifest = await read_manifest(store, event.dataset)
    regression = evaluator._regression.ref
    plan = make_plan(event, manifest, None, regression=regression, index=await indexed(store))
    if waits:
        with pytest.raises(PassagesAway, match=r"no vectors .* does not answer"):
            await evaluator._contest(plan, manifest)
        return
    contest = await evaluator._contest(plan, manifest)
    assert contest.looked is not None
    assert "vectors.example/v1/embeddings does not answer" in str(contest.looked.reason)
    assert not contest.others


class Told(dict[str, str]):
    """Warnings that stand."""

    def warn(self, name: str, text: str | None) -> None:
        if text is None:
            self.pop(name, None)
        else:
            self[name] = text


def turns(told: Told, seconds: float = 600.0) -> Turns:
    return Turns(told.warn, seconds, Slots(1), between_tries=Backoff(attempts=1, first=0.01, longest=0.01))


async def test_an_evaluation_waits_for_its_endpoint_while_others_go_on_and_outlives_its_process(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, version = Told(), await indexed(store)
    waiting = await real_run(spec(), holdout=EXAMPLES[:2])
    task = {"system_prompt": "You are the help desk.", "max_output_tokens": 8}
    other = await real_run(make_spec(task=task), run_id="run-2", dataset_id="ds-2", holdout=EXAMPLES[:2])

    async def judge(event: TrainCompleted, index: IndexVersioned | None) -> Any:
        return await evaluator.evaluate(event, None, lease(), index=index)

    monkeypatch.setattr(Embedders, "of", away)
    queue = turns(told)
    first = asyncio.create_task(queue.take("desk", "run-1", lease(), partial(judge, waiting, version)))
    second = asyncio.create_task(queue.take("desk", "run-2", lease(), partial(judge, other, None)))
    async with asyncio.timeout(120):
        verdict = await second
    assert isinstance(verdict, EvalPassed)
    assert not first.done()
    await until(lambda: bool(told))
    (text,) = told.values()
    assert text.startswith("the evaluation of run-1 waits, others go on: no vectors of its questions: ")
    first.cancel()  # kill -9: its event is not committed, and comes again
    await asyncio.wait({first})
    again = asyncio.create_task(turns(told).take("desk", "run-1", lease(), partial(judge, waiting, version)))
    await until(lambda: bool(told))
    assert not again.done()
    newer = await indexed(store, CHANGED)
    monkeypatch.setattr(Away, "is_back", True)
    async with asyncio.timeout(120):
        verdict = await again
    assert isinstance(verdict, EvalPassed)
    assert not told
    card = await card_of(store, verdict)
    assert card.retrieval is not None
    assert (card.retrieval.index_id, len(card.retrieval.cells)) == (version.index_id, 4)
    assert await judge(waiting, newer) == verdict


async def test_who_waits_for_an_index_is_judged_by_the_next_one_and_stops_with_its_lease() -> None:
    told, versions, own = Told(), iter([None, None, "ix-2"]), lease()

    async def judge() -> str:
        found = next(versions, None)
        if found is None:
            raise PassagesAway("no index: it was deleted", field="plan.index")
        return found

    assert await turns(told).take("desk", "run-1", own, judge) == "ix-2"
    stopped = asyncio.create_task(turns(told).take("desk", "run-1", own, judge))
    await until(lambda: bool(told))
    own.lose("the service is stopping")
    with pytest.raises(LeaseLost):
        await stopped
    assert not told
    with pytest.raises(InvalidEvent, match=r"\(no index: it was deleted\); mend that") as caught:
        await turns(told, 0.0).take("desk", "run-1", lease(), judge)
    assert (caught.value.field, dict(told)) == ("plan.index", {})


async def test_who_asks_after_an_outage_gets_the_cells_that_the_scorecard_lacks_and_no_second_verdict(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = await indexed(store)
    event = await real_run(spec(default="off"), holdout=EXAMPLES[:2])
    monkeypatch.setattr(Embedders, "of", away)
    verdict = await evaluator.evaluate(event, None, lease(), index=version)
    first = (await card_of(store, verdict)).retrieval
    assert first is not None
    assert "does not answer" in str(first.reason)

    async def again(request: str) -> tuple[EvaluationPlan, Any]:
        return await evaluator.evaluate_again(asking(version, request=request), lease())

    looks = await store.list(looks_folder("desk"))
    assert (await again("while it is away"))[1] == verdict
    monkeypatch.setattr(Embedders, "of", not_allowed)
    assert (await again("while its host is not allowed"))[1] == verdict
    monkeypatch.setattr(Embedders, "of", away)
    monkeypatch.setattr(Away, "is_back", True)
    plan, decided = await again("after it")
    assert (plan.completes, decided) == (verdict.evaluation_id, None)
    known = await read_scorecard(store, plan)
    assert known is not None
    assert known[0].retrieval is not None
    assert len(known[0].retrieval.cells) == 4
    assert await again("once more") == (plan, None)
    assert await store.list(looks_folder("desk")) == looks


async def test_who_waits_for_an_endpoint_holds_no_thread(
    make_run: MakeRun, store: ObjectStore, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Embedders, "of", away)
    event = await make_run(make_spec(retrieval=RETRIEVAL), holdout=EXAMPLES)
    manifest = await read_manifest(store, event.dataset)
    plan = make_plan(event, manifest, None, regression=evaluator._regression.ref, index=await indexed(store))
    with pytest.raises(PassagesAway) as caught:
        await evaluator._contest(plan, manifest)
    asked, answers = asyncio.Event(), asyncio.Event()

    async def silent(*_: object) -> None:
        asked.set()
        await answers.wait()

    monkeypatch.setattr(Away, "units", silent)
    waiting = [asyncio.create_task(caught.value.ask_again()) for _ in range(100)]  # type: ignore[arg-type]
    async with asyncio.timeout(60):
        await asked.wait()
        await asyncio.to_thread(int)
        answers.set()
        await asyncio.gather(*waiting)


async def test_a_figure_that_no_index_can_bring_is_waited_for_by_none(
    make_run: MakeRun, store: ObjectStore, evaluator: Evaluator
) -> None:
    criteria = [{"metric": name, "minimum": 0.1} for name in ("groundedness", "recall_at_k")]
    event = await make_run(make_spec(criteria=criteria, retrieval=RETRIEVAL), holdout=EXAMPLES)
    manifest = await read_manifest(store, event.dataset)
    make = partial(make_plan, event, manifest, None, regression=evaluator._regression.ref)
    without = await evaluator._contest(make(), manifest)
    assert without.not_yet == dict.fromkeys(("groundedness", "recall_at_k"), NO_INDEX)
    contest = await evaluator._contest(make(index=await indexed(store)), manifest)
    assert contest.not_yet == {"recall_at_k": NOTHING_FOUND}, "passages were found, and say what they say"


async def test_criteria_about_passages_are_undecided_while_there_is_no_index(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator
) -> None:
    names = ["recall_at_k", "groundedness"]
    task = {"system_prompt": "You are the help desk.", "max_output_tokens": 8}
    criteria = [{"metric": name, "minimum": 0.1} for name in names]
    asked = make_spec(task=task, criteria=criteria, retrieval=RETRIEVAL)
    event = await real_run(asked, holdout=EXAMPLES)
    verdict = await evaluator.evaluate(event, None, lease())
    assert isinstance(verdict, EvalUndecided)
    assert [check.outcome for check in verdict.checks] == ["undecided"] * 2
    assert all("was not measured: the project's documents have no index yet" in r for r in verdict.reasons)
    _, again = await evaluator.evaluate_again(asking(await indexed(store)), lease())
    assert again is not None
    assert [check.observed is not None for check in again.checks] == [True, True]


async def test_a_prompt_that_is_too_long_is_judged_with_the_passages_that_it_holds(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator
) -> None:
    words = " ".join(f"refund{n}" for n in range(50))
    long = {f"{name}.md": f"# Refunds\n\nA refund takes 14 working days. {name} {words}" for name in "ab"}
    asked = spec(passage_tokens=128, budget_tokens=256, top_k=2)
    event = await real_run(asked, holdout=EXAMPLES[:1])
    index = await put_index(store, "desk", long, asked.retrieval)
    verdict = await evaluator.evaluate(event, None, lease(), index=index)
    assert isinstance(verdict, EvalPassed)
    card = await card_of(store, verdict)
    assert card.left_out == {}
    assert card.generations is not None
    (line,) = [json.loads(one) for one in (await store.get(card.generations)).splitlines()]
    assert len(line["passages"]) == 1, "both were found, and one has room in 512 tokens"
    rows = [row for row in await holdout_rows(store) if "of" in row]
    assert [len(row["shown"]) for row in rows] == [1, 1]
