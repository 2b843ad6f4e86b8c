"""Whole evaluations on the tiny model, measured here; ``test_worker_process.py`` has the worker's process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunewheel_basemodel.locate import BaseModel
from tunewheel_contracts.erasures import proof_of
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.evaluation import (
    EvalFailed,
    EvalPassed,
    EvalRequested,
    EvalUndecided,
    ReviewRequested,
    ReviewSubmitted,
)
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.formats.criteria import LOOKS
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.erasure import ErasureFinding
from tunewheel_contracts.formats.evaluation_plan import Champion
from tunewheel_contracts.formats.look import Look, look_path
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.scorecard import Role, Scorecard
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_eval import evaluation
from tunewheel_eval import plan as planning
from tunewheel_eval.errors import UnfitCandidate, WorkerFailed
from tunewheel_eval.evaluation import Evaluator
from tunewheel_eval.forgetting import Erased
from tunewheel_eval.job import Job
from tunewheel_eval.looks import Fresh, Looks
from tunewheel_eval.measurement import read_measurement
from tunewheel_eval.plan import make_plan, pin, read_manifest
from tunewheel_eval.requests import Asked
from tunewheel_eval.reviews import settle
from tunewheel_eval.rivals import BEST_PROMPT, CONSTRAINED, UNCONSTRAINED
from tunewheel_eval.scorecards import refusal
from tunewheel_eval.settings import Settings
from tunewheel_runtime.base_mirror import mirror_base
from tunewheel_runtime.jobs import LeaseLost
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.datasets import put_dataset, trained, versioned
from tunewheel_testing.log import lease

from .conftest import put_directory

MakeRun = Callable[..., Awaitable[TrainCompleted]]


pytestmark = pytest.mark.usefixtures("measured_here")


@pytest.fixture
def settings(tmp_path: Path, regression_set: Path) -> Settings:
    return Settings(
        cache_dir=tmp_path / "cache",
        eval_regression_set=regression_set,
        eval_dtype="float32",
        eval_threads=1,
        eval_batch_size=4,
    )


@pytest.fixture
def erased() -> Erased:
    return Erased()


@pytest.fixture
async def evaluator(store: ObjectStore, settings: Settings, erased: Erased) -> Evaluator:
    made = Evaluator(store, settings, erased)
    await made.prepare()
    return made


def criteria(*entries: dict[str, Any]) -> ProjectSpec:
    from tunewheel_contracts.formats.spec import TaskSpec

    schema = {"type": "object", "properties": {"category": {"type": "string"}}}
    task = TaskSpec(
        system_prompt="s",
        output_schema=schema,
        label_field="category",
        max_output_tokens=12,
        constrained=False,
    ).model_dump(mode="json")
    return ProjectSpec.model_validate(
        {"project": "desk", "base_model": "tiny", "task": task, "criteria": entries}
    )


def make_spec(**changes: Any) -> ProjectSpec:
    plain = {"project": "desk", "base_model": "tiny", "task": {"system_prompt": "s", "max_output_tokens": 12}}
    lenient = {"criteria": [{"metric": "perplexity", "minimum": 1.0}]}
    return ProjectSpec.model_validate(plain | lenient | changes)


async def read_scorecard(store: ObjectStore, verdict: EvalPassed | EvalFailed | EvalUndecided) -> Scorecard:
    return Scorecard.model_validate_json(await store.get(verdict.scorecard))


async def proof(store: ObjectStore, dataset_id: str, *record_ids: str) -> Envelope[ErasureCompleted]:
    """Return what curate says when it has erased ``record_ids`` of a version."""
    found = ErasureFinding(records=len(record_ids), dataset_ids=(dataset_id,), record_ids=record_ids)
    data = ErasureRequested(project="desk", erasure_id="letter", customer="g", requested_by="privacy")
    told = {
        "dataset_ids": (dataset_id,),
        "finding": await store.put("found", found.model_dump_json().encode()),
    }
    done = proof_of(data, holder="curate", erased_by="curate", records=len(record_ids), **told)
    return new_event(done, source="/test", cause=new_event(data, source="/test"))


async def test_a_worker_without_the_hub_judges_on_the_base_that_train_mirrored(
    real_run: MakeRun,
    store: ObjectStore,
    evaluator: Evaluator,
    tiny_base: BaseModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    base = BaseModelRef(name="owner/name", revision="a" * 40)
    await mirror_base(store, base, tiny_base.path, tmp_path / "train", meant=True)
    assert isinstance(await evaluator.evaluate(await real_run(base=base), None, lease()), EvalPassed)


async def test_a_disk_that_cannot_hold_the_base_refuses_no_candidate(
    real_run: MakeRun,
    store: ObjectStore,
    settings: Settings,
    erased: Erased,
    tiny_base: BaseModel,
    tmp_path: Path,
) -> None:
    base = BaseModelRef(name="owner/name", revision="a" * 40)
    await mirror_base(store, base, tiny_base.path, tmp_path / "train", meant=True)
    evaluator = Evaluator(store, settings.model_copy(update={"eval_attempts": 1}), erased)
    await evaluator.prepare()
    settings.cache_dir.mkdir(exist_ok=True)
    (blocking := settings.cache_dir / "bases").write_text("a file in the place of a folder")
    run = await real_run(base=base)
    for _ in range(2):
        with pytest.raises(TransientError, match="set TUNEWHEEL_CACHE_DIR to another disk"):
            await evaluator.evaluate(run, None, lease())
    blocking.unlink()
    assert isinstance(await evaluator.evaluate(run, None, lease()), EvalPassed)


async def test_two_turns(
    real_run: MakeRun,
    store: ObjectStore,
    evaluator: Evaluator,
    settings: Settings,
    adapters: tuple[Path, Path],
    examples: tuple[ChatExample, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second turn meets the first one's candidate as champion, and measures only what is new."""
    first = await real_run()
    verdict = await evaluator.evaluate(first, None, lease())
    assert isinstance(verdict, EvalPassed)
    card = await read_scorecard(store, verdict)
    assert {one.role for one in card.contestants} == {Role.CANDIDATE, Role.BASE}
    assert card.contestants[0].metrics["examples"] == 6
    assert verdict.bundle == card.bundle == card.contestants[0].bundle
    assert card.bundle is not None
    assert (card.bundle.model_id, card.bundle.precision) == (first.adapter.model_id, "float32")
    bare = next(one.bundle for one in card.contestants if one.role is Role.BASE)
    assert bare is not None
    assert (bare.model_id, bare.adapter_sha256) == (None, None)
    assert bare.system_prompt == card.bundle.system_prompt
    assert card.generations is not None
    lines = [json.loads(line) for line in (await store.get(card.generations)).splitlines()]
    assert [one["example_id"] for one in lines] == [one.example_id for one in examples]
    assert {tuple(one["answers"]) for one in lines} == {("candidate", "base")}
    for one in card.contestants:
        for name in ("label_accuracy", "valid_output", "rouge_l"):
            scores = [line["answers"][one.role]["scores"][name] for line in lines]
            assert np.mean(scores) == pytest.approx(one.metrics[name], abs=1e-4)
            failed = [name in line["answers"][one.role].get("failed", ()) for line in lines]
            assert name == "rouge_l" or failed == [not score for score in scores]
    page = (await store.read(f"scorecards/{card.scorecard_id}.html") or b"").decode()
    assert "desk-run-1 meets every criterion" in page
    assert page.count("<details>") == len(examples)
    written = await store.get(card.generations)
    await store.replace(card.generations.path, b"{damaged")
    await store.delete([f"scorecards/{card.scorecard_id}.html"])
    assert await evaluator.evaluate(first, None, lease()) == verdict, "a verdict does not wait for its page"
    await store.replace(card.generations.path, written)
    assert not list(settings.work_for("eval").iterdir())
    assert not list(settings.cache_dir.rglob("*.safetensors"))

    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "run_worker", None)
        other = Champion(adapter=first.adapter.model_copy(update={"model_id": "desk-other"}))
        assert await evaluator.evaluate(first, other, lease()) == verdict

    asked = tuple(one.model_copy(update={"label_request": "labels-1"}) for one in examples[2:])
    second = await real_run(run_id="run-2", dataset_id="ds-2", holdout=asked, adapter=adapters[1])
    champion = Champion(adapter=first.adapter, dataset_id=first.dataset_id)
    turned = await evaluator.evaluate(second, champion, lease())
    contestants = {one.role: one for one in (await read_scorecard(store, turned)).contestants}
    assert contestants[Role.CHAMPION].model_id == first.adapter.model_id
    assert (
        contestants[Role.CHAMPION].metrics["regression_accuracy"]
        == (card.contestants[0].metrics["regression_accuracy"])
    )
    assert [(one.request_id, one.prompts) for one in turned.requested] == [("labels-1", len(asked))]
    measured = [path for path in await store.list("measurements") if "/ds-2/" in path]
    assert len(measured) == 3


