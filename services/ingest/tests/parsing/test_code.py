from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_ingest.parsing.formats.code import parse_code

SOURCE = '''\
"""Refunds."""
import math


@cached
def due(order: str) -> float:
    """Return what is due."""
    return math.nan


class Shop(Base):
    """Sells."""

    open = True

    def sell(self) -> None:
        """Sell one."""

        def inner() -> None: ...

    closed = False

    class Till:
        async def ring(self): pass

last = 1
'''


def test_python_is_cut_into_functions_and_classes_with_their_lines() -> None:
    parsed = parse_code(SOURCE, "tools/refund.py")
    found = [(s.path, s.name, s.summary, s.first_line, s.last_line) for s in parsed.sections]
    assert found == [
        ((), None, "Refunds.", 1, 2),
        ((), "due", "Return what is due.", 5, 8),
        ((), "Shop", "Sells.", 11, 14),
        (("Shop",), "sell", "Sell one.", 16, 19),
        (("Shop",), None, None, 21, 21),
        (("Shop",), "Till", None, 23, 23),
        (("Shop", "Till"), "ring", None, 24, 24),
        ((), None, None, 26, 26),
    ]
    lines = SOURCE.split("\n")
    for section in parsed.sections:
        assert section.first_line is not None
        assert section.text == "\n".join(lines[section.first_line - 1 : section.last_line])
        assert (section.kind, section.language) == ("code", "python")
    assert parsed.markdown == f"```python\n{SOURCE.strip()}\n```"


def test_functions_that_depend_on_a_version_or_an_import_are_functions() -> None:
    source = """\
if sys.version_info >= (3, 11):
    def read():
        \"\"\"Read by the library.\"\"\"
        return tomllib
else:
    try:
        import tomli
    except ImportError:
        def read():
            \"\"\"Give up.\"\"\"
            raise SystemExit
"""
    found = [(s.name, s.summary, s.first_line, s.last_line) for s in parse_code(source, "a.py").sections]
    assert found == [
        (None, None, 1, 1),
        ("read", "Read by the library.", 2, 4),
        (None, None, 5, 8),
        ("read", "Give up.", 9, 11),
    ]


def test_a_chain_of_conditions_without_end_is_followed() -> None:
    branches = (f"elif x == {n}:\n    def f(): pass\n" for n in range(900))
    sections = parse_code("if x:\n    pass\n" + "".join(branches), "a.py").sections
    assert sum(section.name == "f" for section in sections) in (0, 900)  # 0: too deep for Python's own parser


@pytest.mark.parametrize("source", ["print 'two'\n", "{{ template }}", "def broken(:\n", "x = 1\n\x00"])
def test_python_that_does_not_parse_is_one_piece(source: str) -> None:
    parsed = parse_code(source, "old.py")
    assert [(s.language, s.name) for s in parsed.sections] == [("python", None)]


def test_another_language_is_one_piece_and_kept_verbatim() -> None:
    parsed = parse_code("fn main() {\n\n\n\n    // `\u200f``` \U0001f6b2\n}\n", "src/main.rs")
    (section,) = parsed.sections
    assert (section.language, section.first_line, section.last_line) == ("rust", 1, 6)
    assert parsed.markdown.startswith("```rust\nfn main() {\n\n\n\n    // ")


def test_a_nest_too_deep_for_the_parser_is_one_piece() -> None:
    (section,) = parse_code("(" * 5_000 + ")" * 5_000, "deep.py").sections
    assert section.name is None


@given(
    st.lists(
        st.sampled_from(["x = 1", "def f(): pass", "class C:", "    def m(self): pass", "", "    y = 2"])
    )
)
def test_no_line_is_lost_or_doubled(lines: list[str]) -> None:
    sections = parse_code("\n".join(lines), "a.py").sections
    kept = [line for section in sections for line in section.text.split("\n") if line]
    assert kept == [line for line in lines if line]
