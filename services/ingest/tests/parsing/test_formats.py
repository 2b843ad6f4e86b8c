"""A new format of documents is one file with its parser."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.upstream import DocumentPublished
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.document import LANGUAGES, PROSE_TYPES
from tunewheel_ingest.documents import Documents, require_parser
from tunewheel_ingest.parsing import formats
from tunewheel_ingest.parsing.document import ParsedDocument
from tunewheel_ingest.parsing.formats import known_parsers, known_type, parse_file
from tunewheel_ingest.parsing.limits import Limits
from tunewheel_ingest.parsing.worker import Order, outcome_of

LIMITS = Limits(memory_bytes=1 << 30, cpu_seconds=60, wall_seconds=300, output_bytes=16 << 20)
MAIL = """
from tunewheel_ingest.parsing.document import ParsedDocument, Parser
from tunewheel_ingest.parsing.formats.text import parse_plain

def _read(path, name):
    from email import message_from_bytes
    mail = message_from_bytes(path.read_bytes())
    return ParsedDocument(markdown=mail.get_payload().strip(), title=mail["subject"])

MAIL = Parser("application/x-letter", _read, endings=(".letter",), libraries=("email",))
LOG = Parser("text/x-log", lambda path, name: parse_plain(path.read_text()), read_here=parse_plain)
"""


@pytest.fixture
def mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "letter.py").write_text(MAIL)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(folder)])
    known_parsers.cache_clear()
    yield
    known_parsers.cache_clear()
    sys.modules.pop(f"{formats.__name__}.letter", None)


def published(document_id: str, **fields: Any) -> DocumentPublished:
    return DocumentPublished(project="desk", document_id=document_id, **fields)


@pytest.mark.usefixtures("mail")
async def test_a_new_format_is_one_file(tmp_path: Path) -> None:
    file = ArtifactRef(path="documents/a", sha256="0" * 64, size_bytes=1)
    require_parser(published("a.letter", media_type=known_type("inbox/A.LETTER"), file=file))
    (tmp_path / "a.letter").write_text("Subject: Bell\n\nIt rings.\n")
    target = tmp_path / "parsed.json"
    order = Order(source=str(tmp_path / "a.letter"), target=str(target), name="a", limits=LIMITS,
                  media_type="application/x-letter")  # fmt: skip
    assert outcome_of(order, parse_file).status == "read"
    parsed = ParsedDocument.model_validate_json(target.read_bytes())
    assert (parsed.markdown, parsed.title) == ("It rings.", "Bell")
    text = published("a.log", content="It rings.", media_type="text/x-log")
    nowhere: Any = None
    assert (await Documents(nowhere, nowhere, max_bytes=1).read(text)).markdown == "It rings."


@pytest.mark.parametrize("media_type", ["text/x-log", "text/markdwn"])
async def test_a_format_without_a_parser_is_refused_with_the_formats_that_have_one(media_type: str) -> None:
    nowhere: Any = None
    with pytest.raises(InvalidEvent) as refused:
        await Documents(nowhere, nowhere, max_bytes=1).read(
            published("a", content="x", media_type=media_type)
        )
    assert refused.value.field == "media_type"
    assert all(known in refused.value.reason for known in known_parsers())


def test_each_format_of_folders_and_of_code_has_a_parser() -> None:
    endings = {*PROSE_TYPES, *LANGUAGES}
    assert {known_type(f"x{ending}") for ending in endings} == set(known_parsers())
    assert len(known_parsers()) >= 11