def asking(serving: ServingDesired | None, **changes: Any) -> Asked:
    async def anybody(_: EvalRequested) -> None: ...

    plain = {"project": "desk", "run_id": "run-1", "request": "once more", **changes}
    return Asked(EvalRequested.model_validate(plain), serving, anybody)


async def test_a_run_is_judged_again_by_rows_of_the_newest_version_that_it_never_trained_on(
    store: ObjectStore,
    evaluator: Evaluator,
    tiny_base: BaseModel,
    adapters: tuple[Path, Path],
    examples: tuple[ChatExample, ...],
) -> None:
    spec, rows = make_spec(), [one.model_dump(mode="json") for one in examples]
    own = await put_dataset(store, spec, train=rows[4:], holdout=rows[:2])
    newest = await put_dataset(store, spec, dataset_id="ds-2", train=rows[:1], holdout=rows[1:])
    base = BaseModelRef(name=str(tiny_base.path), revision=tiny_base.revision)
    put = await put_directory(store, base, adapters[0], model_id="desk-run-1")
    first = await evaluator.evaluate(trained(*own, put), None, lease())
    asked = replace(asking(None), versions={"ds-1": versioned(*own), "ds-2": versioned(*newest)})
    plan, again = await evaluator.evaluate_again(asked, lease())
    assert isinstance(again, EvalPassed)
    assert again.evaluation_id not in (None, first.evaluation_id)
    assert (again.dataset_id, again.criteria_sha256) == ("ds-1", first.criteria_sha256)
    card = await read_scorecard(store, again)
    assert (card.rows_id, card.left_out) == ("ds-2", {"trained on by the run or the champion": 2})
    assert card.contestants[0].metrics["examples"] == 3
    look = Look.model_validate_json(await store.read(look_path("desk", plan.scorecard_id)) or b"")
    assert look.rows == ("rec-1", "rec-2", "rec-3")
    # what was measured lies where an erasure in that version looks for it
    assert [path for path in await store.list("measurements") if "/ds-2/" in path]
    assert await evaluator.evaluate_again(asked, lease()) == (plan, again)


