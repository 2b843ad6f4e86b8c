"""How often both turns of the bundled example pass their verdict, and how good their answers are: build,
training and verdict by the services' own code, without Kafka, one seed after the other.

    make bench NAME=first_turns ARGS="--seeds 20"        four to eight minutes a seed on two cores

A seed is the seed of both trainings, and the key of curate's pseudonyms, which decides who is held out. The
second turn holds the first wave and the second, as the demo's, and remembers what the first held out. Each
finished seed is a line of ``var/bench/first_turns/seeds.jsonl``: after an interruption the same command goes
on with the seeds that have none. ``--spec FILE`` tries another project.yaml, ``--folder`` keeps its lines
apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from report import BENCH_DIR, write_report
from tunewheel_basemodel.facts import facts_of
from tunewheel_basemodel.locate import locate_base_model
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset import ChatExample, ChatMessage
from tunewheel_contracts.formats.recipe import CHAMPION
from tunewheel_contracts.formats.regression_items import general_items
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import ProjectSpec, parse_spec
from tunewheel_curate.evaluation.benchmarks import regression_benchmark
from tunewheel_curate.inputs import Inputs, Pinned
from tunewheel_curate.pipeline import Build, build
from tunewheel_curate.replay.sources import read_replay
from tunewheel_curate.stage import RECORD_SCHEMA
from tunewheel_curate.versions.versioning import write_version
from tunewheel_demo.gauge import fast_precision
from tunewheel_eval.clusters import of_examples, of_items
from tunewheel_eval.comparisons import measured
from tunewheel_eval.job import ContestantJob, Job, Progress
from tunewheel_eval.measurement import HoldoutRow, Measurement, example_key, read_measurement
from tunewheel_eval.metrics import outcomes
from tunewheel_eval.worker_process import run_worker
from tunewheel_outputs.parsing import Unparsed, parse
from tunewheel_train.job import Job as TrainJob
from tunewheel_train.progress import Completed, Message
from tunewheel_train.runs.process import run_process
from tunewheel_verdicts.verdict import judge, outcome_of

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "helpdesk"
CACHE = ROOT / "var" / "cache"
MODEL, TRAIN = "model", Path("dataset", "train.parquet")
WAVES = {"first": ("tickets.jsonl",), "second": ("tickets.jsonl", "second_wave.jsonl")}
QUESTIONS = {"first": "questions.jsonl", "second": "questions_second.jsonl"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--threads", type=int, default=0, help="0: all that this process may use")
    parser.add_argument("--only-first", action="store_true", help="leave the second turn out")
    parser.add_argument("--spec", type=Path, default=EXAMPLE / "project.yaml")
    parser.add_argument("--folder", type=Path, default=BENCH_DIR / "first_turns")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    log = chosen.folder / "seeds.jsonl"
    done = (
        {line["seed"]: line for line in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    )
    for seed in range(chosen.start, chosen.start + chosen.seeds):
        if seed not in done:
            done[seed] = asyncio.run(turned(seed, chosen))
            with log.open("a") as file:
                file.write(json.dumps(done[seed], ensure_ascii=False) + "\n")
    seeds = [done[seed] for seed in range(chosen.start, chosen.start + chosen.seeds)]
    figures = {turn: summary([one[turn] for one in seeds if turn in one]) for turn in WAVES}
    print(json.dumps(figures, indent=1))
    write_report(
        "first_turns", packages=("torch", "transformers", "peft", "trl"), contenders=figures, ratios={},
        seeds=len(seeds), load_average=os.getloadavg(),
    )  # fmt: skip


def summary(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Return passes, the figures' medians and extremes, and the share of right answers by label, over all
    seeds."""
    if not turns:
        return {}
    right, asked = defaultdict[str, int](int), defaultdict[str, int](int)
    for turn in turns:
        for label, (hits, rows) in turn["labels"].items():
            right[label] += hits
            asked[label] += rows
    names = [name for name, value in turns[0].items() if isinstance(value, int | float)]
    spread = {name: sorted(turn[name] for turn in turns) for name in names}
    return {
        "passed": sum(turn["outcome"] == "met" for turn in turns),
        "of": len(turns),
        "undecided": sum(turn["outcome"] == "undecided" for turn in turns),
        "median": {name: round(statistics.median(found), 4) for name, found in spread.items()},
        "least": {name: found[0] for name, found in spread.items()},
        "most": {name: found[-1] for name, found in spread.items()},
        "right_by_label": {label: round(right[label] / asked[label], 3) for label in sorted(asked)},
        "held_out_rows_by_label": dict(sorted(asked.items())),
    }


