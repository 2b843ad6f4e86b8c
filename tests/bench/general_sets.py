"""General questions and instructions out of ``shared/data``: what a model could do before it was tuned.

Five sets of the LLM Foundry's gauntlet (PIQA, BoolQ, ARC easy and challenge, TriviaQA) and six tasks of
BIG-Bench Hard whose answers are few. Items are taken by the hash of their text: a random sample, and always
the same one.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from tunewheel_contracts.formats.regression_items import RegressionItem

GAUNTLET = (
    "commonsense_reasoning/piqa",
    "reading_comprehension/boolq",
    "world_knowledge/arc_easy",
    "world_knowledge/arc_challenge",
    "world_knowledge/triviaqa_sm_sub",
)
BBH = (
    "boolean_expressions",
    "navigate",
    "sports_understanding",
    "hyperbaton",
    "disambiguation_qa",
    "date_understanding",
)


def general_items(data: Path, count: int) -> tuple[RegressionItem, ...]:
    """Return ``count`` items of each set below ``data``, in a fixed order; none where ``count`` is 0."""
    items: list[RegressionItem] = []
    for name in GAUNTLET if count else ():
        lines = (data / "gauntlet_regression" / f"{name}.jsonl").read_text("utf-8").strip().split("\n")
        kind = name.rpartition("/")[2]
        items += sample([_of_gauntlet(kind, json.loads(line)) for line in lines], count)
    for name in BBH if count else ():
        rows = json.loads((data / "bbh" / f"{name}.json").read_text("utf-8"))["examples"]
        items += sample(_of_bbh(f"bbh_{name}", rows), count)
    return tuple(items)


def replayed(data: Path, count: int) -> list[list[dict[str, str]]]:
    """Return ``count`` of dolly's instructions with their answers, as conversations."""
    lines = (data / "dolly_hh_1k" / "dolly_hhrlhf_train_small.jsonl").read_text("utf-8").strip().split("\n")
    taken = sorted(lines, key=lambda line: sha256(line.encode()).digest())[:count]
    conversations: list[list[dict[str, str]]] = []
    for row in map(json.loads, taken):
        asked = row["prompt"].partition("### Instruction:")[2].rpartition("### Response:")[0].strip()
        turns = (("user", asked or row["prompt"]), ("assistant", row["response"].strip()))
        conversations.append([{"role": role, "content": content} for role, content in turns])
    return conversations


def sample(items: list[RegressionItem], count: int) -> list[RegressionItem]:
    different = {item.key: item for item in items}
    return [different[key] for key in sorted(different)[:count]]


def _of_gauntlet(kind: str, row: dict[str, Any]) -> RegressionItem:
    asked = str(row.get("query") or row["context"]).removesuffix("Answer:").strip()
    name = f"{kind}-{sha256(asked.encode()).hexdigest()[:12]}"
    if "answer" in row:
        return RegressionItem(
            item_id=name, kind=kind, prompt=asked, answer=row["answer"].strip(), match="contains"
        )
    choices = tuple(dict.fromkeys(choice.strip() for choice in row["choices"]))
    answer = row["choices"][row["gold"]].strip()
    return RegressionItem(
        item_id=name, kind=kind, prompt=asked, choices=choices, answer=answer, match="choice"
    )


def _of_bbh(kind: str, rows: list[dict[str, str]]) -> list[RegressionItem]:
    choices = tuple(sorted({row["target"] for row in rows}))
    return [
        RegressionItem(
            item_id=f"{kind}-{sha256(row['input'].encode()).hexdigest()[:12]}",
            kind=kind, prompt=row["input"], choices=choices, answer=row["target"], match="choice",
        )
        for row in rows
    ]  # fmt: skip
