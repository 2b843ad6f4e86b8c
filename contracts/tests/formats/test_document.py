from __future__ import annotations

from typing import get_args

import pytest
from tunewheel_contracts.events.upstream import BINARY_TYPES, MediaType
from tunewheel_contracts.formats.document import LANGUAGES, PROSE_TYPES, media_type_of


@pytest.mark.parametrize(
    ("document_id", "media_type"),
    [
        ("sops/Battery.MD", "text/markdown"),
        ("a.pdf", "application/pdf"),
        ("tools/refund.py", "text/x-python"),
        ("tools/refund.rs", "text/x-source"),
        ("photo.png", None),
        ("Makefile", None),
        (".py", None),
    ],
)
def test_the_ending_tells_the_media_type(document_id: str, media_type: str | None) -> None:
    assert media_type_of(document_id) == media_type


def test_every_known_ending_has_a_type_that_can_be_published() -> None:
    endings = {*PROSE_TYPES, *LANGUAGES}
    assert {media_type_of(f"x{ending}") for ending in endings} == set(get_args(MediaType))
    assert set(get_args(MediaType)) >= BINARY_TYPES
