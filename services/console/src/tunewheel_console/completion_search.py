"""What is asked of the file of completions, as SQL."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tunewheel_contracts.formats.spec import TaskSpec

LabelOf = Callable[[str | None], str | None]
"""Returns the label of an answer; None: it has none."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS = {"valid": "c.valid", "invalid": "NOT c.valid", "unknown": "c.valid IS NULL"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which completions are searched; None and empty: all."""

    words: str = ""
    """Words, or beginnings of words, that question and answer have together; in quotes: in this order."""
    form: str | None = None
    """``valid``, ``invalid``, ``unknown``, or a broken requirement, such as ``output_schema``."""
    seconds: float | None = None
    """The least latency."""
    role: str | None = None
    model_id: str | None = None
    client: str | None = None
    label: str | None = None
    since: datetime | None = None

    @property
    def is_dear(self) -> bool:
        """Whether texts are looked at."""
        return bool(self.words or self.label or self.form)


def conditions(project: str, wanted: Wanted) -> tuple[str, list[str], tuple[Any, ...]]:
    """Return the tables, the conditions and their values, for a connection that knows ``label_of``."""
    terms, values = ["c.project = ?"], list[Any]([project])
    for term, value in (
        ("c.role = ?", wanted.role),
        ("c.model = ?", wanted.model_id),
        ("c.client = ?", wanted.client),
        ("c.latency >= ?", wanted.seconds),
        ("c.at >= ?", wanted.since and microseconds(wanted.since)),
    ):
        if value is not None:
            terms.append(term)
            values.append(value)
    match wanted.form:
        case None:
            pass
        case "valid" | "invalid" | "unknown":
            terms.append(_FORMS[wanted.form])
        case broken:
            terms.append(
                "NOT c.valid AND EXISTS (SELECT 1 FROM json_each(c.body, '$.violations') WHERE value = ?)"
            )
            values.append(broken)
    words = _phrases(wanted.words)
    if (label := wanted.label) is not None:
        terms.append("label_of(json_extract(c.body, '$.output')) = ?")
        values.append(label)
        # Its words are looked up first, so that few answers are parsed.
        is_spelt = label.isascii() and label.isprintable() and "\\" not in label  # not escaped in JSON
        words += [f"answer : {one}" for one in _phrases(f'"{label}"')] if is_spelt else []
    if not words:
        return "completions AS c", terms, tuple(values)
    terms.insert(0, "words MATCH ?")
    return "words CROSS JOIN completions AS c ON c.n = words.rowid", terms, (" AND ".join(words), *values)


def _phrases(text: str) -> list[str]:
    """Return what is searched, in the language of FTS5: each word, or what stands in quotes, as the beginning
    of words. What has no letter or digit is left out, since the index has none of it."""
    parts = re.findall(r'"([^"]*)"|([^\s"]+)', text.replace("\0", " "))
    return [f'"{part}"*' for pair in parts if re.search(r"[^\W_]", part := pair[0] or pair[1])]


def labels_by(task: TaskSpec | None) -> LabelOf:
    """Return what finds the label of an answer. ``task`` None: no answer has one."""
    from tunewheel_outputs.labels import label_of

    return lambda answer: label_of(answer, task) if answer and task is not None else None


def microseconds(at: datetime) -> int:
    """Return the time since 1970. ``at`` may be of any time zone."""
    return (at - _EPOCH) // timedelta(microseconds=1)
