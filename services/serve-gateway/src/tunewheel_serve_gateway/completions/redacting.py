"""Removes personal data from logged texts for ``serving.log: redacted``. It imports polars and presidio, so
it is not called in the event loop's thread.

JSON is decoded before it is searched. In encoded JSON an escaped character such as ``\\n`` touches the next
word, and a recogniser that looks for whole words then misses a number behind it. The arguments of a tool call
are JSON within JSON, and an answer may break off in the middle of its JSON.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import orjson
from tunewheel_contracts.formats.spec import ProjectSpec

if TYPE_CHECKING:
    from tunewheel_redaction.redaction import Redactor

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


def clean(spec: ProjectSpec, texts: Sequence[str], answers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return ``texts`` and ``answers`` with placeholders for the personal data that the patterns of
    ``dataset.pii`` find.

    Names, which only a spaCy pipeline finds, are not replaced. In an answer that is JSON the strings, keys
    and whole numbers are redacted, and the answer stays JSON. ``texts`` are also searched in their encoded
    form. Raises InvalidSpec, polars' errors, UnicodeEncodeError: the texts cannot be redacted.
    """
    from tunewheel_redaction.redaction import Redactor

    policy = spec.dataset.pii.model_copy(update={"action": "redact", "named_entities": None})
    redactor = Redactor(policy, project=spec.project)
    said = list(texts)
    escaped = [n for n, text in enumerate(said) if "\\" in text]
    read = _answers(redactor, [*answers, *(said[n] for n in escaped)])
    for n, text in zip(escaped, read[len(answers) :], strict=True):
        said[n] = text
    return _texts(redactor, said), read[: len(answers)]


def _answers(redactor: Redactor, answers: Sequence[str]) -> list[str]:
    """Redact answers, including the arguments of their tool calls."""
    cleaned = list(answers)
    calls = {n: found for n, answer in enumerate(answers) if (found := _calls(answer))}
    functions = [one["function"] for found in calls.values() for one in found if _is_call(one)]
    for function, new in zip(functions, _json(redactor, [f["arguments"] for f in functions]), strict=True):
        function["arguments"] = new
    for n, found in calls.items():
        cleaned[n] = orjson.dumps(found).decode()
    return _json(redactor, cleaned)


def _calls(answer: str) -> list[Any]:
    """Return the tool calls of an answer that ``text_of_calls`` wrote; an empty list for any other answer."""
    if not answer.startswith("[{") or '"arguments"' not in answer:
        return []
    try:
        found: list[Any] = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return []
    return found if any(map(_is_call, found)) else []


def _is_call(found: Any) -> bool:
    function: Any = cast(dict[str, Any], found).get("function") if isinstance(found, dict) else None
    return isinstance(function, dict) and isinstance(cast(dict[str, Any], function).get("arguments"), str)


def _json(redactor: Redactor, answers: Sequence[str]) -> list[str]:
    """Redact JSON answers as JSON and the others as text. Text may hold escaped characters between words."""
    import polars as pl
    from tunewheel_redaction.answers import Kind, parts_of

    cleaned = redactor.clean_answers(pl.Series(answers, dtype=pl.String), _no_groups(answers)).to_list()
    escaped = [
        n
        for n, answer in enumerate(cleaned)
        if "\\" in answer and any(part.kind is Kind.TEXT for part in parts_of(answer))
    ]
    read = [_ESCAPE.sub(_meant, cleaned[n]) for n in escaped]
    for n, before, after in zip(escaped, read, _texts(redactor, read), strict=True):
        if before != after:
            cleaned[n] = after
    return cleaned


def _meant(escape: re.Match[str]) -> str:
    sign = chr(int(escape[1], 16)) if escape[1] else " "
    return " " if "\ud800" <= sign <= "\udfff" else sign


def _texts(redactor: Redactor, texts: Sequence[str]) -> list[str]:
    import polars as pl

    return redactor.clean(pl.Series(texts, dtype=pl.String), _no_groups(texts)).to_list()


def _no_groups(texts: Sequence[str]) -> Any:
    import polars as pl

    return pl.Series([""] * len(texts), dtype=pl.String)
