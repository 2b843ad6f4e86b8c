"""What is asked of the file of completions, as SQL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

from tunewheel_contracts.formats.spec import TaskSpec

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
        return bool(self.words or self.form)


def conditions(project: str, wanted: Wanted, task: TaskSpec | None) -> tuple[str, list[str], tuple[Any, ...]]:
    """Return the tables, the conditions and their values. ``task`` says what the label of an answer is."""
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
    if wanted.label is not None:
        found = "c.n IN (SELECT n FROM labels WHERE mark = ?)"
        terms.append(found if task is not None and task.has_labels else "? = 'no answer has a label'")
        values.append(_mark(project, task.label_field if task else None, wanted.label))
    words = _phrases(wanted.words)
    if not words:
        return "completions AS c", terms, tuple(values)
    terms.insert(0, "words MATCH ?")
    return "words CROSS JOIN completions AS c ON c.n = words.rowid", terms, (" AND ".join(words), *values)


def _phrases(text: str) -> list[str]:
    """Return what is searched, in the language of FTS5: each word, or what stands in quotes, as the beginning
    of words. What has no letter or digit is left out, since the index has none of it."""
    parts = re.findall(r'"([^"]*)"|([^\s"]+)', text.replace("\0", " "))
    return [f'"{part}"*' for pair in parts if re.search(r"[^\W_]", part := pair[0] or pair[1])]


def label_marks(project: str, answer: str) -> Iterable[int]:
    """Return a mark of each label that ``answer`` may have: of each field if it is a JSON object, and of the
    whole text. Which of them is the label is the task's to say, and a task may change."""
    from tunewheel_outputs.labels import label_in
    from tunewheel_outputs.parsing import Unparsed, parse

    found = {_mark(project, None, text)} if (text := answer.strip()) else set[int]()
    try:
        value = parse(answer)
    except Unparsed:
        return found
    fields = ((name, label_in(value, name)) for name in value) if isinstance(value, dict) else ()
    return found | {_mark(project, name, label) for name, label in fields if label is not None}


def _mark(project: str, field: str | None, label: str) -> int:
    """Return 64 bits of a hash. No text of an answer is in it."""
    told = json.dumps([project, field, label]).encode()
    return int.from_bytes(blake2b(told, digest_size=8).digest(), signed=True)


def microseconds(at: datetime) -> int:
    """Return the time since 1970. ``at`` may be of any time zone."""
    return (at - _EPOCH) // timedelta(microseconds=1)
