from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_ingest.normalising import normalise
from tunewheel_ingest.parsing.formats.text import parse_markdown
from tunewheel_ingest.parsing.markdown import LONGEST_HEADING, fenced, sections_of, title_of

SOP = """\
---
title: metadata
---
Before any heading.

# Batteries {#bat}

## `Trail 2` and [Trail 3](http://x/y)

One long charge.

- first
- second

| light | means |
|:------|------:|
| red   | empty |

```python
# no heading
charge()
```

After.

Setext
------

Below.

# Bells #
Ring.
"""


def test_code_in_a_list_loses_the_indentation_of_the_list_and_no_other() -> None:
    text = "1. Call\n\n   ```python\n   if bike:\n       charge()\n\n  odd()\n   ```\n2. Wait"
    assert [(s.kind, s.text) for s in sections_of(text)] == [
        ("prose", "1. Call"),
        ("code", "if bike:\n    charge()\n\nodd()"),
        ("prose", "2. Wait"),
    ]


def test_structure_becomes_sections_with_their_headings() -> None:
    found = [(s.kind, s.path, s.text, s.language) for s in sections_of(SOP)]
    battery = ("Batteries", "Trail 2 and Trail 3")
    assert found == [
        ("prose", (), "Before any heading.", None),
        ("prose", battery, "One long charge.\n\n- first\n- second", None),
        ("table", battery, "| light | means |\n|:------|------:|\n| red   | empty |", None),
        ("code", battery, "# no heading\ncharge()", "python"),
        ("prose", battery, "After.", None),
        ("prose", ("Batteries", "Setext"), "Below.", None),
        ("prose", ("Bells",), "Ring.", None),
    ]
    assert title_of(SOP) == "Batteries"


def test_front_matter_gives_the_title_where_no_heading_does() -> None:
    text = '---\nweight: 20\ntitle: "Alert: it rings"\n---\n\nRing.'
    assert parse_markdown(text).title == "Alert: it rings"
    assert [s.text for s in parse_markdown(text).sections] == ["Ring."]
    assert parse_markdown(text + "\n\n# Heading").title == "Heading"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("## Bells\n\ntext\n\n# Horns", "Bells"),
        ("Read this first.\n\n## Bells\n\ntext", ""),
        ("Read this first.\n\n## Bells\n\n# Horns", "Horns"),
        ("```\n# no heading\n```\n\n## Bells", ""),
        ("---\ntitle: Rings\n---\nRead this first.\n\n## Bells", "Rings"),
        ("#\n# a" + " " * 400_000 + "x", ""),
    ],
)
def test_a_heading_of_a_part_is_no_title(text: str, title: str) -> None:
    assert parse_markdown(text).title == title


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("#hash\n\ntext", [()]),
        ("####### seven\n\ntext", [()]),
        ("a\n\n---\n\nb", [()]),
        ("- item\n---\nb", [()]),
        ("    # indented code", [()]),
        ("#\n\ntext", [()]),
        ("### deep\n\na\n\n# top\n\nb", [("deep",), ("top",)]),
        ("# [The `#[doc]` part](#x) and ![a](b)\n\ntext", [("The #[doc] part and a",)]),
        ("# a](b) [c](d)\n\ntext", [("a](b) [c](d)",)]),
        (f"# {'x' * LONGEST_HEADING}\n\ntext", [()]),
    ],
)
def test_what_only_looks_like_a_heading_is_text(text: str, paths: list[tuple[str, ...]]) -> None:
    assert [s.path for s in sections_of(text)] == paths


def test_a_fence_that_never_closes_holds_the_rest() -> None:
    (section,) = sections_of("```\n# a\n\n# b")
    assert (section.kind, section.text) == ("code", "# a\n\n# b")


def test_a_longer_fence_holds_a_shorter_one() -> None:
    inner = "```\nx\n```"
    (section,) = sections_of(fenced(inner, "markdown"))
    assert (section.kind, section.text, section.language) == ("code", inner, "markdown")


@given(st.text(alphabet=st.sampled_from("#`~|-=:> \n\tab[](){}*")))
def test_no_text_is_lost(text: str) -> None:
    """Every letter of the text is in a section or in a heading of one; nothing raises."""
    text = normalise(text)
    sections = sections_of(text)
    kept = sum(s.text.count("a") + s.text.count("b") for s in sections)
    assert kept <= text.count("a") + text.count("b")
    if not any(mark in text for mark in "#=`~-"):
        assert kept == text.count("a") + text.count("b")


@pytest.mark.parametrize(
    "unit",
    ["[](", "#", "|-", "`", " ", "- ", "=\n", "a\n-\n", "```\n", "|a\n|-\n", "\t", "> ", "{#", "# [x](\n"],
)
def test_a_long_run_of_marks_is_read_in_linear_time(unit: str) -> None:
    """A quadratic reader would not come back from any of these within the suite's patience."""
    text = unit * (300_000 // len(unit))
    sections_of(text)
    normalise(text + "x")
