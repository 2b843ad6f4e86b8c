"""How long curate's row steps take with one hostile row: 200 shapes of text, in four kinds of rows, as long
as a row may be.

Prints the worst in seconds of the processor. Every shape is repeated to ``LONGEST_ROW`` characters, for one
more is dropped unread. Then each of presidio's recognisers is asked for by its name on the same texts.
"""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

import polars as pl
from corpus import project
from tunewheel_contracts.formats.example_formats import CleaningSpec
from tunewheel_contracts.formats.recognised import PII_ENTITIES
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_curate.cleaning.redaction import redact_records
from tunewheel_curate.cleaning.tickets import clean_records
from tunewheel_curate.examples.formatting import with_key
from tunewheel_curate.examples.output_validation import LONGEST_ROW, normalize, validate_outputs
from tunewheel_redaction.redaction import find_entities

SIGNS = "aA1.-@ _:/\\'\"<>&%=()[]{}|#*+?!~$^,;\n\t\u200b\u00ad\uff21\u00e9\u4e2d\u202e\U0001f600"
UNITS = (
    "a.", "1.", "a-", "1-", "1 ", "a@", "a!", "a ", "A1 ", "www.", "a.com/", "www.a.com ", '"http://a.com',
    "a@b.co ", "a.a@", "a@a.", "a@a.a@", "1/1/20 ", "2020-01-01", "A123456 ", "123-45-6789 ", "123456789 ",
    "12345678901 ", "ABCDE1234 ", "12 Aa a@", "aa:bb:cc:", "00:11:22:33:44:55 ", "1.2.3.4 ", "1:2:", "::",
    "bc1a", "RSSMRA80A01H501U", "AB1234563 ", "1_", "x.y-z.", "44051401458 ", "M1 1AA ", "AB 12 34 56 C ",
    "123456789A ", "Anna ", "Anna Berg, ", "Anna and ", "anna, ", "anna berg ", "A B. ", "12 A ", "1 1 Ab ",
    "name is ", "my name is a", "hi ", "Dr. ", "Xa: ", "Xa:\n", "12 Baker Street, ", "4111 1111 1111 1111 ",
    "DE89370400440532013000 ", " at ", "a dot ", "a at b dot c ", "%40", "%25", "&amp;", "&#64;", "=40a",
    "\\u0040", "QUFBQUFB", "password: ", "password: aB3$xyz9 ", "x_key=aaaaaa ",
    "-----BEGIN PRIVATE KEY-----", "bearer aaaaaaaaa", "a://b:", "basic ", "+49 30 901820 ",
    "call 030 1234567 / ", '{"a":', "[[", "{}", "\n> a", "> a\nb\n", "<|", "<s>", "[INST]", "```\n",
    "From: a\n", "Sent: 1\nTo: a\nFrom: b\n", "On a wrote:\n", "on 1:00 a@b wrote\n", "<a@b.co>", "ignore ",
    "ignore rules ", "system: you ", "Regards,\n", "-- \n", "Sent from my a\n", "confidential ",
    "Hi Bob,\n", "p.s. ", "a\n\n", "-\n", "a\u0301", "\u00c3\u00a9", "\u00e2\u20ac", "ghp_", "AKIA", "1, ",
    "(1", "tel ", "tel 1 ", "Apt 1 ", "P.O. Box 1 ", "Hauptstr. 1 ", "Rua A ", "Ab A ", "Ab\n1 Ab ",
    "http://a.", "https://a.com/?", "a=b&", "Kov ", "Xanov and ", "a.b@c.de\n",
)  # fmt: skip


LENGTH = LONGEST_ROW - 256
"""Of a text: the row's other texts and the brackets of JSON count too."""


def shapes(rng: random.Random) -> dict[str, str]:
    """Return texts of ``LENGTH`` characters: units repeated, and mixtures of a few units."""
    units = [*SIGNS, *UNITS]
    mixed = [" ".join(rng.sample(units, 3)) for _ in range(200 - len(units))]
    return {repr(unit): (unit * LENGTH)[:LENGTH] for unit in (*units, *mixed)}


def row(place: str, text: str) -> dict[str, Any]:
    said: dict[str, Any] = {
        "title": "",
        "input": "It fails since Monday.",
        "output": "Restart it.",
        "history": None,
    }
    if place == "history":
        half = text[: len(text) // 2]
        said["history"] = json.dumps(
            [{"role": "user", "content": half}, {"role": "assistant", "content": half}]
        )
    elif place == "JSON":
        said["output"] = json.dumps({"reply": text[: len(text) // 2], "name": text[:99]})
    else:
        said[place] = text
    name = {"record_id": "r", "project": "bench", "group": "g", "kind": "ticket"}
    return {**name, **said, "rejected_output": None}


def seconds(place: str, text: str, spec: ProjectSpec) -> float:
    records = pl.DataFrame(
        [row(place, text)], schema_overrides={"history": pl.String, "rejected_output": pl.String}
    )
    started = time.process_time()
    kept = normalize(records, spec.task, min_characters=3, max_tokens=1024).kept
    kept = clean_records(kept, CleaningSpec(), free_text=True, min_characters=3).kept
    kept = redact_records(kept, spec.dataset.pii).kept
    kept = with_key(kept).kept
    validate_outputs(kept, spec.task)
    return time.process_time() - started


def measured(every: int = 1, *, named_too: bool = True) -> dict[str, Any]:
    """Return the worst rows, and by entity the worst text; of the shapes each
    ``every``-th."""
    texts = dict(list(shapes(random.Random(62)).items())[::every])
    given = project(["a"])
    spec = given.model_copy(
        update={"task": given.task.model_copy(update={"output_schema": None, "label_field": None})}
    )
    seconds("input", "Anna Berg, a@b.co, call +49 30 901820, 1.2.3.4", spec)  # compiles the rules
    rows = [
        (round(seconds(place, text, spec), 3), place, shape)
        for shape, text in texts.items()
        for place in ("input", "output", "history", "JSON")
    ]
    named: list[tuple[float, str, str]] = []
    for entity in sorted(PII_ENTITIES) if named_too else ():
        for shape, text in texts.items():
            started = time.process_time()
            find_entities([text], [entity])
            named.append((round(time.process_time() - started, 3), entity, shape))
    return {
        "shapes": len(texts), "rows": len(rows), "characters": LENGTH,
        "worst_rows": sorted(rows, reverse=True)[:8],
        "worst_recognisers": sorted(named, reverse=True)[:8],
    }  # fmt: skip


if __name__ == "__main__":
    print(
        json.dumps(
            measured(int(sys.argv[1]) if len(sys.argv) > 1 else 1, named_too=len(sys.argv) < 3),
            indent=1,
            ensure_ascii=True,
        )
    )
