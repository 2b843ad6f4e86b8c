"""A look at held-out rows: one verdict that they were used for.

Eval writes looks; curate retires the groups that were looked at too often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Slug

LOOKS = 10
"""How many verdicts a held-out group is good for. Each is given at a tenth of alpha."""


class Look(Frozen):
    """``looks/<project>/<scorecard_id>.json``, created once: whatever is delivered again is one look."""

    project: Slug
    scorecard_id: Slug
    groups: tuple[str, ...]
    """Pseudonyms of the groups that the verdict rests on, sorted."""
    looks: Annotated[int, Field(gt=0)]
    """How often the group among them that was looked at most was, this time included."""


def looks_folder(project: str) -> str:
    return f"looks/{project}"


def look_path(project: str, scorecard_id: str) -> str:
    return f"{looks_folder(project)}/{scorecard_id}.json"


def looks_by_group(looks: Iterable[Look]) -> Counter[str]:
    """Count how often each group was looked at."""
    return Counter(group for look in looks for group in look.groups)
