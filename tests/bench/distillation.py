"""What a teacher adds to few experts' answers: intents of banking77, learnt from 100 experts' rows alone, and
with a teacher's answers to 600 further questions (docs/training.md, "Distillation").

No larger language model is at hand, so the teacher is a classifier behind an OpenAI-compatible endpoint:
words and pairs of words, weighed, and a logistic regression, trained on those of banking77's training rows
that the student gets neither as an expert's answer nor as a question. It makes mistakes, and its accuracy is
reported. It stands for a teacher that knows more than the student; a language model would make other
mistakes.

The product asks the teacher and checks and marks its answers (``TaughtAnswers``), makes records of them and
of the experts' answers (``example_record``), and builds a version of them (``build``), all without Kafka. The
version's training rows train SmolLM2-135M-Instruct by the product's LoRA. No test row has the text of a
training row.

- ``expert``: the experts' rows alone.
- ``taught``: experts' rows and the teacher's answers.
- ``labelled``: as ``taught``, but the further questions have the right answers of experts: what the teacher's
  mistakes cost.
- ``longer``: the experts' rows alone, for about as many steps as ``taught`` takes.

Declared before the first run, and not tuned on the test rows: all numbers below. The report has the
difference of two contenders over the same rows with its 95 % interval, by the test of the verdicts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpo
import quality
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_train.runs.process import environment

CONTENDERS = ("expert", "taught", "longer", "labelled")
AGAINST = (("taught", "expert"), ("taught", "longer"), ("labelled", "taught"), ("longer", "expert"))
MODEL = "some/teacher"
PROJECT = "bank"
AT_ONCE = 200
"""The most prompts of one request for labels."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=quality.DATA / "banking77")
    parser.add_argument("--intents", type=int, default=20)
    parser.add_argument("--rows", type=int, default=100, help="of experts")
    parser.add_argument("--asked", type=int, default=600, help="questions that the teacher is asked")
    parser.add_argument("--test-examples", type=int, default=300)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=1, help="0: all")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--cache-dir", type=Path, default=quality.ROOT / "var" / "cache")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not chosen.data.is_dir():
        sys.exit(f"{chosen.data} is missing: the benchmark needs banking77's train.csv and test.csv there")
    if chosen.contender:
        print(json.dumps(measure(chosen.contender, chosen)))
        return
    with tempfile.TemporaryDirectory() as name:
        taught = asyncio.run(versions(Path(name), chosen))
        print(json.dumps(taught, indent=2), flush=True)
        figures: dict[str, dict[str, Any]] = {}
        for contender in chosen.only:  # written after each, so that what is measured is not lost
            figures[contender] = in_own_process(contender, Path(name), chosen)
            write(figures, taught, chosen)


def write(figures: dict[str, dict[str, Any]], taught: dict[str, Any], chosen: argparse.Namespace) -> None:
    from report import write_report

    write_report(
        "distillation",
        packages=("torch", "transformers", "trl", "peft", "scikit-learn"),
        contenders={
            name: {key: value for key, value in found.items() if key != "right_rows"}
            for name, found in figures.items()
        },
        ratios={},
        differences={
            f"{one} - {other}": grpo.difference(figures[one]["right_rows"], figures[other]["right_rows"])
            for one, other in AGAINST
            if {one, other} <= figures.keys()
        },
        taught=taught,
        rows=chosen.rows,
        test_examples=chosen.test_examples,
        epochs=chosen.epochs,
        seed=quality.SEED,
    )


