"""The registry's answer at the terminal; the answer itself is tested where it is made."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console
from tunewheel_cli.lineage import ask_lineage, lineage_tree
from tunewheel_client import NotFound
from tunewheel_contracts.pseudonyms import Pseudonyms

AT = "2026-11-02T10:30:00Z"
COUNTS = {"examples": 6, "records": 9, "train": 5, "holdout": 1}
ANSWER: dict[str, Any] = {
    "project": "desk", "asked": "desk-1", "found": ["desk-1"],
    "nodes": [
        {"id": "ds-1", "kind": "dataset", "at": AT, "facts": {"counts": COUNTS, "reason": "command"}},
        {"id": "run-1", "kind": "run", "at": AT,
         "facts": {"state": "completed", "method": "lora", "loss": 0.25, "tokens": 700, "seconds": 8.2}},
        {"id": "desk-1", "kind": "model", "at": AT,
         "facts": {"kind": "adapter", "base": {"name": "org/[b]"}}},
        {"id": "ev-1", "kind": "evaluation", "at": AT,
         "facts": {"outcome": "passed", "contestants": {"champion": "desk-0"}, "reviewed_by": "Ada"}},
        {"id": "review-1", "kind": "review", "at": AT,
         "facts": {"reviewers": {"Ada": {"by": "ada-key", "items": 2, "verdict": "approved"}}}},
        {"id": "step-1", "kind": "step", "at": AT,
         "facts": {"model": "desk-1", "from": "evaluated", "to": "canary", "reason": "passed"}},
        *({"id": f"rec-{n}", "kind": "record", "facts": {"kind": "ticket", "source_id": f"source-{n}"}}
          for n in range(6)),
    ],
    "edges": [
        {"source": source, "target": target}
        for source, target in (
            ("ds-1", "run-1"), ("run-1", "desk-1"), ("desk-1", "ev-1"), ("ev-1", "review-1"),
            ("desk-1", "step-1"), ("ev-1", "step-1"), *((f"rec-{n}", "ds-1") for n in range(6)),
        )
    ],
    "records": {"used": 6, "left_out": 3, "shown": 6, "by_kind": {"ticket": 6}},
    "unreadable": {"ds-9": "deleted by an erasure"},
}  # fmt: skip


def drawn(answer: dict[str, Any]) -> str:
    console = Console(width=200, record=True, file=StringIO())
    console.print(lineage_tree(answer))
    return console.export_text()


def test_the_tree_shows_both_ways_each_node_once() -> None:
    text = drawn(ANSWER)
    for line in (
        "model desk-1 adapter on org/[b] 2026-11-02 10:30",
        "run run-1 lora, loss 0.250, 700 tokens in 8 s",
        "made of 6 tickets; 3 records left out by curation",
        "record rec-4 ticket source-4",
        "… and 1 more",
        "evaluation ev-1 passed against desk-0, reviewed by Ada",
        "review review-1 Ada (ada-key) 2 items approved",
        "step step-1 desk-1: evaluated → canary, passed",
        "the records of ds-9 cannot be told: deleted by an erasure",
    ):
        assert text.count(line) == 1, line
    assert text.index("came from") < text.index("ds-1") < text.index("led to") < text.index("ev-1")


def test_a_circle_ends() -> None:
    circle = [{"source": "ev-1", "target": "review-1"}, {"source": "review-1", "target": "ev-1"}]
    text = drawn({**ANSWER, "found": ["ev-1"], "edges": circle, "unreadable": {}})
    assert text.count("review review-1") == 1


@pytest.mark.parametrize("secret", ["", "a secret"])
def test_a_source_is_found_by_its_own_name_under_its_pseudonym(secret: str) -> None:
    pseudonym = Pseudonyms("desk", secret).of("source", "T-7")
    asked: list[str] = []

    class Models:
        def lineage(self, project: str, name: str, *, records: int) -> dict[str, Any]:
            asked.append(name)
            if name != pseudonym:
                raise NotFound(f"name: {project} has no {name}")
            return {"asked": name}

    class Registry:
        models = Models()

    key = SecretStr(secret) if secret else None
    assert ask_lineage(Registry(), "desk", "T-7", secret=key)["asked"] == pseudonym  # type: ignore[arg-type]
    assert asked == ["T-7", pseudonym]
    with pytest.raises(NotFound, match="has no T-8"):
        ask_lineage(Registry(), "desk", "T-8", secret=key)  # type: ignore[arg-type]
