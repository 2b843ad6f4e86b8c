from __future__ import annotations

import polars as pl
from tunewheel_monitor.reference import reference_texts


def split(*rows: tuple[str, str, str | None]) -> pl.DataFrame:
    made = [
        {"example_id": name, "messages": [{"role": "user", "content": text}], "format": form}
        for name, text, form in rows
    ]
    return pl.DataFrame(made)


def test_only_what_users_ask_is_the_reference() -> None:
    train = split(("ex-3", "Where is it?", "answer"), ("ex-1", 'Quote "Lockers".', "chunk"))
    holdout = split(("ex-2", "It broke.", "answer"), ("ex-0", "Write a poem.", "replay"))
    assert reference_texts([train, holdout], limit=10) == ["It broke.", "Where is it?"]
    assert reference_texts([train, holdout], limit=1) == ["It broke."]


def test_versions_without_formats_hold_answers_alone() -> None:
    old = split(("ex-1", "It broke.", None)).drop("format")
    assert reference_texts([old], limit=10) == ["It broke."]
