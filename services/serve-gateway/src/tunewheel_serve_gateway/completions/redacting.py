"""Personal data out of what goes on the log, as ``serving.log: redacted`` asks. Polars and presidio are
imported here: not in the event loop's thread.

A tool call's arguments are JSON in JSON, and an answer may break off within its JSON. A sign that is escaped
there touches what follows: a recogniser that looks for whole words does not see a number behind ``\\n``.
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
    """Return both without the personal data that ``dataset.pii`` finds by patterns, as placeholders. Names
    that only a spaCy pipeline finds stay. Of JSON among ``answers`` the strings, keys and whole numbers are
    read, and it stays JSON; ``texts`` are read as they are, too.

    Raises:
        InvalidSpec, polars' errors, UnicodeEncodeError: no text can be redacted.
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
    """Clean answers, and within them what tools are called with."""
    cleaned = list(answers)
    calls = {n: found for n, answer in enumerate(answers) if (found := _calls(answer))}
    functions = [one["function"] for found in calls.values() for one in found if _is_call(one)]
    for function, new in zip(functions, _json(redactor, [f["arguments"] for f in functions]), strict=True):
        function["arguments"] = new
    for n, found in calls.items():
        cleaned[n] = orjson.dumps(found).decode()
    return _json(redactor, cleaned)


def _calls(answer: str) -> list[Any]:
    """Return the tool calls as which ``text_of_calls`` tells a message without text; none of another."""
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
    """Clean JSON as JSON, and what is none as text, in which what was escaped may stand between words."""
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
