"""Stop strings are found across pieces, and nothing else is held back for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_generation.stopping import StopMatcher


def run(pieces: list[str], stops: list[str], *, include: bool = False) -> tuple[str, bool]:
    matcher = StopMatcher(stops, include=include)
    out = []
    for piece in pieces:
        out.append(matcher.feed(piece))
        if matcher.matched:
            break
    return "".join(out) + matcher.flush(), matcher.matched


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["Hello", " world"], [], ("Hello world", False)),
        (["Hello", " world"], ["lo w"], ("Hel", True)),
        (["ab", "ab", "ac"], ["abac"], ("ab", True)),
        (["one END two"], ["END", "two"], ("one ", True)),
        (["one two END"], ["END", "two"], ("one ", True)),
        (["almost EN"], ["END"], ("almost EN", False)),
        (["END"], ["END"], ("", True)),
        (["Hello"], ["", "x"], ("Hello", False)),
    ],
)
def test_the_text_ends_before_the_first_stop(pieces, stops, expected) -> None:
    assert run(pieces, stops) == expected


def test_only_what_may_become_a_stop_is_held_back() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.feed("the E") == "the "
    assert matcher.feed("agle") == "Eagle"


def test_tgi_keeps_the_piece_that_completes_the_stop() -> None:
    assert run(["a", " EN", "D!", "more"], ["END"], include=True) == ("a END!", True)


@given(
    st.lists(st.text("ab", max_size=3), max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_pieces_do_not_matter(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    # Of stops that end at different places the one complete first counts, so compare up to its end.
    first_end = min((at + len(stop) for stop in stops if (at := text.find(stop)) >= 0), default=None)
    got, matched = run(list(text), stops)
    assert matched == bool(found)
    if first_end is None:
        assert got == text
    else:
        assert text.startswith(got)
        assert any(text[len(got) :].startswith(stop) for stop in stops)
        assert len(got) < first_end
