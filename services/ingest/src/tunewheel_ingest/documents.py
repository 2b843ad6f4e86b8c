"""Reads a published document, whose bytes are in the event or in the store, and erases uploaded files and the
dead letters of all services."""

from __future__ import annotations

import asyncio
import json
import tempfile
from datetime import datetime
from pathlib import Path

import structlog
from tunewheel_contracts.erasures import Erasure, place_of, proof_of
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.upstream import DocumentPublished, ErasureRequested, TicketPublished
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.topics import ERASED_LETTERS
from tunewheel_runtime.erased_letters import ErasedLetters
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_ingest.parsing.document import ParsedDocument, Unreadable, refusing_length
from tunewheel_ingest.parsing.formats import known_parsers
from tunewheel_ingest.parsing.formats.html import is_html
from tunewheel_ingest.parsing.process import ParserProcess
from tunewheel_ingest.records import field_of

FOLDER = "documents"
HTML = "text/html"


def folder_of(project: str, document_id: str) -> str:
    """Return the folder of one document's files. It holds no other document's files."""
    return f"{FOLDER}/{project}/{content_id('doc', document_id)}"


class Documents:
    """Reads published documents."""

    def __init__(self, store: ObjectStore, parser: ParserProcess, *, max_bytes: int) -> None:
        self._store = store
        self._parser = parser
        self._max_bytes = max_bytes

    async def read(self, document: DocumentPublished) -> ParsedDocument:
        """Return the document as Markdown and sections.

        Raises:
            InvalidEvent: the document cannot be read; the field is ``content``, ``file`` or ``media_type``.
            TransientError: the store or the reading process is away.
        """
        require_parser(document)
        try:
            return await self._read(document)
        except Unreadable as error:
            raise InvalidEvent(field=field_of(document), reason=str(error)) from error

    async def _read(self, document: DocumentPublished) -> ParsedDocument:
        read_here = known_parsers()[document.media_type].read_here
        if document.file is None and read_here is not None:
            with refusing_length():
                return read_here(document.content)
        with tempfile.TemporaryDirectory(prefix="document-") as folder:
            source = Path(folder) / "source"
            await self._fetch(document, source)
            return await self._parser.parse(source, media_type=document.media_type, name=document.document_id)

    async def read_ticket(self, ticket: TicketPublished) -> TicketPublished:
        """Return the ticket with Markdown in place of the HTML in its body, its thread and its answer.

        Raises:
            InvalidEvent: a text cannot be read as HTML.
            TransientError: the reading process is away.
        """
        answer = ticket.answer if isinstance(ticket.answer, str) else ""
        texts = [ticket.body, answer, *(turn.content for turn in ticket.thread)]
        marked = [ticket.media_type == HTML if ticket.media_type else is_html(text) for text in texts]
        if not any(marked):
            return ticket
        html = [text for text, is_marked in zip(texts, marked, strict=True) if is_marked]
        with tempfile.TemporaryDirectory(prefix="ticket-") as folder:
            source = Path(folder) / "source"
            await asyncio.to_thread(source.write_text, json.dumps(html))
            try:
                parsed = await self._parser.parse(
                    source, media_type=HTML, name=ticket.ticket_id, is_mail=True
                )
            except Unreadable as error:
                raise InvalidEvent(field="body", reason=str(error)) from error
        read = (section.text for section in parsed.sections)
        body, answer, *turns = (
            next(read) if is_marked else text for text, is_marked in zip(texts, marked, strict=True)
        )
        thread = tuple(
            turn.model_copy(update={"content": text}) for turn, text in zip(ticket.thread, turns, strict=True)
        )
        update = {"body": body, "thread": thread} | (
            {"answer": answer or None} if isinstance(ticket.answer, str) else {}
        )
        return ticket.model_copy(update=update)

    async def stored(self, project: str, document_id: str, *, until: datetime) -> list[str]:
        """Return the files of a document that were stored up to ``until``.

        The HTTP API stores a file before it publishes the document, and stores it again if it already
        exists. A file with a later time therefore belongs to a later publication.
        """
        written = await self._store.written(folder_of(project, document_id))
        return [path for path, moment in written.items() if moment <= until]

    async def _fetch(self, document: DocumentPublished, source: Path) -> None:
        file = document.file
        if file is None:
            await asyncio.to_thread(source.write_text, document.content, "utf-8", "surrogatepass")
            return
        if file.size_bytes > self._max_bytes:
            raise InvalidEvent(field="file.size_bytes", reason=too_large(file.size_bytes, self._max_bytes))
        try:
            await self._store.download(file, source)
        except ArtifactMissing as error:
            raise InvalidEvent(field="file.path", reason=f"{error}; publish the document again") from error
        except CorruptArtifact as error:
            raise InvalidEvent(
                field="file.sha256", reason=f"does not fit: {error}; publish the document again"
            ) from error


def require_parser(document: DocumentPublished) -> None:
    """Raise ``InvalidEvent`` if no parser reads the document's media type."""
    if document.media_type not in known_parsers():
        reason = f"is {document.media_type}, which no parser reads; send one of {', '.join(known_parsers())}"
        raise InvalidEvent(field="media_type", reason=reason)


def too_large(size: int | None, limit: int) -> str:
    """Return why a document over the limit is refused; ``size`` is None if it was not read to its end."""
    has = f"has {size} bytes" if size is not None else "goes on"
    return (
        f"{has}, {limit} are allowed; publish it in parts, or raise TUNEWHEEL_MAX_DOCUMENT_BYTES "
        "(max_document_bytes)"
    )


log = structlog.get_logger(__name__)
HOLDER = "ingest"


async def carry_out(
    event: Envelope[ErasureRequested], erasure: Erasure, *, service: Service, documents: Documents
) -> ErasureCompleted:
    """Delete the files and dead letters that ``erasure`` takes, and return the proof.

    The proof gives the number found when the request was handled for the first time.

    Raises:
        InvalidEvent: Kafka does not let ingest delete dead letters.
        TransientError: the broker or the store is away.
    """
    files = await documents.stored(event.project, erasure.subject, until=erasure.until)
    letters = ErasedLetters(service.settings, service.publisher, ERASED_LETTERS)
    found = str(len(files) + await letters.find(erasure)).encode()
    first = await service.store.first(f"{place_of(event.project, event.id)}.{HOLDER}", found)
    await service.store.delete(files)
    await letters.remove(erasure)
    log.info("erased", erasure_id=event.data.erasure_id, files=len(files), found=int(found))
    return proof_of(event.data, holder=HOLDER, erased_by=service.name, records=int(first))
