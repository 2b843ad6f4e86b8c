"""What 1,000 poisoned records of one key do beside 1,000 honest ones of experts.

Questions and labels are banking77's. The key has the role publisher, or application for corrections, so a
door grants ``unverified`` or ``corrected``. Five attacks: ``flood`` sends new questions under a wrong label;
``conflict`` asks the experts' questions with a wrong label; ``date`` sends the experts' tickets again with a
wrong label and a date in 2099; ``takeover`` does that under ids that another key publishes; ``correction``
corrects a thousand answers. Each is counted: the poisoned share of the training rows, poisoned rows in the
holdout, experts' examples that the attack cost, and whether the card names it. ``poisoned_documents``
does the same for documents and what the index serves of them.

    make bench NAME=poison
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from poisoned_documents import poisoned_documents
from report import write_report
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_curate.pipeline import Build, build
from tunewheel_curate.stage import RECORD_SCHEMA
from tunewheel_curate.versions.card import data_card

DATA = next(
    (up / "shared/data" for up in Path(__file__).resolve().parents if (up / "shared/data").is_dir()),
    Path("../shared/data"),
)
START = datetime(2026, 1, 1, tzinfo=UTC)
WRONG = "card_arrival"
NAMES = {
    "flood": "- flood: ",
    "conflict": "records ask the same question as another and are labelled differently",
    "date": "- takeover: ",
    "takeover": "- takeover: ",
    "correction": "- correction: ",
}


def spec_of(labels: list[str]) -> ProjectSpec:
    schema = {
        "type": "object", "properties": {"intent": {"enum": labels}}, "required": ["intent"],
        "additionalProperties": False,
    }  # fmt: skip
    task = {"system_prompt": "Say the intent.", "label_field": "intent", "output_schema": schema}
    criteria = [{"metric": "valid_output", "minimum": 0.5}]
    return ProjectSpec.model_validate(
        {"project": "bank", "base_model": "some/model", "task": task, "criteria": criteria}
    )


def record(name: str, question: str, label: str, number: int, **fields: Any) -> dict[str, Any]:
    return {
        "project": "bank", "record_id": name, "kind": "ticket", "source_id": f"T-{name}",
        "source_event_id": name, "title": "", "input": question, "output": json.dumps({"intent": label}),
        "group": f"customer-{name}", "trust": "expert", "attributes": "{}", "event_id": name,
        "published_at": START + timedelta(minutes=number), "partition": 0, "offset": number,
    } | fields  # fmt: skip


def attacks(
    honest: list[dict[str, Any]], others: list[tuple[str, str]]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each attack with its records, one for each of the ``honest`` ones."""
    size = len(honest)
    later = {"trust": "unverified", "principal": "mallory"}

    def wrong(number: int, question: str, **fields: Any) -> dict[str, Any]:
        label = WRONG if json.loads(honest[number]["output"])["intent"] != WRONG else "lost_or_stolen_card"
        return record(f"bad-{number}", question, label, size + number, **later | fields)

    asked = [row["input"] for row in honest]
    yield "flood", [wrong(n, others[n][0]) for n in range(size)]
    yield "conflict", [wrong(n, asked[n]) for n in range(size)]
    dated = {"validated_at": datetime(2099, 1, 1, tzinfo=UTC)}
    same = [{"source_id": row["source_id"], "group": row["group"]} for row in honest]
    yield "date", [wrong(n, asked[n], **dated, **same[n]) for n in range(size)]
    yield "takeover", [wrong(n, others[n][0], **same[n]) for n in range(size)]
    feedback = {"kind": "feedback", "trust": "corrected"}
    yield "correction", [wrong(n, others[n][0], **feedback) for n in range(size)]


def figures(made: Build, clean: Build, spec: ProjectSpec, attack: str) -> dict[str, Any]:
    """Return what an attack did, beside the build without it."""

    def of(rows: pl.DataFrame) -> list[str]:
        return rows["record_ids"].list.first().to_list()

    train, held = of(made.split.train), of(made.split.holdout)
    experts = {*of(clean.split.train), *of(clean.split.holdout)}
    return {
        "poisoned_share_of_training": round(sum(one.startswith("bad") for one in train) / len(train), 4),
        "poisoned_held_out": sum(one.startswith("bad") for one in held),
        "experts_lost": len(experts - {*train, *held}),
        "named": NAMES[attack] in data_card("ds-x", spec, made),
        "waiting": made.quality.quarantined,
    }


def measured(questions: list[tuple[str, str]], size: int) -> dict[str, dict[str, Any]]:
    """Return the figures of each attack on ``size`` honest records."""
    spec = spec_of(sorted({label for _, label in questions}))
    honest = [record(f"good-{n}", *questions[n], n) for n in range(size)]
    others = questions[size : 2 * size]
    clean = build(pl.DataFrame(honest, schema=RECORD_SCHEMA), spec)
    return {
        attack: figures(
            build(pl.DataFrame([*honest, *rows], schema=RECORD_SCHEMA), spec), clean, spec, attack
        )
        for attack, rows in attacks(honest, others)
    }


def main() -> None:
    path = DATA / "banking77/train.csv"
    if not path.is_file():
        sys.exit(f"{path} is missing: the benchmark needs it there")
    with path.open() as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    spread = [row for start in range(7) for row in rows[start::7]]  # the file is sorted by label
    found = measured(spread, 1_000)
    for attack, told in found.items():
        print(attack, told)
    documents = poisoned_documents()
    for name, told in documents.items():
        print(name, told)
    contenders = found | {f"documents_{name}": told for name, told in documents.items()}
    write_report(
        "poison", packages=("polars",), contenders=contenders, ratios={}, honest=1_000, poisoned=1_000
    )


if __name__ == "__main__":
    main()
