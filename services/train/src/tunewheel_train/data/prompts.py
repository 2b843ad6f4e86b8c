"""Prompts whose answers are scored beside the expert's: by a reward, and for recipes that are tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts.formats.dataset import ChatMessage, ExampleFormat
from tunewheel_outputs.metric import Row
from tunewheel_outputs.reward import Part
from tunewheel_outputs.texts import said_before

from tunewheel_train.data.datasets import Encoded


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation up to the expert's answer, in messages of ``role`` and ``content``."""

    messages: tuple[dict[str, str], ...]
    expected: str
    record_ids: tuple[str, ...] = ()
    group: str = ""

    def row(self, answer: str) -> Row:
        """Return what metrics read of ``answer`` to this prompt."""
        before = [ChatMessage.model_validate(message) for message in self.messages]
        system = "\n\n".join(message.content for message in before if message.role == "system")
        return Row(output=answer, asked=said_before(before), system=system, expected=self.expected)

    def scores(self, answer: str, parts: Mapping[str, Part]) -> dict[str, float | None]:
        return {name: part(self.row(answer)) for name, part in parts.items()}


def prompts_of(
    examples: Sequence[Encoded], rows: Mapping[str, Mapping[str, Any]], parts: Mapping[str, Part]
) -> list[Prompt]:
    """Return the prompts of the ``examples`` whose own answer has the full score by ``parts``: a score that
    the expert's answer misses would teach other answers. Without parts, return all. Only answers are examples
    of the task that the parts are about: documents, code and general data have no prompt. ``rows``: the rows
    of the dataset by their ids."""
    prompts: list[Prompt] = []
    for example in examples:
        row = rows[example.example_id]
        if (row.get("format") or ExampleFormat.ANSWER) != ExampleFormat.ANSWER:
            continue
        *before, last = ({"role": m["role"], "content": m["content"]} for m in row["messages"])
        prompt = Prompt(tuple(before), last["content"], example.record_ids, example.group)
        found = [score for score in prompt.scores(prompt.expected, parts).values() if score is not None]
        if not parts or (found and min(found) > 1 - 1e-6):
            prompts.append(prompt)
    return prompts
