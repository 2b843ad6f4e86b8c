from __future__ import annotations

import pytest
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_curate.documents.extraction import answer_from, question_about
from tunewheel_curate.examples.tokens import estimating
from tunewheel_retrieval.sections import Section

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
