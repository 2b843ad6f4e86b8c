"""What the data card says of labels."""

from __future__ import annotations

import polars as pl
import pytest
from tunewheel_curate.labels.quality import Quality, quality_sections
from tunewheel_curate.labels.review import REVIEW_SCHEMA


@pytest.mark.parametrize("kind", ["conflict", "near_conflict", "answer_conflict", "off_schema", "suspect"])
def test_every_kind_of_finding_is_told(kind: str) -> None:
    review = pl.DataFrame({"kind": [kind] * 2}).select(
        pl.col("kind") if name == "kind" else pl.lit(None, dtype=type_).alias(name)
        for name, type_ in REVIEW_SCHEMA.items()
    )
    section, _ = quality_sections(Quality(review=review))
    assert "\n- 2 records " in section
