"""``publish --check``: prints what a file holds. No wheel is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tunewheel_cli.exits import print_json
from tunewheel_cli.publishing.items import Kind

if TYPE_CHECKING:
    from tunewheel_cli.surveying.check import Check

SPEC = Path("project.yaml")
SHOWN_LABELS = 12


def check(path: Path, kind: Kind | None, maps: list[str], *, as_json: bool) -> bool:
    """Print the findings about ``path``; return whether a line is refused. Raises as ``check_file``."""
    from tunewheel_cli.commands.progress import reading_bar
    from tunewheel_cli.surveying.check import check_file

    with reading_bar([path], silent=as_json) as note:
        found = check_file(path, kind=kind, maps=maps, base_model=_base_model(), on_bytes=note)
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)
    return found.survey.refused > 0


def _base_model() -> str:
    """Return the base model of the folder's project.yaml; the bundled one if there is none."""
    from tunewheel_contracts.errors import InvalidSpec

    from tunewheel_cli.drafting.base import BUNDLED
    from tunewheel_cli.spec_file import read_spec

    try:
        return read_spec(SPEC).base_model
    except InvalidSpec:
        return BUNDLED


def _print(found: Check) -> None:
    from tunewheel_cli.surveying.survey import refusals_of

    survey = found.survey
    kinds = ", ".join(f"{count:,} {kind}s" for kind, count in survey.kinds.items()) or "nothing"
    print(f"{found.path}: {kinds}" + (f", read as {found.form}" if found.form else ""))
    for note in found.notes:
        print(f"  {note}")
    if survey.examples:
        _print_examples(found)
    for count, where, name, reason in refusals_of(survey):
        lines = f"{count:,} lines, the first at {where}" if count > 1 else where
        print(f"refused: {lines}: {name} {reason}", file=sys.stderr)


def _print_examples(found: Check) -> None:
    survey, tokens = found.survey, found.tokens
    assert tokens is not None
    by = f"tokens of {tokens.tokenizer}" if tokens.tokenizer else f"estimated: {tokens.reason}"
    mean = tokens.stats.tokens / tokens.stats.examples
    print(
        f"tokens: {tokens.stats.tokens:,}, {mean:.0f} an example, {tokens.stats.longest:,} in the longest; "
        f"{tokens.stats.learnt:,} in answers ({by})"
    )
    print(
        f"questions: {survey.distinct:,} different; {survey.duplicates:,} examples are repeated, "
        f"{survey.contradictions:,} have another answer than an equal question before; {found.near:,} of "
        f"{found.compared:,} are nearly the same as another"
    )
    if found.personal is None:
        print("personal data: not looked for; install tunewheel-redaction")
    else:
        entities = ", ".join(f"{name} in {count:,}" for name, count in found.personal.most_common())
        print(f"personal data: {entities or 'none'} (of {found.looked_at:,} texts; builds replace it)")
    if survey.unvalidated:
        print(f"experts: {survey.unvalidated:,} examples name none; --validated-by NAME names one for all")
    if found.labels:
        shown = ", ".join(f"{name} {count:,}" for name, count in [*found.labels.items()][:SHOWN_LABELS])
        more = len(found.labels) - SHOWN_LABELS
        print(f"labels: {shown}" + (f" and {more} more" if more > 0 else ""))
