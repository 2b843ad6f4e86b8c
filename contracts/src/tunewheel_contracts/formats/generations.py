"""The contestants' outputs, one line per held-out example: the rows that a scorecard's page shows."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Annotated, Any, cast

from pydantic import Field, model_validator

from tunewheel_contracts.fields import FiniteFloat, Frozen
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.identity import content_sha256

MARK = ".generations-"
"""The part of the file name between a scorecard's id and the content's hash."""
Shown = Annotated[tuple[str, ...], Field(exclude_if=operator.not_)]
"""The record of each passage in the prompt, in order. Passages that did not fit the model's context are not
named."""


class Written(Frozen):
    output: str
    complete: bool
    """False: cut off at the project's max_output_tokens."""
    label: Annotated[str | None, Field(exclude_if=lambda label: label is None)] = None
    """The answer's label; null: it has none, or an earlier release wrote the line."""
    scores: Annotated[dict[str, FiniteFloat], Field(exclude_if=operator.not_)] = {}
    """The answer's score by metric, to four decimal places, as in the verdict. A metric that says nothing
    about the row is left out. Empty: an earlier release wrote the line."""
    failed: Annotated[tuple[str, ...], Field(exclude_if=operator.not_)] = ()
    """The metrics that are met or missed as a whole, such as ``valid_output``, and that the answer misses."""


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
            return cast("Any", raw)
        fields = cast("dict[str, Any]", raw)
        rest = {name: value for name, value in fields.items() if name not in ("role", "output", "complete")}
        written = {"output": fields["output"], "complete": fields.get("complete", True)}
        return {**rest, "answers": {fields["role"]: written}}


def generations_path(scorecard_id: str, lines: bytes) -> str:
    """Return the path of the contestants' outputs. It contains the hash of ``lines``."""
    return f"scorecards/{scorecard_id}{MARK}{content_sha256(lines)[:12]}.jsonl"


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
