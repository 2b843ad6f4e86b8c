"""The four cells on the bundled example or a public set (``subjects``): SmolLM2-135M-Instruct and an adapter,
each with passages and without, on held-out questions; then the same after every number of the documents
changed.

    make bench NAME=cells ARGS="--subject dolly --trained-with-passages"

Training is the subject's own recipe, without passages, or (``--trained-with-passages``) with the passages
that curate's own chooser gives each prompt; looking up, answering and judging are the product's own
(``LookUp``, ``measure``, ``retrieval_scores``). For stale answers each number of two digits or more in the
documents becomes seven more, and the same adapter is asked again. Those figures say what passages can do
where a model knows the old text, not how often documents change.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from report import write_report
from subjects import SUBJECTS
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset import ChatExample, ChatMessage
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.retrieval_scores import RetrievalScores
from tunewheel_contracts.formats.retrieval_spec import RetrievedTraining
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_curate.inputs import OpenIndex, open_for_build
from tunewheel_curate.passages.choosing import Chooser, Row
from tunewheel_eval.clusters import of_examples
from tunewheel_eval.job import ContestantJob, Job
from tunewheel_eval.measurement import Measurement, read_measurement
from tunewheel_eval.measuring import measure
from tunewheel_eval.metrics import outcomes
from tunewheel_eval.passages.looked_up import LookedUp
from tunewheel_eval.passages.looking_up import LookUp
from tunewheel_eval.passages.scores import Answers, retrieval_scores
from tunewheel_outputs import metric
from tunewheel_retrieval.prompts import context_of, question_of, with_context
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.indexes import put_index

ROOT = Path(__file__).resolve().parents[2]

WITH_PASSAGES_TOKENS = 768
"""Longest conversation that is trained on where passages stand in it."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--subject", choices=SUBJECTS, default="helpdesk")
    parser.add_argument("--questions", type=int, default=2000, help="most questions that all cells are asked")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--trained-with-passages", action="store_true", help="as curate does it (RAFT)")
    parser.add_argument("--cache-dir", type=Path, default=ROOT / "var" / "cache")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measured(Path(folder), chosen))
    packages = ("torch", "transformers", "peft")
    name = f"cells_{chosen.subject}" + "_raft" * chosen.trained_with_passages
    write_report(name, packages=packages, contenders=found, ratios={}, load_average=os.getloadavg())