async def test_a_run_that_trained_on_all_rows_of_a_version_is_undecided_by_them(
    make_run: MakeRun, evaluator: Evaluator, store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    run = await make_run()  # of which all rows train as well
    manifest = await read_manifest(store, run.dataset)
    await pin(store, make_plan(run, manifest, None, regression=run.dataset))
    rows = [one.model_dump(mode="json") for one in examples]
    newest = await put_dataset(store, manifest.spec, dataset_id="ds-2", train=rows, holdout=rows)
    asked = replace(asking(None), versions={"ds-2": versioned(*newest)})
    _, verdict = await evaluator.evaluate_again(asked, lease())
    assert isinstance(verdict, EvalUndecided)
    assert verdict.field == "holdout"
    assert await store.list("looks/desk") == []


async def test_judging_again_costs_no_generation_where_all_rows_are_known(
    real_run: MakeRun,
    store: ObjectStore,
    evaluator: Evaluator,
    adapters: tuple[Path, Path],
    serving: Callable[..., ServingDesired],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A champion that came in between, other criteria and an upgrade: each is a scorecard of stored rows."""
    first = await real_run()
    verdict = await evaluator.evaluate(first, None, lease())
    second = await real_run(run_id="run-2", adapter=adapters[1])
    await evaluator.evaluate(second, None, lease())
    monkeypatch.setattr(evaluation, "run_worker", None)  # nobody may start a worker from here on

    _, again = await evaluator.evaluate_again(asking(serving(second)), lease())
    assert isinstance(again, EvalPassed)
    assert {one.role: one.model_id for one in again.contestants}[Role.CHAMPION] == "desk-run-2"
    assert again.evaluation_id not in (None, verdict.evaluation_id)
    assert again.event_id() != verdict.event_id()

    # Of what is in production a person may look at the figures; nothing follows from them.
    looks = await store.list("looks/desk")
    about, told = await evaluator.evaluate_again(asking(serving(first), request="how good?"), lease())
    assert (about.in_production, told, about.champion) == (True, None, None)
    assert about.evaluation_id not in (None, verdict.evaluation_id)
    assert b"in production itself" in (await store.read(about.page_path) or b"")
    assert await store.list("looks/desk") == looks

    strict = {"criteria": [{"metric": "valid_output", "minimum": 1.0}]}
    plan, told = await evaluator.evaluate_again(asking(None, **strict), lease())
    assert told is None
    card = Scorecard.model_validate_json(await store.read(plan.scorecard_path) or b"")
    assert [check.passed for check in card.checks] == [False]
    assert card.criteria_sha256 != verdict.criteria_sha256

    monkeypatch.setattr(planning, "SCORING", planning.SCORING + 1)
    _, upgraded = await evaluator.evaluate_again(asking(None, request="after the upgrade"), lease())
    assert isinstance(upgraded, EvalPassed)
    assert upgraded.evaluation_id != verdict.evaluation_id
    assert upgraded.contestants == verdict.contestants


async def test_answers_of_the_base_that_cannot_be_valid_end_early_and_change_no_verdict(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator
) -> None:
    def asking_for(metric: str, **changes: Any) -> ProjectSpec:
        spec = criteria({"metric": metric, "over_base": -0.9})
        return ProjectSpec.model_validate(spec.model_dump(mode="json") | changes)

    async def judged(number: int, spec: ProjectSpec) -> tuple[Scorecard, dict[str, float], int]:
        run = await real_run(spec, run_id=f"run-{number}", dataset_id=f"ds-{number}")
        card = await read_scorecard(store, await evaluator.evaluate(run, None, lease()))
        base = next(one for one in card.contestants if one.role is Role.BASE)
        return card, base.metrics, base.cut

    early = {"evaluation": {"stop_early": True}}
    card, whole, none = await judged(1, asking_for("label_accuracy"))
    sooner, figures, cut = await judged(2, asking_for("label_accuracy", **early))
    assert (none, cut) == (0, 6)
    assert figures["answer_length"] < whole["answer_length"]
    same = ("valid_output", "label_accuracy", "exact_fields", "regression_accuracy", "perplexity")
    assert [figures[name] for name in same] == pytest.approx([whole[name] for name in same])
    assert [one.outcome for one in sooner.checks] == [one.outcome for one in card.checks]
    for number, spec in enumerate(
        (asking_for("rouge_l", **early), asking_for("label_accuracy", **early, review={"required": True})), 3
    ):
        assert (await judged(number, spec))[1:] == (whole, 0), (
            "a shortened answer is not taken for a whole one"
        )


FORM = {
    "type": "object",
    "additionalProperties": False,
    "required": ["category", "note"],
    "properties": {"category": {"enum": ["billing", "delivery"]}, "note": {"maxLength": 4, "type": "string"}},
}


async def test_answers_are_judged_in_the_form_in_which_they_serve_and_a_few_in_the_other(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator
) -> None:
    async def judged(number: int, *, champion: Champion | None = None, **changes: Any) -> Scorecard:
        task = {"system_prompt": "s", "output_schema": FORM, "label_field": "category"}
        task |= {"max_output_tokens": 90, **changes.pop("task", {})}
        criteria = [{"metric": "label_accuracy", "over_base": -0.9}]
        spec = make_spec(task=task, criteria=criteria, **changes)
        run = await real_run(spec, run_id=f"run-{number}", dataset_id=f"ds-{number}")
        return await read_scorecard(store, await evaluator.evaluate(run, champion, lease()))

    card = await judged(1, evaluation={"other_mode": 4})
    assert card.bundle is not None
    assert card.bundle.constraint == FORM
    assert {one.metrics["valid_output"] for one in card.contestants} == {1.0}
    (free,) = card.rivals
    assert (free.name, free.rows, free.metrics["valid_output"]) == (UNCONSTRAINED, 4, 0.0)

    off = await judged(2, evaluation={"other_mode": 3}, task={"constrained": False})
    assert off.bundle is not None
    assert off.bundle.constraint is None
    assert {one.metrics["valid_output"] for one in off.contestants} == {0.0}
    (held,) = off.rivals
    assert (held.name, held.rows, held.metrics["valid_output"]) == (CONSTRAINED, 3, 1.0)

    early = await judged(3, evaluation={"stop_early": True})
    bases = [next(one for one in c.contestants if one.role is Role.BASE) for c in (card, early)]
    assert [one.cut for one in bases] == [0, 6]
    assert bases[0].metrics["label_accuracy"] == bases[1].metrics["label_accuracy"]
    assert "valid_output" in bases[0].metrics
    assert not {"valid_output", "rouge_l", "answer_length"} & bases[1].metrics.keys()
    assert [one.outcome for one in card.checks] == [one.outcome for one in early.checks]


async def test_where_tokens_are_drawn_the_scorecard_says_how_far_repeats_differ(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {"decoding": {"temperature": 1.5}, "repeats": 2, "repeat_rows": 4}
    event = await real_run(make_spec(evaluation=drawn))
    verdict = await evaluator.evaluate(event, None, lease())
    assert isinstance(verdict, EvalPassed)
    card = await read_scorecard(store, verdict)
    spread = card.metrics["answer_length"].repeat_spread
    assert spread is not None
    assert spread > 0
    assert card.metrics["perplexity"].repeat_spread == 0  # the experts' answers are not drawn
    page = await store.read(verdict.scorecard.path.replace(".json", ".html")) or b""
    assert f"repeats differ by {spread:.3g}".encode() in page
    monkeypatch.setattr(evaluation, "run_worker", None)  # the repeats are kept with the other rows
    monkeypatch.setattr(planning, "SCORING", planning.SCORING + 1)
    _, again = await evaluator.evaluate_again(asking(None), lease())
    assert isinstance(again, EvalPassed)
    assert (await read_scorecard(store, again)).metrics == card.metrics


PROMPTED = {"best_prompt": "Answer with JSON, and nothing else."}


@pytest.mark.parametrize(("asked", "of_base"), [({}, 9), (PROMPTED, 15)], ids=["plain", "best prompt"])
async def test_the_base_is_measured_once_whichever_run_comes_next(
    real_run: MakeRun,
    evaluator: Evaluator,
    adapters: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, str],
    of_base: int,
) -> None:
    spec = make_spec(evaluation=asked)
    await evaluator.evaluate(await real_run(spec), None, lease())
    seeded: dict[Role, int] = {}
    run_worker = evaluation.run_worker

    async def noted(path: Path, **options: Any) -> None:
        for one in Job.model_validate_json(path.read_text("utf-8")).contestants:
            found = read_measurement(one.seeds[0].read_text("utf-8"))
            seeded[one.role] = len(found.rows) if found else 0
        await run_worker(path, **options)

    monkeypatch.setattr(evaluation, "run_worker", noted)
    await evaluator.evaluate(
        await real_run(spec, run_id="run-2", dataset_id="ds-2", adapter=adapters[1]), None, lease()
    )
    assert seeded == {Role.CANDIDATE: 0, Role.BASE: of_base}


async def test_the_base_with_the_best_prompt_counts_in_no_criterion(
    real_run: MakeRun, evaluator: Evaluator, store: ObjectStore
) -> None:
    spec = make_spec(evaluation=PROMPTED)
    card = await read_scorecard(store, await evaluator.evaluate(await real_run(spec), None, lease()))
    (rival,) = card.rivals
    assert (rival.name, rival.rows, rival.seconds) == (BEST_PROMPT, 6, None)
    base = next(one for one in card.contestants if one.role is Role.BASE)
    assert rival.metrics["perplexity"] != base.metrics["perplexity"]
    assert rival.against(base.metrics).startswith(f"{BEST_PROMPT} gets ")
    assert len(card.checks) == 1


async def test_an_approval_holds_for_later_evaluations_and_a_rejection_too(
    real_run: MakeRun, evaluator: Evaluator, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def anybody(_: ReviewSubmitted) -> None: ...

    spec = make_spec(review={"required": True})
    verdict = await evaluator.evaluate(await real_run(spec), None, lease())
    assert isinstance(verdict, ReviewRequested)
    said = {"project": "desk", "run_id": "run-1", "reviewer": "ada", "verdict": "approved"}
    await settle(store, ReviewSubmitted.model_validate(said), check=anybody)
    monkeypatch.setattr(planning, "SCORING", planning.SCORING + 1)
    _, again = await evaluator.evaluate_again(asking(None), lease())
    assert isinstance(again, EvalPassed)
    assert (again.reviewed_by, again.evaluation_id == verdict.evaluation_id) == ("ada", False)
    await settle(store, ReviewSubmitted.model_validate(said | {"verdict": "rejected"}), check=anybody)
    monkeypatch.setattr(planning, "SCORING", planning.SCORING + 1)
    _, final = await evaluator.evaluate_again(asking(None, request="once more, please"), lease())
    assert isinstance(final, EvalFailed)
    assert final.field == "review"


async def test_one_overlong_row_is_left_out_and_counted(
    real_run: MakeRun, evaluator: Evaluator, store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    long = examples[0].messages[2].model_copy(update={"content": "ring " * 20_000})
    odd = examples[0].model_copy(update={"messages": (*examples[0].messages[:2], long), "trust": "corrected"})
    unchecked = examples[1].model_copy(update={"trust": "unverified"})
    verdict = await evaluator.evaluate(await real_run(holdout=(odd, unchecked, *examples[2:])), None, lease())
    assert isinstance(verdict, EvalPassed)
    card = await read_scorecard(store, verdict)
    assert card.unvalidated == 1
    assert card.left_out == {"too_long": 1}
    assert {one.metrics["examples"] for one in card.contestants} == {5.0}
    assert card.generations is not None
    assert b"ring ring" not in await store.get(card.generations)


@pytest.mark.parametrize("holdout", ["one", "constant labels", "one without an answer"])
async def test_a_holdout_that_says_little_has_a_clear_outcome(
    holdout: str, real_run: MakeRun, evaluator: Evaluator, examples: tuple[ChatExample, ...]
) -> None:
    held = {
        "one": examples[:1],
        "constant labels": tuple(one for one in examples if "delivery" in one.messages[2].content),
        "one without an answer": (examples[0].model_copy(update={"messages": examples[0].messages[:2]}),),
    }[holdout]
    schema = {"not": {}}  # nothing fits it
    spec = make_spec(task={"system_prompt": "s", "output_schema": schema, "max_output_tokens": 12})
    verdict = await evaluator.evaluate(await real_run(spec, holdout=held), None, lease())
    if holdout == "one without an answer":
        assert isinstance(verdict, EvalFailed)
        assert verdict.field == "dataset.holdout"
        assert "does not end with an assistant's answer" in verdict.reasons[0]
        return
    assert isinstance(verdict, EvalPassed)
    assert {one.metrics["valid_output"] for one in verdict.contestants} == {0.0}
    assert {one.metrics["examples"] for one in verdict.contestants} == {float(len(held))}


async def test_an_erased_example_is_measured_no_more_and_its_late_rows_go(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator, erased: Erased, settings: Settings
) -> None:
    first = await real_run()
    await evaluator.evaluate(first, None, lease())
    event = await proof(store, first.dataset_id, "rec-2")
    erased.apply(event)
    again = first.model_copy(update={"run_id": "run-2"})
    verdict = await evaluator.evaluate(again, None, lease())
    assert isinstance(verdict, EvalPassed)
    card = await read_scorecard(store, verdict)
    assert card.contestants[0].metrics["examples"] == 5
    assert card.generations is not None
    assert b"ex-2" not in await store.get(card.generations)
    await erased.forget_in(first.project, first.dataset_id, store)
    left = [await store.read(path) or b"" for path in await store.list("scorecards") if "gener" in path]
    assert len(left) == 2
    assert not any(b"ex-2" in lines for lines in left)


async def test_a_run_of_which_every_held_out_example_was_erased_fails_at_once(
    make_run: MakeRun, store: ObjectStore, evaluator: Evaluator, erased: Erased
) -> None:
    event = await make_run()
    erased.apply(await proof(store, event.dataset_id, *(f"rec-{number}" for number in range(6))))
    verdict = await evaluator.evaluate(event, None, lease())
    assert isinstance(verdict, EvalFailed)
    assert verdict.reasons[0].startswith("dataset.holdout: every held-out example was erased")
    assert await store.list("attempts") == []


async def test_nothing_of_a_judged_run_stays_on_this_disk(
    make_run: MakeRun, evaluator: Evaluator, store: ObjectStore, settings: Settings
) -> None:
    """A lease that moved left its work behind; where the run was judged elsewhere it is of no use."""
    event = await make_run()
    manifest = await read_manifest(store, event.dataset)
    plan = await pin(store, make_plan(event, manifest, None, regression=event.dataset))
    judged = refusal(plan, UnfitCandidate(field="adapter", reason="is broken"))
    await store.put(plan.scorecard_path, judged.model_dump_json().encode())
    root = settings.work_for("eval")
    for name in (plan.scorecard_id, "scorecard-open"):
        (root / name / "models").mkdir(parents=True)
        (root / name / "candidate.jsonl").write_text("{}")
    assert isinstance(await evaluator.evaluate(event, None, lease()), EvalFailed)
    assert [left.name for left in root.iterdir()] == ["scorecard-open"]


async def test_a_champion_whose_files_are_gone_is_named_and_blocks_no_other_run(
    make_run: MakeRun, evaluator: Evaluator, store: ObjectStore
) -> None:
    event = await make_run()
    path = "adapters/desk-champion"
    files = tuple(
        file.model_copy(update={"path": f"{path}/{Path(file.path).name}", "sha256": "1" * 64})
        for file in event.adapter.files
    )
    gone = {"model_id": "desk-champion", "path": path, "files": files}
    champion = Champion(adapter=event.adapter.model_copy(update=gone))
    with pytest.raises(InvalidEvent, match=r"desk-champion.*restore") as caught:
        await evaluator.evaluate(event, champion, lease())
    assert caught.value.field == "champion.files"
    assert await store.list("scorecards") == []


async def test_missed_criterion_fails_with_its_figures(real_run: MakeRun, evaluator: Evaluator) -> None:
    spec = criteria({"metric": "valid_output", "minimum": 0.95}, {"metric": "perplexity", "minimum": 1})
    event = await real_run(spec)
    verdict = await evaluator.evaluate(event, None, lease())
    assert isinstance(verdict, EvalFailed)
    assert verdict.reasons == ("valid_output is 0 (0 to 0.586): misses the minimum of 0.95",)
    assert [check.passed for check in verdict.checks] == [False, True]
    assert verdict.field is None


async def test_a_criterion_names_any_metric_and_one_that_nobody_knows_is_missed(
    real_run: MakeRun, evaluator: Evaluator, store: ObjectStore
) -> None:
    """Such a spec came onto the log by another way than the command's."""
    asked = ({"metric": "politeness", "minimum": 0.1}, {"metric": "invented_terms", "minimum": 0})
    verdict = await evaluator.evaluate(await real_run(criteria(*asked)), None, lease())
    assert isinstance(verdict, EvalFailed)
    (reason,) = verdict.reasons
    assert reason.startswith("politeness was not measured: 'politeness' is no known metric; choose from ")
    card = await read_scorecard(store, verdict)
    assert {"invented_terms", "chrf", "perplexity_per_character"} <= card.contestants[0].metrics.keys()
    assert card.metrics["perplexity_per_character"].unit == "perplexity per character"
    assert card.metrics["invented_terms"].lower_is_better


async def test_a_sample_too_small_to_tell_is_undecided_and_says_how_many_more_would_do(
    real_run: MakeRun, evaluator: Evaluator, store: ObjectStore
) -> None:
    event = await real_run(criteria({"metric": "valid_output", "maximum": 0.5}))
    verdict = await evaluator.evaluate(event, None, lease())
    assert isinstance(verdict, EvalUndecided)
    assert verdict.moves_model
    assert verdict.more_examples is not None
    assert 1 <= verdict.more_examples <= 12
    assert "cannot be told from the maximum of 0.5" in verdict.reasons[0]
    card = await read_scorecard(store, verdict)
    assert (card.passed, card.looks, card.left_out) == (False, 1, {})
    assert {one.against for one in card.findings} == {"base"}
    assert await evaluator.evaluate(event, None, lease()) == verdict
    assert len(await store.list("looks/desk")) == 1


async def test_a_holdout_that_was_looked_at_too_often_decides_nothing(
    make_run: MakeRun, evaluator: Evaluator, store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    for number in range(LOOKS):
        name = f"scorecard-{number:04}"
        await Looks(store).take(Fresh(examples, 1, 0), project="desk", scorecard_id=name, of=LOOKS)
    event = await make_run()
    verdict = await evaluator.evaluate(event, None, lease())
    assert isinstance(verdict, EvalUndecided)
    assert (verdict.field, verdict.more_examples) == ("holdout", None)
    assert "as many verdicts as evaluation.looks allows" in verdict.reasons[0]
    assert await evaluator.evaluate(event, None, lease()) == verdict
    assert len(await store.list("looks/desk")) == LOOKS


async def test_adapter_that_is_not_safetensors_fails_with_its_field(
    real_run: MakeRun, evaluator: Evaluator, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_bytes((adapters[0] / "adapter_config.json").read_bytes())
    (broken / "adapter_model.safetensors").write_bytes(b"\x80\x04 a pickle by another name")
    event = await real_run(adapter=broken)
    verdict = await evaluator.evaluate(event, None, lease())
    assert isinstance(verdict, EvalFailed)
    assert verdict.field == "adapter"
    assert "is not a safetensors file" in verdict.reasons[0]
    assert (verdict.contestants, verdict.checks) == ((), ())
    assert await evaluator.evaluate(event, None, lease()) == verdict


async def test_lost_lease_leaves_no_verdict_and_the_next_owner_gives_it(
    real_run: MakeRun, evaluator: Evaluator, store: ObjectStore
) -> None:
    event = await real_run()
    lost = lease()
    lost.lose("moved")
    with pytest.raises(LeaseLost):
        await evaluator.evaluate(event, None, lost)
    assert await store.list("scorecards") == []
    assert isinstance(await evaluator.evaluate(event, None, lease()), EvalPassed)


async def test_a_run_that_cannot_be_measured_fails_after_its_attempts_with_the_reason(
    real_run: MakeRun, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch, store: ObjectStore
) -> None:
    batches: list[int] = []

    async def killed(job: Path, **_: Any) -> None:
        batches.append(Job.model_validate_json(job.read_text("utf-8")).batch_size)
        raise WorkerFailed("the measuring process was killed")

    monkeypatch.setattr(evaluation, "run_worker", killed)
    event = await real_run()
    verdict = await evaluator.evaluate(event, None, lease())
    assert isinstance(verdict, EvalFailed)
    assert batches == [4, 1, 1]
    assert verdict.field == "(evaluation)"
    assert "3 attempts" in verdict.reasons[0]
    assert "was killed" in verdict.reasons[0]
    assert await evaluator.evaluate(event, None, lease()) == verdict
    assert len(batches) == 3


async def test_a_killed_service_counts_and_an_attempt_that_came_further_does_not(
    real_run: MakeRun, evaluator: Evaluator, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = await real_run()
    further = 0

    async def dies(job: Path, **_: Any) -> None:
        if further:
            with (job.parent / "candidate.jsonl").open("a") as rows:
                rows.write("{}\n")
        raise KeyError("a fault of ours")

    monkeypatch.setattr(evaluation, "run_worker", dies)
    further = 1
    for _ in range(2 * settings.eval_attempts):
        with pytest.raises(KeyError):
            await evaluator.evaluate(event, None, lease())
    further = 0
    for _ in range(settings.eval_attempts - 1):
        with pytest.raises(KeyError):
            await evaluator.evaluate(event, None, lease())
    assert isinstance(await evaluator.evaluate(event, None, lease()), EvalFailed)


async def test_requests_that_lead_to_one_evaluation_measure_it_once_beside_another_runs(
    real_run: MakeRun, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's files are in one folder, where two measurements at once would mix their rows."""
    one, other = await real_run(make_spec()), await real_run(make_spec(), run_id="run-other")
    measured, both, running, begun = evaluation.run_worker, asyncio.Event(), set[Path](), list[Path]()
    loading = asyncio.Lock()

    async def run(job: Path, **rest: Any) -> None:
        begun.append(job)
        running.add(job)
        if len(running) == 2:
            both.set()
        await both.wait()
        async with loading:  # both are measured in this process, where transformers loads one model at a time
            await measured(job, **rest)
        running.remove(job)

    monkeypatch.setattr(evaluation, "run_worker", run)
    verdicts = await asyncio.gather(
        *(evaluator.evaluate(event, None, lease()) for event in (one, one, other, one))
    )
    assert len(set(begun)) == len(begun) == 2
    assert verdicts[0] == verdicts[1] == verdicts[3]
    assert verdicts[2].run_id == "run-other"


async def test_malformed_regression_set_stops_the_service(store: ObjectStore, settings: Settings) -> None:
    assert settings.eval_regression_set is not None
    settings.eval_regression_set.write_text("{}\n")
    with pytest.raises(ValueError, match=r"regression\.jsonl, line 1"):
        await Evaluator(store, settings, Erased()).prepare()