async def turned(seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Turn the wheel once or twice; return what came of it."""
    spec = parse_spec(chosen.spec.read_text("utf-8"))
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"seed": seed})})
    folder = chosen.folder / f"seed-{seed}"
    inputs = Inputs(
        benchmarks=(regression_benchmark(None),), pinned=Pinned(secret=f"seed {seed}"),
        replay=spec.dataset.replay and read_replay(spec.dataset.replay, AllowedSources()),
    )  # fmt: skip
    found: dict[str, Any] = {"seed": seed}
    champion, known = None, frozenset[str]()
    for turn in WAVES:
        if turn == "second" and chosen.only_first:
            break
        made = build(records(turn), spec, inputs)
        assert made.rejections == (), made.rejections
        inputs = replace(inputs, memory=made.memory)
        here = folder / turn
        write_version(made, spec, here / "dataset")
        trained = await train(spec, here, champion, chosen)
        judged = await evaluate(spec, made, here, champion and champion / MODEL, turn, chosen)
        labels = frozenset(judged["labels"])
        new = [judged["labels"][label] for label in labels - known] if known else []
        if new:
            judged["new_labels_right"] = round(sum(hits for hits, _ in new) / sum(rows for _, rows in new), 4)
        found[turn] = trained | judged
        champion, known = here, labels
        told = {name: value for name, value in found[turn].items() if isinstance(value, int | float | str)}
        print(seed, turn, json.dumps(told), file=sys.stderr, flush=True)
    shutil.rmtree(folder)
    return found


def records(turn: str) -> pl.DataFrame:
    """Return the tickets of the turn's waves as ingest records them."""
    rows: list[dict[str, Any]] = []
    for name in WAVES[turn]:
        for line in (EXAMPLE / name).read_text("utf-8").splitlines():
            ticket = json.loads(line)
            answer = ticket["answer"]
            rows.append(
                {
                    "project": "helpdesk", "record_id": f"rec-{ticket['ticket_id'].lower()}",
                    "kind": "ticket",
                    "source_id": ticket["ticket_id"], "source_event_id": ticket["ticket_id"],
                    "title": ticket["subject"], "input": ticket["body"],
                    "output": answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False),
                    "group": ticket["customer"], "trust": "expert", "attributes": "{}",
                    "event_id": ticket["ticket_id"], "partition": 0, "offset": len(rows),
                }
            )  # fmt: skip
    frame = pl.DataFrame(rows, schema={name: RECORD_SCHEMA[name] for name in rows[0]})
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in RECORD_SCHEMA.items() if name not in frame]
    stamped = pl.lit("2026-12-01T00:00:00Z").str.to_datetime(time_unit="us", time_zone="UTC")
    return frame.with_columns(missing).with_columns(published_at=stamped).select(list(RECORD_SCHEMA))


async def train(
    spec: ProjectSpec, folder: Path, champion: Path | None, chosen: argparse.Namespace
) -> dict[str, Any]:
    """Train as the service does, in a process of its own; return what it took. ``champion``: the folder of
    the turn before, from which a recipe may continue."""
    base = locate_base_model(spec.base_model, cache_dir=CACHE)
    job = TrainJob(
        run_id="run-bench", base_model=spec.base_model, train_path=folder / TRAIN,
        output_dir=folder / MODEL, work_dir=folder / "work", cache_dir=CACHE, recipe=spec.train,
        processes=0, base_parameters=facts_of(base).parameters,
    )  # fmt: skip
    if champion is not None and spec.train.continue_from == CHAMPION:
        job = job.model_copy(update={"start_from": champion / MODEL, "learnt_path": champion / TRAIN})
    done = folder / "trained.json"
    if done.exists():  # before an interruption
        return json.loads(done.read_text())
    began, used = time.monotonic(), children_seconds()

    async def heard(message: Message) -> None:
        pass

    last = await run_process(
        "train", job, directory=folder, threads=chosen.threads, stop=asyncio.Event(), stop_seconds=30.0,
        on_message=heard,
    )  # fmt: skip
    assert isinstance(last, Completed), last
    figures: dict[str, Any] = {
        "train_seconds": round(last.wall_seconds, 1),
        "train_process_seconds": round(time.monotonic() - began, 1),
        "train_processor_seconds": round(children_seconds() - used, 1),
        "train_tokens": last.tokens,
        "train_steps": last.steps,
        "train_loss": round(last.metrics["final_loss"], 4),
    }
    done.write_text(json.dumps(figures))
    return figures


