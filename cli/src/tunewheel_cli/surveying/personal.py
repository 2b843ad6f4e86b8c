"""Counts personal data in texts by the patterns that curate redacts by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def count_personal(texts: Sequence[str]) -> Counter[str] | None:
    """Return in how many of ``texts`` each entity is found that is redacted by default. None: the package
    tunewheel-redaction is not installed."""
    try:
        from tunewheel_redaction.redaction import find_entities
    except ImportError:
        return None
    from tunewheel_contracts.formats.data_quality import PiiPolicy

    found = find_entities(texts, PiiPolicy().wanted)
    return Counter(entity for findings in found for entity in sorted({one.entity for one in findings}))