async def versions(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Write the training rows of each contender; return what the teacher is worth and what was kept."""
    from tunewheel_testing.teachers import Teacher

    train, test = grpo.read(chosen, rows=sys.maxsize)
    rows = quality.by_intent(train, chosen.rows + chosen.asked)
    questions, students = rows[chosen.rows :], set(rows)
    model = classifier([pair for pair in train if pair not in students])
    teacher = Teacher()
    teacher.replies = [lambda asked: quality.answer(model.predict([asked])[0])]
    try:
        spec = spec_of(teacher.url, sorted({intent for _, intent in train}))
        answers = await ask(spec, questions)
    finally:
        teacher.close()
    truth = dict(questions)
    kept: dict[str, dict[str, int]] = {}
    published = [expert(f"E-{number}", *pair) for number, pair in enumerate(rows)]
    own, more = published[: chosen.rows], published[chosen.rows :]
    for name, examples in (("expert", own), ("taught", own + answers), ("labelled", own + more)):
        if name in chosen.only or (name == "expert" and "longer" in chosen.only):
            kept[name] = build_version(examples, spec, folder / f"{name}.parquet")
    return {
        "teacher_accuracy_on_test": score(model, test),
        "asked": len(questions),
        "kept_by_the_door": len(answers),
        "right_of_kept": sum(truth[a.input] == a.output["intent"] for a in answers) / len(answers),
        "training_rows": kept,
    }


def classifier(pairs: quality.Pairs) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(C=10, max_iter=1000))
    return model.fit([text for text, _ in pairs], [intent for _, intent in pairs])


def score(model: Any, pairs: quality.Pairs) -> float:
    return float(model.score([text for text, _ in pairs], [intent for _, intent in pairs]))


def spec_of(teacher_url: str, intents: list[str]) -> ProjectSpec:
    teacher = {"base_url": teacher_url, "model": MODEL}
    return ProjectSpec.model_validate(
        {
            "project": PROJECT, "base_model": quality.BASE,
            "task": {
                "system_prompt": quality.SYSTEM, "label_field": "intent",
                "max_output_tokens": quality.MAX_OUTPUT_TOKENS,
                "output_schema": {
                    "type": "object", "properties": {"intent": {"enum": intents}},
                    "required": ["intent"], "additionalProperties": False,
                },
            },
            "dataset": {
                "holdout_fraction": 0.05,  # the least: the benchmark has test rows of its own
                "formats": {"documents": {"questions": {"teacher": teacher}}},
            },
            "drift": {"labels": {"teacher_quota": 10_000}},
            "criteria": [{"metric": "label_accuracy", "minimum": 0.5}],
        }
    )  # fmt: skip


async def ask(spec: ProjectSpec, questions: quality.Pairs) -> list[Any]:
    """Let the product ask the teacher, and return the examples that it publishes, in the questions' order."""
    from aiokafka import TopicPartition
    from tunewheel_contracts.event import new_event
    from tunewheel_contracts.events.turns import LabelsRequested
    from tunewheel_contracts.formats.allowed_sources import AllowedSources
    from tunewheel_contracts.formats.dataset import ChatMessage
    from tunewheel_contracts.formats.label_prompts import LabelPrompt, LabelPrompts
    from tunewheel_curate.labelling.taught_answers import TaughtAnswers
    from tunewheel_runtime.jobs import Lease
    from tunewheel_runtime.store import ObjectStore

    store, published = ObjectStore("memory://"), dict[str, Any]()

    async def publish(example: Any, _: Any) -> None:
        published[example.example_id] = example

    taught = TaughtAnswers(store, AllowedSources(hosts="127.0.0.1"), publish)
    lease = Lease(TopicPartition("labels.requested", 0))
    for at in range(0, len(questions), AT_ONCE):
        items = tuple(
            LabelPrompt(
                completion_id=f"cmpl-{number:04}", customer=f"taught-{number:04}",
                messages=(ChatMessage(role="user", content=text),),
            )
            for number, (text, _) in enumerate(questions[at : at + AT_ONCE], at)
        )  # fmt: skip
        request = f"request-{at}"
        prompts = LabelPrompts(project=PROJECT, request_id=request, items=items)
        await store.replace(f"{request}.json", prompts.model_dump_json().encode())
        asked = LabelsRequested(
            project=PROJECT, request_id=request, alarm_id=request, dataset_id="ds-1", wanted=len(items),
            completion_ids=tuple(item.completion_id for item in items), prompts=f"{request}.json",
        )  # fmt: skip
        await taught.answer(new_event(asked, source="/bench", time=NOW), spec, lease)
    return [published[name] for name in sorted(published)]


def expert(name: str, text: str, intent: str) -> Any:
    from tunewheel_contracts.events.upstream import ExamplePublished

    return ExamplePublished(
        project=PROJECT, example_id=name, input=text, output={"intent": intent}, group=name,
        validated_by="expert", validated_at=NOW,
    )  # fmt: skip


def build_version(published: list[Any], spec: ProjectSpec, path: Path) -> dict[str, int]:
    """Write the training rows that the product makes of the examples; return how many of which trust, and why
    the others do not train."""
    from tunewheel_contracts.event import new_event
    from tunewheel_curate.pipeline import build
    from tunewheel_curate.records.log import rows_of
    from tunewheel_ingest.handlers import made
    from tunewheel_ingest.records import example_record
    from tunewheel_runtime.consuming import Delivery
    from tunewheel_runtime.deadletter import Position

    deliveries: list[Any] = []
    for number, example in enumerate(published):
        event = new_event(example, source="/bench", time=NOW)
        record = made(example_record(event), event)
        assert record is not None
        deliveries.append(Delivery(record, Position("record.ingested", 0, number), {}))
    version = build(rows_of(deliveries), spec)
    train = version.split.train
    train.write_parquet(path)
    trusts = {row["trust"]: row["len"] for row in train.group_by("trust").len().to_dicts()}
    why = version.lineage.drop_nulls("reason").group_by("reason").len().to_dicts()
    return trusts | {row["reason"]: row["len"] for row in why} | {"held_out": version.split.holdout.height}


def in_own_process(name: str, folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    told = ("data", "intents", "rows", "asked", "test_examples", "epochs", "threads", "cache_dir")
    given = [text for one in told for text in (f"--{one.replace('_', '-')}", str(getattr(chosen, one)))]
    rows = folder / f"{'expert' if name == 'longer' else name}.parquet"
    command = [sys.executable, __file__, "--contender", name, "--train", str(rows), *given]
    done = subprocess.run(
        command, env=environment(chosen.threads), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, chosen: argparse.Namespace) -> dict[str, Any]:
    from tunewheel_outputs.labels import same_label

    _, test = grpo.read(chosen)
    started, begun = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = fine_tune(name, folder, chosen)
        answers, _ = quality.ask("lora", test, folder, argparse.Namespace(**{**vars(chosen), "general": 0}))
    right = [same_label(a, quality.answer(i), "intent") for a, (_, i) in zip(answers, test, strict=True)]
    return {
        **quality.score(answers, [intent for _, intent in test]),
        **found,
        "right_rows": right,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - begun, 1),
    }


def fine_tune(name: str, folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    from tunewheel_contracts.formats.recipe import TrainSpec
    from tunewheel_train.job import Job
    from tunewheel_train.recipe import train as train_by_recipe

    further = (chosen.rows + chosen.asked) / chosen.rows if name == "longer" else 1
    recipe = TrainSpec.model_validate(
        {
            "learning_rate": quality.RATES["lora"], "epochs": chosen.epochs * further, "batch_size": 8,
            "micro_batch_size": 8, "patience": 0, "checkpoint_steps": 10**6, "max_tokens": 512,
            "seed": quality.SEED,
        }
    )  # fmt: skip
    job = Job(
        run_id=f"run-{name}", base_model=quality.BASE, train_path=chosen.train, output_dir=folder / "model",
        work_dir=folder / "work", cache_dir=chosen.cache_dir, recipe=recipe,
    )  # fmt: skip
    done = train_by_recipe(job, report=quality.note)
    told = {key: round(value, 4) for key, value in done.metrics.items()}
    return {"steps": done.steps, "tokens": done.tokens, "train_seconds": round(done.wall_seconds, 1), **told}


if __name__ == "__main__":
    main()
