"""Looks at held-out rows. A look is one verdict for which the rows were used.

Eval writes looks. Curate retires the groups that were used too often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Slug

LOOKS = 10
"""Most verdicts for which a held-out group may be used. Each verdict uses a tenth of alpha."""


class Look(Frozen):
    """``looks/<project>/<scorecard_id>.json``. It is created once, so a redelivered event adds no look."""

    project: Slug
    scorecard_id: Slug
    groups: tuple[str, ...]
    """Pseudonyms of the groups whose rows the verdict used, sorted."""
    looks: Annotated[int, Field(gt=0)]
    """Number of looks, including this one, at the group among them that was used most often."""


def looks_folder(project: str) -> str:
    return f"looks/{project}"


def look_path(project: str, scorecard_id: str) -> str:
    return f"{looks_folder(project)}/{scorecard_id}.json"


def looks_by_group(looks: Iterable[Look]) -> Counter[str]:
    """Return the number of looks at each group."""
    return Counter(group for look in looks for group in look.groups)
