from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_retrieval.passages import estimated_sizes, estimated_tokens, passages_of
from tunewheel_retrieval.sections import Section

TABLE = "| part | price |\n|---|---|\n" + "\n".join(f"| part {n} | {n} |" for n in range(30))
CODE = "\n".join(f"step_{n}(argument)" for n in range(30))


def section(*pieces: DocumentSection | str) -> Section:
    made = tuple(DocumentSection(text=p) if isinstance(p, str) else p for p in pieces)
    return Section("rec-1", "g", "Handbook", ("Reset",), made)


def chunks(*pieces: DocumentSection | str, max_tokens: int = 40, overlap: int = 0) -> list[str]:
    return passages_of(section(*pieces), estimated_sizes, max_tokens=max_tokens, overlap=overlap)


def test_what_fits_stays_together() -> None:
    assert chunks("One.\n\nTwo.", DocumentSection(text="x()", kind="code")) == [
        "One.\n\nTwo.\n\n```\nx()\n```"
    ]


def test_passages_end_between_paragraphs_before_they_end_between_sentences() -> None:
    paragraphs = [f"Paragraph {n} says a thing. And another thing." for n in range(6)]
    made = chunks("\n\n".join(paragraphs))
    assert len(made) > 1
    assert [part for passage in made for part in passage.split("\n\n")] == paragraphs


def test_long_prose_is_cut_between_sentences_then_words() -> None:
    sentences = [f"Sentence number {n} is not long." for n in range(20)]
    made = chunks(" ".join(sentences))
    assert " ".join(made) == " ".join(sentences)
    assert all(passage.endswith(".") for passage in made)
    words = "word " * 200
    assert " ".join(chunks(words)).split() == words.split()


def test_tables_and_code_are_whole_unless_they_alone_are_too_long() -> None:
    small = DocumentSection(text="\n".join(TABLE.split("\n")[:5]), kind="table")
    assert small.text in chunks("word " * 30, small)
    rows = chunks(DocumentSection(text=TABLE, kind="table"))
    assert len(rows) > 1
    assert all(passage.startswith("| part | price |\n|---|---|\n| part ") for passage in rows)
    assert re.findall(r"\| part \d+ \| \d+ \|", "\n".join(rows)) == TABLE.split("\n")[2:]
    code = chunks(DocumentSection(text=CODE, kind="code", language="python"))
    assert len(code) > 1
    assert all(passage.startswith("```python\n") and passage.endswith("\n```") for passage in code)
    assert re.findall(r"step_\d+\(argument\)", "\n".join(code)) == CODE.split("\n")


def test_a_passage_repeats_the_end_of_the_one_before() -> None:
    paragraphs = [f"Paragraph {n} says a thing. It ends with {n}." for n in range(6)]
    made = chunks("\n\n".join(paragraphs), overlap=10)
    assert len(made) > 1
    for number, passage in enumerate(made[1:]):
        last = made[number].split("\n\n")[-1].split(". ")[-1]
        assert passage.startswith(last)


def test_what_counts_tokens_sets_the_budget() -> None:
    def signs(texts: Sequence[str]) -> list[int]:
        return [len(re.findall(r"\w|[^\w\s]", text)) for text in texts]

    text = "\n\n".join(f"Überprüfen {n}: 🚲 läutet nicht mehr." for n in range(20))
    made = passages_of(section(text), signs, max_tokens=60, overlap=0)
    assert len(made) > 5
    assert max(signs(made)) <= 60


def test_other_scripts_are_not_underestimated() -> None:
    assert estimated_tokens("bell") == 1
    assert estimated_tokens("自転車のベル") == 5
    assert estimated_tokens("") == 0


@settings(max_examples=60)
@given(
    pieces=st.lists(
        st.builds(
            DocumentSection,
            text=st.text(alphabet="ab .\n|-`é🚲", min_size=1, max_size=300),
            kind=st.sampled_from(["prose", "table", "code"]),
        ),
        min_size=1,
        max_size=4,
    ),
    overlap=st.sampled_from([0, 8]),
)
def test_nothing_is_lost_and_budgets_hold(pieces, overlap: int) -> None:
    made = chunks(*pieces, max_tokens=30, overlap=overlap)
    told = "".join(made)
    for piece in pieces:
        for word in piece.text.split():
            assert word in told or len(word) > 100
    for passage in made:
        too_long = estimated_tokens(passage) > 30
        assert not too_long or max(map(len, passage.split())) > 40 or "|" in passage or "`" in passage


@pytest.mark.parametrize("hostile", ["a" * 100_000, "a\n" * 20_000, "|" * 50_000, ". " * 50_000])
@pytest.mark.parametrize("kind", ["prose", "table", "code"])
def test_hostile_text_is_cut_in_reasonable_steps(hostile: str, kind: str) -> None:
    piece = DocumentSection(text=hostile, kind=kind)  # type: ignore[arg-type]
    assert len("".join(chunks(piece))) >= len(hostile.replace(" ", "").replace("\n", "")) // 2