async def measured(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    subject = SUBJECTS[chosen.subject]()
    spec = chosen_spec(subject.spec, chosen)
    train, held = subject.train, subject.held[: chosen.questions]
    store = ObjectStore(f"file://{folder}/store")
    assert spec.retrieval is not None
    old = await put_index(store, spec.project, subject.documents, spec.retrieval)
    changed = {
        name: re.sub(r"\b\d{2,}\b", lambda n: str(int(n[0]) + 7), text)
        for name, text in subject.documents.items()
    }
    new = await put_index(store, spec.project, changed, spec.retrieval)
    if chosen.trained_with_passages:
        train = with_passages(
            train, await open_for_build(store, old.manifest, spec.retrieval.embedding), spec
        )
    started = time.perf_counter()
    fine_tune(spec, train, folder, chosen)
    trained = time.perf_counter() - started
    found: dict[str, Any] = {}
    for name, index, before in (("as trained", old, None), ("all numbers changed", new, old)):
        started = time.perf_counter()
        scores = await judged(spec, held, store, index, before, folder, chosen)
        seconds = {"train_seconds": trained, "evaluate_seconds": time.perf_counter() - started}
        found[name] = scores.model_dump(mode="json") | seconds
    return found


def chosen_spec(spec: ProjectSpec, chosen: argparse.Namespace) -> ProjectSpec:
    evaluation = spec.evaluation.model_copy(update={"cells": chosen.questions})
    update: dict[str, Any] = {"evaluation": evaluation}
    if chosen.trained_with_passages:
        assert spec.retrieval is not None
        raft = {"default": "on", "training": RetrievedTraining()}
        update |= {
            "retrieval": spec.retrieval.model_copy(update=raft),
            "train": spec.train.model_copy(update={"max_tokens": WITH_PASSAGES_TOKENS}),
        }
    return spec.model_copy(update=update)


def with_passages(rows: list[ChatExample], opened: OpenIndex, spec: ProjectSpec) -> list[ChatExample]:
    """Return the examples with passages in their prompts."""
    assert spec.retrieval is not None
    assert opened.units is not None
    chooser = Chooser(opened.index, spec.retrieval, {passage.passage_id for passage in opened.index.rows})
    found: list[ChatExample] = []
    for example in rows:
        *before, answer = example.messages
        turns = [{"role": one.role, "content": one.content} for one in before]
        row = Row(example.example_id, turns, (answer.content,))
        (vector,) = opened.units([question_of(turns)])
        context = context_of(spec.retrieval, chooser.ordered(row, chooser.choose(row, vector)))
        told = map(ChatMessage.model_validate, with_context(turns, context))
        found.append(example.model_copy(update={"messages": (*told, answer)}))
    return found


def fine_tune(spec: ProjectSpec, train: list[ChatExample], folder: Path, chosen: argparse.Namespace) -> None:
    import polars as pl
    from tunewheel_train.job import Job as TrainJob
    from tunewheel_train.recipe import train as train_by_recipe

    path = folder / "train.parquet"
    pl.DataFrame([one.model_dump(mode="json") for one in train]).write_parquet(path)
    recipe = spec.train.model_copy(update={"patience": 0, "checkpoint_steps": 10**6, "epochs": chosen.epochs})
    job = TrainJob(
        run_id="run-cells", base_model=spec.base_model, train_path=path, output_dir=folder / "model",
        work_dir=folder / "work", cache_dir=chosen.cache_dir, recipe=recipe,
    )  # fmt: skip
    train_by_recipe(job, report=lambda said: print(said.model_dump_json(exclude_none=True)[:160], flush=True))


async def judged(
    spec: ProjectSpec,
    held: list[ChatExample],
    store: ObjectStore,
    index: IndexVersioned,
    before: IndexVersioned | None,
    folder: Path,
    chosen: argparse.Namespace,
) -> RetrievalScores:
    plan = EvaluationPlan.model_construct(
        project=spec.project, run_id="run-cells", criteria=(), index=index.manifest, index_id=index.index_id
    )
    look_up = LookUp(store, AllowedSources())
    looked = await look_up.of(
        plan, spec.retrieval, held, before=before.manifest if before is not None else None
    )
    assert looked is not None
    done = await asyncio.to_thread(answers, spec, held, looked, folder, chosen)
    rows = looked.labelled(held)
    ranked = [
        metric.Row(output="", rank=looked.found[held[row].example_id].rank, top_k=looked.spec.top_k)
        for row in rows
    ]
    asked = [looked.asked(one, with_passages=looked.serves) for one in held]
    texts = looked.texts() if looked.serves else {}
    candidate = outcomes(done[Role.CANDIDATE], asked, (), spec.task, passages=texts, ranked=ranked)
    clusters = of_examples(held)[rows]
    return retrieval_scores(
        Answers(spec, looked, done, trained_with_passages=spec.trains_with_passages),
        held,
        candidate,
        clusters,
        criteria=spec.criteria,
        corpus=frozenset(),
        seed=1,
    )


def answers(
    spec: ProjectSpec, held: list[ChatExample], looked: LookedUp, folder: Path, chosen: argparse.Namespace
) -> dict[Role, Measurement]:
    """Return what base and adapter answer; what was asked before is not asked again."""
    from tunewheel_basemodel.locate import locate_base_model

    base = locate_base_model(spec.base_model, cache_dir=chosen.cache_dir)
    served = [looked.asked(one, with_passages=looked.serves) for one in held]
    other = [looked.asked(one, with_passages=not looked.serves) for one in held]
    ref = BaseModelRef(name=base.name, revision=base.revision)
    contestants = tuple(
        ContestantJob(
            role=role,
            model_key=role.value,
            base=ref,
            directory=directory,
            rows=folder / f"{role.value}.jsonl",
        )
        for role, directory in ((Role.CANDIDATE, folder / "model"), (Role.BASE, None))
    )
    limit = spec.task.max_output_tokens
    job = Job(
        contestants=contestants, examples=tuple(served), others=tuple(other), items=(),
        retrieval=looked.spec, with_passages=looked.by_key(held, max_output_tokens=limit),
        max_output_tokens=limit, cache_dir=chosen.cache_dir,
    )  # fmt: skip
    measure(job, lambda said: print(said.model_dump_json(), flush=True))
    found = {one.role: read_measurement(one.rows.read_text("utf-8")) for one in contestants}
    return {role: one for role, one in found.items() if one is not None}


if __name__ == "__main__":
    main()
