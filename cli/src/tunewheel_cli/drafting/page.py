"""Writes a draft as YAML with comments. Texts of files get into the YAML through its library alone."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import yaml
from tunewheel_contracts.yaml_reading import read_yaml

from tunewheel_cli.drafting.draft import Draft

WIDTH = 110
LONGEST_COMMENT = 600


def written(draft: Draft) -> str:
    """Return the file's text. Reading it gives the draft's spec again."""
    text = "\n".join(
        "".join([*_comments(section.comments), _dumped(section.fields)]) for section in draft.sections
    )
    if read_yaml(text) != draft.spec:
        raise AssertionError("the file would say something else than the draft")
    return text


def _comments(comments: tuple[str, ...]) -> Iterator[str]:
    for comment in comments:
        # A line break in a comment would end it: what follows would be YAML.
        plain = " ".join("".join(char if char.isprintable() else " " for char in comment).split())
        for line in textwrap.wrap(plain[:LONGEST_COMMENT], WIDTH - 2, break_on_hyphens=False):
            yield f"# {line}\n"


def _dumped(fields: object) -> str:
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=WIDTH, default_flow_style=False)
