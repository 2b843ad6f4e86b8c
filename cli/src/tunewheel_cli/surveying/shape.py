"""What answers look like: the JSON Schema that all of them fit, and which of their values are labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

MOST_VALUES = 500
"""More different values are no labels, and are not counted."""
MOST_LABELS = 200
LONGEST_LABEL = 60
OFTEN = 3
"""How often a label occurs at least, on average."""
ALONE = 0.98
"""A value on so large a share of the rows says nothing."""
REQUIRED = 0.97
"""The share of the answers that have a property which all must have. Builds drop the others."""
MOST_PROPERTIES, DEEPEST = 60, 5
ALIKE = 0.84
RARE = 20
"""A value may be a misspelling of another one that occurs so many times as often."""
LABEL_NAMES = (
    "label", "category", "kategorie", "intent", "class", "klasse", "topic", "thema", "queue", "department",
    "abteilung", "sentiment", "type", "typ", "tag", "resolution", "priority", "prioritat", "status",
    "severity",
)  # fmt: skip
"""Names of labels, the more usual ones first."""


@dataclass(slots=True)
class Values:
    """How often each text occurs. Too many, or long ones, are not counted."""

    total: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    full: bool = False

    def add(self, text: str) -> None:
        self.total += 1
        if self.full:
            return
        if len(text) > LONGEST_LABEL or (text not in self.counts and len(self.counts) >= MOST_VALUES):
            self.full = True
            self.counts.clear()
            return
        self.counts[text] += 1

    @property
    def misspelt(self) -> dict[str, str]:
        """The value that each rare value is probably meant to be."""
        common = [value for value, count in self.counts.most_common() if count >= RARE]
        found: dict[str, str] = {}
        for value, count in self.counts.items():
            likes = get_close_matches(value, common, n=1, cutoff=ALIKE) if count * RARE <= self.total else []
            if likes and likes[0] != value and count * RARE <= self.counts[likes[0]]:
                found[value] = likes[0]
        return found

    @property
    def labels(self) -> tuple[str, ...]:
        """The values in their order, without misspelt ones; empty if they are no labels."""
        kept = self.counts.keys() - self.misspelt.keys()
        few = 2 <= len(kept) <= MOST_LABELS and self.total >= OFTEN * len(kept)
        if self.full or not few or max(self.counts.values()) > ALONE * self.total:
            return ()
        return tuple(sorted(kept))

    @property
    def rare(self) -> list[str]:
        """The labels that hardly occur: they cannot be learnt, and may be mistakes."""
        return [value for value in self.labels if self.counts[value] < OFTEN]


@dataclass(slots=True)
class Shape:
    """The values at one place of all answers."""

    seen: int = 0
    types: Counter[str] = field(default_factory=Counter)
    values: Values = field(default_factory=Values)
    properties: dict[str, Shape] = field(default_factory=dict)
    items: Shape | None = None

    def add(self, value: Any, depth: int = 0) -> None:
        self.seen += 1
        kind = _type_of(value)
        self.types[kind] += 1
        if isinstance(value, str):
            self.values.add(value)
        elif isinstance(value, Mapping) and depth < DEEPEST:
            for name, inner in value.items():
                if name in self.properties or len(self.properties) < MOST_PROPERTIES:
                    self.properties.setdefault(name, Shape()).add(inner, depth + 1)
        elif isinstance(value, list) and depth < DEEPEST:
            self.items = self.items or Shape()
            for inner in value:
                self.items.add(inner, depth + 1)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of all values that were added. Where types differ only these are named."""
        kinds = sorted(self.types)
        if len(kinds) != 1:
            return {"type": kinds} if kinds else {}
        if kinds == ["string"]:
            return {"enum": [*self.values.labels]} if self.values.labels else {"type": "string"}
        if kinds == ["array"]:
            items = self.items.schema() if self.items is not None and self.items.seen else {}
            return {"type": "array"} | ({"items": items} if items else {})
        if kinds != ["object"] or not self.properties or len(self.properties) >= MOST_PROPERTIES:
            return {"type": kinds[0]}
        required = [name for name, shape in self.properties.items() if shape.seen >= REQUIRED * self.seen]
        return {
            "type": "object",
            **({"required": required} if required else {}),
            "additionalProperties": False,
            "properties": {name: shape.schema() for name, shape in self.properties.items()},
        }

    @property
    def label(self) -> str | None:
        """The property that is best taken for the label; None: there is none."""
        found = {
            name: shape
            for name, shape in self.properties.items()
            if shape.seen >= 0.9 * self.seen and [*shape.types] == ["string"] and shape.values.labels
        }
        return best_label({name: shape.values for name, shape in found.items()})


def best_label(found: Mapping[str, Values]) -> str | None:
    """Return the name that is most usual for a label; of others, the one with the most labels."""

    def rank(name: str) -> tuple[int, int, str]:
        words = plain(name)
        usual = [place for place, one in enumerate(LABEL_NAMES) if one in words.split("_")]
        return (min(usual, default=len(LABEL_NAMES)), -len(found[name].labels), name)

    return min(found, key=rank, default=None)


def plain(name: str) -> str:
    """Return a name in lower case, without accents, with ``_`` between its words."""
    from unicodedata import normalize

    bare = normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    parts = "".join(char if char.isalnum() else " " for char in bare.casefold())
    return "_".join(parts.split())


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number" if isinstance(value, float) else "integer"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
