"""The contestants' outputs, one line per held-out example: the rows that a scorecard's page shows."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, model_validator
from tunewheel_contracts.fields import Frozen
from tunewheel_contracts.formats.dataset import ChatExample, ChatMessage
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.identity import content_sha256

from tunewheel_eval.measurement import HoldoutRow, Measurement, Shown, example_key

MARK = ".generations-"
"""The part of the file name between a scorecard's id and the content's hash."""


class Written(Frozen):
    output: str
    complete: bool
    """False: cut off at the project's max_output_tokens."""


class Generation(Frozen):
    """A line of ``scorecards/<scorecard_id>.generations-<hash>.jsonl``."""

    example_id: str
    label: str | None = None
    prompt: tuple[ChatMessage, ...]
    """The conversation as in the dataset. Passages are named in ``passages`` instead of repeated."""
    expected: str
    answers: dict[Role, Written]
    passages: Annotated[tuple[str, ...], Field(exclude_if=operator.not_)] = ()
    """The ids of the passages in the prompt, in the index version of the scorecard."""
    shown: Shown = ()

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_release(cls, raw: Any) -> Any:
        """Read a line of an earlier release, which had one contestant's answer."""
        if not isinstance(raw, dict) or "role" not in raw:
            return raw
        rest = {name: value for name, value in raw.items() if name not in ("role", "output", "complete")}
        written = {"output": raw["output"], "complete": raw.get("complete", True)}
        return {**rest, "answers": {raw["role"]: written}}


def generations_path(scorecard_id: str, lines: bytes) -> str:
    """Return the path of the contestants' outputs. It contains the hash of ``lines``."""
    return f"scorecards/{scorecard_id}{MARK}{content_sha256(lines)[:12]}.jsonl"


def generation_lines(
    measurements: Mapping[Role, Measurement],
    examples: Sequence[ChatExample],
    asked: Sequence[ChatExample],
    *,
    max_output_tokens: int,
    passages: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> bytes:
    """Return the outputs of all contestants as JSON Lines. ``asked``: the examples as they were prompted.
    ``passages``: ids of the passages in the prompts, by example. Raises KeyError if a row is missing."""
    lines: list[str] = []
    for example, prompted in zip(examples, asked, strict=True):
        key = example_key(prompted, max_output_tokens=max_output_tokens)
        answers: dict[Role, Written] = {}
        shown: tuple[str, ...] = ()
        for role, measurement in measurements.items():
            row = measurement.rows[key]
            assert isinstance(row, HoldoutRow)
            answers[role] = Written(output=row.output, complete=row.complete)
            shown = max(shown, row.shown, key=len)
        line = Generation(
            example_id=example.example_id,
            label=example.label,
            prompt=example.messages[:-1],
            expected=example.messages[-1].content,
            answers=answers,
            passages=passages.get(example.example_id, ())[: len(shown)],
            shown=shown,
        )
        lines.append(line.model_dump_json())
    return "".join(f"{line}\n" for line in lines).encode()


def read_generations(data: bytes) -> tuple[Generation, ...]:
    """Read JSON Lines: a row per example, also where a line holds one contestant's answer."""
    return joined(Generation.model_validate_json(line) for line in data.split(b"\n") if line)


def joined(rows: Iterable[Generation]) -> tuple[Generation, ...]:
    """Return a row per example with all answers to it."""
    found: dict[str, Generation] = {}
    for row in rows:
        first = found.get(row.example_id, row)
        found[row.example_id] = first.model_copy(update={"answers": first.answers | row.answers})
    return tuple(found.values())
