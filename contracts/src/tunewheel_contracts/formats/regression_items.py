"""The general-regression set: questions on abilities of the base model that training should not destroy."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.fields import Strict
from tunewheel_contracts.identity import content_sha256

MAX_NEW_TOKENS = 24
"""Most tokens of an answer to an item without choices. Such an answer is a word or a line."""

_EDGES = " \t\"'`*_.,;:!?()[]\u201c\u201d\u2018\u2019"
_SPACE = re.compile(r"\s+")


class RegressionItem(Strict):
    """One item. With ``choices`` the model's likeliest choice is its answer; otherwise a short greedy answer
    is."""

    item_id: Annotated[str, Field(min_length=1)]
    kind: Annotated[str, Field(min_length=1)]
    prompt: Annotated[str, Field(min_length=1)]
    choices: tuple[str, ...] | None = None
    answer: Annotated[str, Field(min_length=1)]
    match: Literal["exact", "contains", "choice"]

    @model_validator(mode="after")
    def _answerable(self) -> Self:
        if (self.match == "choice") != bool(self.choices):
            raise ValueError("match 'choice' needs choices, and choices need it; give both or neither")
        if self.choices and (self.answer not in self.choices or len(set(self.choices)) != len(self.choices)):
            raise ValueError("choices must differ from each other and include the answer")
        return self

    @property
    def key(self) -> str:
        """Hash of the item's content, so that an edited item is measured again."""
        return content_sha256(self.model_dump(mode="json"))

    def is_right(self, output: str) -> bool:
        """Return whether ``output``, a greedy answer or the chosen choice, is right."""
        if self.match == "choice":
            return output == self.answer
        wanted = _plain(self.answer)
        if self.match == "exact":
            return _plain(output.strip().partition("\n")[0]) == wanted
        return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", _plain(output)) is not None


def general_items() -> tuple[RegressionItem, ...]:
    """Return the set that comes with Tunewheel."""
    text = (resources.files("tunewheel_contracts.formats") / "general.jsonl").read_text("utf-8")
    return parse_items(text, name="general.jsonl")


def read_items(path: Path | None) -> tuple[RegressionItem, ...]:
    """Return the set at ``path`` (JSON Lines); None: the set that comes with Tunewheel."""
    return general_items() if path is None else parse_items(path.read_text("utf-8"), name=str(path))


def parse_items(text: str, *, name: str) -> tuple[RegressionItem, ...]:
    """Read JSON Lines. Raises ValueError that names file, line and field of the first fault."""
    items: list[RegressionItem] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            items.append(RegressionItem.model_validate(json.loads(line)))
        except ValidationError as error:
            field, reason = first_complaint(error)
            raise ValueError(f"{name}, line {number}, {field}: {reason}") from error
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: is not JSON ({error})") from error
    ids = [item.item_id for item in items]
    if not items or len(set(ids)) != len(ids):
        raise ValueError(f"{name}: needs at least one item, and item_id must differ from line to line")
    return tuple(items)


def _plain(text: str) -> str:
    return _SPACE.sub(" ", text).strip(_EDGES).casefold()
