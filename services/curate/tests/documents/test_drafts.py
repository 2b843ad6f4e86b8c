from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_curate.documents.drafts import CodePair, answer_from, code_pair, question_about
from tunewheel_curate.examples.tokens import estimating
from tunewheel_retrieval.sections import Section

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


TOKENS = estimating("some/model", "no hub")
PROSE = (
    "Press the button twice and wait for the light. Then open the door.\n\n"
    "Call the workshop if it stays shut."
)


def section(*path: str, text: str = PROSE, title: str = "Lockers", kind: str = "prose") -> Section:
    return Section("r", "g", title, path, (DocumentSection(text=text, kind=kind),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "question"),
    [
        ((), 'What is "Lockers" about?'),
        (("Reset",), 'What does "Lockers" say about "Reset"?'),
        (("Lockers", "Doors", "Reset"), 'What does "Lockers" say about "Doors > Reset"?'),
        (("2.1 What if it stays shut?",), "What if it stays shut?"),
        (("How to reset a door",), "How do I reset a door?"),
        (("3) How to Reset a door.",), "How do I reset a door?"),
        (("How to VPN in",), "How do I VPN in?"),
    ],
)
def test_the_heading_asks(path: tuple[str, ...], question: str) -> None:
    assert question_about(section(*path)) == question


def test_the_section_answers_in_its_own_sentences() -> None:
    assert answer_from(section("Reset"), TOKENS, max_tokens=100) == PROSE
    assert answer_from(section("Reset"), TOKENS, max_tokens=18) == PROSE.split("\n\n")[0]
    assert answer_from(section("Reset"), TOKENS, max_tokens=14) == PROSE.split(" Then")[0]


@pytest.mark.parametrize(
    "one",
    [section(text="See above."), section(text="x " * 400), section(text="a = 1\n" * 30, kind="code")],
)
def test_what_says_nothing_answers_nothing(one: Section) -> None:
    assert answer_from(one, TOKENS, max_tokens=100) is None
