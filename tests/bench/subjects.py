"""What a model can be tuned to and asked about: examples that train, examples that are held out, documents.

``helpdesk`` is the bundled example: a ticket asks for a form, and a section of an SOP is a document.
``dolly`` is the public set: questions of databricks-dolly-15k that came with the paragraph that answers
them. The paragraphs are the documents; question and answer are the example. Held-out questions are about
other paragraphs than those that train. Where rows that train hold passages, a distractor may be such a
paragraph; else a model without passages can only know them from its pretraining.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus import DATA, require_data
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.spec import ProjectSpec, parse_spec
from tunewheel_contracts.identity import content_sha256

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "helpdesk"
DOLLY = """
project: dolly
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
task:
  system_prompt: Answer the question in one sentence.
  max_output_tokens: 80
train:
  {rank: 16, alpha: 32, learning_rate: 0.001, batch_size: 8, micro_batch_size: 8, max_tokens: 256}
retrieval: {default: "off", top_k: 3, budget_tokens: 384}
criteria:
  - {metric: rouge_l, over_base: 0}
"""
LONGEST_QUESTION = 200
"""In characters."""
SHORTEST_PARAGRAPH, LONGEST_ANSWER = 40, 60
"""In words. Longer answers are lists and essays."""


@dataclass(frozen=True)
class Subject:
    spec: ProjectSpec
    train: list[ChatExample]
    held: list[ChatExample]
    documents: Mapping[str, str]
    """By name, as ``put_index`` reads them."""


def helpdesk() -> Subject:
    """Return the example; a fifth of its tickets, by customer, is held out."""
    spec = parse_spec((EXAMPLE / "project.yaml").read_text("utf-8"))
    found: dict[bool, dict[str, ChatExample]] = {True: {}, False: {}}
    for line in (EXAMPLE / "tickets.jsonl").read_text("utf-8").splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue  # planted faults
        answer, asked = told.get("answer"), f"{told.get('subject')}\n\n{told.get('body')}"
        if not isinstance(answer, dict) or not answer.get("reply") or not told.get("validated_by"):
            continue
        customer = str(told.get("customer"))
        example = _example(
            spec, told["ticket_id"], asked, json.dumps(answer), group=customer, label=answer.get("category")
        )
        found[_is_one_of(5, customer)].setdefault(asked.casefold(), example)
    texts = {path.name: path.read_text("utf-8") for path in sorted((EXAMPLE / "sops").glob("*.md"))}
    return Subject(spec, [*found[False].values()], [*found[True].values()], _parts(texts))


def dolly() -> Subject:
    """Return the public set; half of its questions, by paragraph, is held out."""
    require_data()
    spec = parse_spec(DOLLY)
    train, held, documents = list[ChatExample](), list[ChatExample](), dict[str, str]()
    path = DATA / "dolly_hh_1k" / "dolly_hhrlhf_train_small.jsonl"
    for number, line in enumerate(path.read_text("utf-8").splitlines()):
        told = json.loads(line)
        instruction = told["prompt"].rpartition("### Instruction:")[2].rpartition("### Response:")[0].strip()
        question, _, paragraph = instruction.partition("\n")
        if (
            "?" not in question
            or len(question) > LONGEST_QUESTION
            or len(paragraph.split()) < SHORTEST_PARAGRAPH
            or len(told["response"].split()) > LONGEST_ANSWER
        ):
            continue
        name = content_sha256(paragraph)[:12]
        documents[name] = paragraph
        example = _example(spec, f"dolly-{number}", question, told["response"].strip(), group=name)
        (held if _is_one_of(2, name) else train).append(example)
    return Subject(spec, train, held, documents)


SUBJECTS = {"helpdesk": helpdesk, "dolly": dolly}


def _example(
    spec: ProjectSpec, name: str, asked: str, answer: str, *, group: str, label: Any = None
) -> ChatExample:
    turns = (("system", spec.task.system_prompt), ("user", asked), ("assistant", answer))
    return ChatExample.model_validate(
        {
            "example_id": name, "group": group, "trust": "expert", "record_ids": (), "label": label,
            "messages": [{"role": role, "content": content} for role, content in turns],
        }
    )  # fmt: skip


def _is_one_of(count: int, name: str) -> bool:
    """Return whether a name's hash is in the first of ``count`` equal parts."""
    return int(content_sha256(name)[:8], 16) % count == 0


def _parts(texts: Mapping[str, str]) -> dict[str, str]:
    """Return each part below a heading as a document of its own."""
    found: dict[str, str] = {}
    for name, text in texts.items():
        for number, part in enumerate(re.split(r"\n(?=#+ )", text)):
            heading, _, rest = part.lstrip("#").strip().partition("\n")
            if rest.strip():
                found[f"{name}#{number}"] = f"# {heading}\n{rest}"
    return found
