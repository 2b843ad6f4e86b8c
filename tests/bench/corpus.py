"""Tickets made of public texts, as many as asked for, with faults whose places are known.

A ticket is a banking77 query, two sentences of others and a piece of a bug report; its answer is JSON with
the query's intent and a sentence of dolly's. Everything follows from the seed. Nothing of the sources is
copied into the repository: they are read where they lie.
"""

from __future__ import annotations

import csv
import json
import random
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from tunewheel_contracts.formats.regression_items import general_items
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_curate.stage import RECORD_SCHEMA

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SEED = 20_261_124
FAULT_SHARE = 0.01
"""Of the tickets, per kind of fault."""
START = datetime(2026, 1, 1, tzinfo=UTC)
_INSTRUCTION = re.compile(r"### Instruction:\n(.*?)(?=\n\n###|$)", re.DOTALL)
_LONG_PROMPTS = [item.prompt for item in general_items() if len(item.prompt.split()) > 14]
"""Of eval's regression set: shorter ones are no evidence inside a longer text."""
PII = (
    "write to kim.{n}@example.com", "call me on +44 20 7946 {n:04}", "pay to DE89 3704 0044 0532 0130 00",
)  # fmt: skip


@dataclass(frozen=True)
class Faults:
    """Record ids by kind of fault. Of duplicates and conflicts these are the pairs' second members."""

    exact: set[str]
    near: set[str]
    conflicts: set[str]
    broken: set[str]
    empty: set[str]
    contaminated: set[str]
    personal: set[str]


def require_data() -> None:
    """End the benchmark where the public sets are missing."""
    if not DATA.is_dir():
        sys.exit(f"{DATA} is missing: the benchmark needs the public sets there")


def tickets(count: int) -> tuple[pl.DataFrame, Faults, list[str]]:
    """Return ``count`` records of ``RECORD_SCHEMA``, the faults among them, and the labels there are."""
    rng = random.Random(SEED)
    queries, sentences, pieces, replies = _sources()
    labels = sorted({label for _, label in queries})
    faults = Faults(*(set[str]() for _ in range(7)))
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        query, label = queries[rng.randrange(len(queries))]
        text = " ".join([query, rng.choice(sentences), rng.choice(pieces), rng.choice(sentences)])
        rows.append(_row(len(rows), text, json.dumps({"category": label, "reply": rng.choice(replies)})))
        if len(rows) < count and rng.random() < FAULT_SHARE * 7:
            rows.append(_faulty(rng, rows[-1], len(rows), labels, faults))
    return pl.DataFrame(rows, schema=RECORD_SCHEMA), faults, labels


def project(labels: list[str], **dataset: Any) -> ProjectSpec:
    """Return the spec the tickets are curated by."""
    schema = {
        "type": "object", "required": ["category", "reply"], "additionalProperties": False,
        "properties": {"category": {"enum": labels}, "reply": {"type": "string", "minLength": 2}},
    }  # fmt: skip
    task = {"system_prompt": "Answer as JSON.", "label_field": "category", "output_schema": schema}
    return ProjectSpec.model_validate(
        {
            "project": "bench", "base_model": "some/model", "task": task, "dataset": dataset,
            "criteria": [{"metric": "valid_output", "minimum": 0.5}],
        }
    )  # fmt: skip


def _faulty(
    rng: random.Random, whole: dict[str, Any], number: int, labels: list[str], faults: Faults
) -> dict[str, Any]:
    """Return a ticket that spoils ``whole``, or is spoilt by itself."""
    kind = rng.choice(("exact", "near", "conflicts", "broken", "empty", "contaminated", "personal"))
    row = _row(number, whole["input"], whole["output"])
    getattr(faults, kind).add(row["record_id"])
    words = whole["input"].split(" ")
    answer = json.loads(whole["output"])
    if kind == "exact":
        row["input"] = whole["input"].upper()
    elif kind == "near":
        words[rng.randrange(len(words))] = "otherwise"
        row["input"] = " ".join(words)
    elif kind == "conflicts":
        other = rng.choice([label for label in labels if label != answer["category"]])
        row["output"] = json.dumps(answer | {"category": other})
    elif kind == "broken":
        row |= {"input": f"{number} {row['input']}", "output": row["output"][:-2]}
    elif kind == "empty":
        row["input"] = "?"
    elif kind == "contaminated":
        row["input"] = f"{words[number % len(words)]} {number}: {rng.choice(_LONG_PROMPTS)}"
    else:
        row["input"] = (
            f"{rng.choice(PII).format(n=number % 10_000)} about {number} {words[0]}: {row['input'][::-1]}"
        )
    return row


def _row(number: int, text: str, output: str) -> dict[str, Any]:
    return {
        "project": "bench", "record_id": f"rec-{number:07}", "kind": "ticket", "source_id": f"T-{number}",
        "source_event_id": f"source-{number}", "title": "", "input": text, "output": output,
        "group": f"customer-{number // 3}", "trust": "expert", "attributes": "{}",
        "event_id": f"event-{number}", "published_at": START + timedelta(seconds=number),
        "partition": number % 3, "offset": number // 3,
    }  # fmt: skip


def _sources() -> tuple[list[tuple[str, str]], list[str], list[str], list[str]]:
    queries = [
        (row["text"].strip(), row["category"])
        for name in ("train", "test")
        for row in csv.DictReader((DATA / f"banking77/{name}.csv").open(encoding="utf-8"))
    ]
    sentences: list[str] = []
    for name in ("question-question", "answer-answer", "postediting"):
        for line in (DATA / f"sts2016_pairs/{name}.test.tsv").read_text(encoding="utf-8").splitlines():
            sentences += [part for part in line.split("\t") if len(part) > 40]
    bugs = csv.DictReader((DATA / "gitbugs_seamonkey/SeaMonkey_bugs.csv").open(encoding="utf-8"))
    pieces = [row["Description"][:160].replace("\n", " ") for row in bugs if len(row["Description"]) > 80]
    lines = next((DATA / "dolly_hh_1k").glob("*.jsonl")).read_text(encoding="utf-8").splitlines()
    replies = [_whole(str(json.loads(line).get("response", ""))[:200].strip()) for line in lines]
    return (
        queries,
        sorted(set(sentences)),
        sorted(set(pieces)),
        [reply for reply in replies if len(reply) > 20],
    )


def dolly_questions() -> list[str]:
    """Return the instructions of dolly, which are about everything."""
    lines = next((DATA / "dolly_hh_1k").glob("*.jsonl")).read_text(encoding="utf-8").splitlines()
    found = (_INSTRUCTION.search(str(json.loads(line)["prompt"])) for line in lines)
    return [one[1].strip() for one in found if one is not None]


def self_instruct_instructions() -> list[str]:
    """Return the 252 instructions that people wrote for self-instruct."""
    path = DATA / "self_instruct_human/human_eval/user_oriented_instructions.jsonl"
    return [json.loads(line)["instruction"] for line in path.read_text(encoding="utf-8").splitlines()]


def _whole(reply: str) -> str:
    """End a reply that was cut as if it were meant to end there: curation drops those that stop midway."""
    return reply.rstrip(" ,([{-") + "." if reply and reply[-1] not in ".!?" else reply