def children_seconds() -> float:
    """Return the processor seconds of all ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def evaluate(
    spec: ProjectSpec, made: Build, folder: Path, champion: Path | None, turn: str, chosen: argparse.Namespace
) -> dict[str, Any]:
    """Measure and judge as eval does; return verdict and figures. The base is measured once for all seeds."""
    held = [ChatExample.model_validate(row) for row in made.split.holdout.to_dicts()]
    asked = questions(spec, turn)
    base = locate_base_model(spec.base_model, cache_dir=CACHE)
    ref = BaseModelRef(name=base.name, revision=base.revision)
    places = {Role.CANDIDATE: folder / MODEL, Role.BASE: None, Role.CHAMPION: champion}
    contestants = tuple(
        ContestantJob(
            role=role, model_key=role.value, base=ref, directory=place,
            rows=(chosen.folder if role is Role.BASE else folder) / f"{role.value}.jsonl",
        )
        for role, place in places.items()
        if place is not None or role is Role.BASE
    )  # fmt: skip
    limit = spec.task.max_output_tokens
    job = Job(
        contestants=contestants, examples=tuple(held), others=tuple(asked), items=general_items(),
        max_output_tokens=limit, cache_dir=CACHE, threads=chosen.threads, dtype=fast_precision(),
    )  # fmt: skip
    (path := folder / "eval.json").write_text(job.model_dump_json())
    began, used = time.monotonic(), children_seconds()

    async def heard(progress: Progress) -> None:
        pass

    await run_worker(path, lost=asyncio.Event(), on_progress=heard)
    seconds, cpu = time.monotonic() - began, children_seconds() - used
    rows = {one.role: read_measurement(one.rows.read_text("utf-8")) for one in contestants}
    found = {
        role: outcomes(one, held, general_items(), spec.task) for role, one in rows.items() if one is not None
    }
    by_metric = measured(found, holdout=of_examples(held), regression=of_items(general_items()))
    checks = judge(spec.criteria, by_metric, spec.task, resolution=spec.evaluation.resolution, seed=0)
    mine = rows[Role.CANDIDATE]
    assert mine is not None
    figures = {
        f"{name}" if role is Role.CANDIDATE else f"{name}_of_{role.value}": round(value, 4)
        for role, one in found.items()
        for name, value in one.figures().items()
        if name in ("label_accuracy", "valid_output", "exact_fields", "regression_accuracy")
    }
    return {
        "outcome": outcome_of(checks),
        "reasons": [check.reason for check in checks],
        "held_out": len(held),
        "observations": len(set(of_examples(held))),
        **figures,
        "evaluate_seconds": round(seconds, 1),
        "evaluate_processor_seconds": round(cpu, 1),
        "labels": by_label(held, mine, limit),
        "wrong": [
            {"asked": one.messages[1].content, "right": one.messages[-1].content, "said": said}
            for one in held
            if (said := output(mine, one, limit)) != one.messages[-1].content
        ],
        "shown": {one.messages[1].content: output(mine, one, limit) for one in asked},
    }


def questions(spec: ProjectSpec, turn: str) -> list[ChatExample]:
    """Return the questions that the demo shows after the turn; their answers are not judged."""
    found: list[ChatExample] = []
    for number, line in enumerate((EXAMPLE / QUESTIONS[turn]).read_text("utf-8").splitlines()):
        turns = (
            ("system", spec.task.system_prompt),
            ("user", json.loads(line)["question"]),
            ("assistant", "{}"),
        )
        messages = tuple(ChatMessage.model_validate({"role": role, "content": text}) for role, text in turns)
        found.append(
            ChatExample(
                example_id=f"{turn}-{number}",
                messages=messages,
                group="questions",
                trust="expert",
                record_ids=("r",),
            )
        )
    return found


def by_label(held: list[ChatExample], measurement: Measurement, limit: int) -> dict[str, tuple[int, int]]:
    """Return by label how many answers have it, and how many held-out rows ask for it."""
    found: dict[str, list[bool]] = defaultdict(list)
    for one in held:
        found[str(one.label)].append(label_of(output(measurement, one, limit)) == one.label)
    return {label: (sum(hits), len(hits)) for label, hits in found.items()}


def label_of(said: str) -> Any:
    try:
        answer = parse(said)
    except Unparsed:
        return None
    return answer.get("category") if isinstance(answer, dict) else None


def output(measurement: Measurement, example: ChatExample, limit: int) -> str:
    row = measurement.rows[example_key(example, max_output_tokens=limit)]
    assert isinstance(row, HoldoutRow)
    return row.output


if __name__ == "__main__":
    main()
