from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_curate.documents.code_pairs import CodePair, code_pair

SUMMARY = "Ring the bell a number of times."
PYTHON = f'''    def ring(times: int) -> None:
        """{SUMMARY}"""
        for _ in range(times):
            bell.ring()
'''
GO = f"// {SUMMARY}\nfunc Ring(times int) {{\n\tfor i := 0; i < times; i++ {{\n\t\tbell.Ring()\n\t}}\n}}"


def piece(**changes: Any) -> DocumentSection:
    told = {
        "text": PYTHON,
        "kind": "code",
        "language": "python",
        "name": "ring",
        "summary": SUMMARY,
    } | changes
    return DocumentSection.model_validate(told)


def test_the_docstring_is_not_told_with_the_code_it_is_asked_of() -> None:
    pair = code_pair(piece(), ("Bell",))
    assert isinstance(pair, CodePair)
    assert pair.name == "Bell.ring"
    assert pair.summary == SUMMARY
    assert SUMMARY not in pair.bare
    assert pair.bare == (
        "```python\ndef ring(times: int) -> None:\n    for _ in range(times):\n        bell.ring()\n```"
    )
    assert SUMMARY in pair.code


def test_other_languages_keep_their_summary_in_a_comment() -> None:
    pair = code_pair(piece(text=GO, language="go", name="Ring"), ())
    assert isinstance(pair, CodePair)
    assert pair.bare.startswith("```go\nfunc Ring")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": "prose"}, None),
        ({"name": None}, None),
        ({"summary": None}, None),
        ({"summary": "Rings."}, "summary too short"),
        ({"text": "def ring(:"}, "summary not to be told from the code"),
        ({"text": PYTHON + f"        # {SUMMARY}\n"}, "summary not to be told from the code"),
        ({"text": f'def ring():\n    """{SUMMARY}"""'}, "no body"),
    ],
)
def test_what_makes_no_pair_says_why(changes: dict[str, Any], why: str | None) -> None:
    assert code_pair(piece(**changes), ()) == why
