"""Takes documents as files, through a temporary file into the object store, in constant memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.events.upstream import DocumentPublished
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.reading import at_door
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.store import ObjectStore

from tunewheel_ingest.documents import folder_of, require_parser, too_large
from tunewheel_ingest.door.intake import (
    Intake,
    Receipt,
    TooLarge,
    answer,
    encoded,
    refusal,
    sent_by,
    unavailable,
)
from tunewheel_ingest.parsing.formats import known_parsers, known_type

FIELDS = (
    "project", "document_id", "title", "media_type", "published_at", "allowed_groups", "attributes"
)  # fmt: skip
FORM_BYTES = 256 * 1024
"""The most bytes that a form may hold beside the file."""
_UNKNOWN = ArtifactRef(path="unknown", sha256="0" * 64, size_bytes=0)


class Files:
    """Takes document files in."""

    def __init__(self, intake: Intake, store: ObjectStore, *, max_bytes: int) -> None:
        self._intake = intake
        self._store = store
        self._max_bytes = max_bytes

    async def take(
        self, request: Request, body: AsyncIterator[bytes], fields: Mapping[str, str]
    ) -> JSONResponse:
        """Store the file in ``body`` and publish the document. ``fields`` come from the query.

        Status 202: published. 403: the caller is not a publisher of the document's project. 413: the document
        is over the limit. 422: it is refused. 429: the project sends too much.
        503: the broker or the store is away.
        """
        if (refused := encoded(request)) is not None:
            return refused
        receipt = Receipt()
        try:
            announced = int(request.headers.get("content-length") or 0)
            if announced > self._max_bytes + FORM_BYTES:
                raise TooLarge(field="(body)", reason=too_large(announced, self._max_bytes))
            with tempfile.TemporaryDirectory(prefix="upload-") as folder:
                document = await self._store_file(request, body, fields, Path(folder) / "file")
            envelope = self._intake.wrap(document)
            await self._intake.publish([envelope])
        except InvalidEvent as error:
            return refusal(error)
        except TransientError as error:
            return unavailable(receipt, error)
        receipt.accept([envelope])
        return answer(receipt, 202)

    async def _store_file(
        self, request: Request, body: AsyncIterator[bytes], fields: Mapping[str, str], target: Path
    ) -> DocumentPublished:
        if _type(request) == "multipart/form-data":
            given, size, sha256 = await self._read_form(request, body, target)
            document = await self._document(request, {**fields, **given}, "")
        else:
            # first, so that a faulty request is refused before its body is read
            document = await self._document(request, fields, _type(request))
            size, sha256 = await spool(body, target, max_bytes=self._max_bytes)
        if size == 0:
            raise InvalidEvent(field="(body)", reason="is empty; send the file's bytes")
        path = f"{folder_of(document.project, document.document_id)}/{sha256}"
        return document.model_copy(update={"file": await self._store.put_file(path, target, sha256=sha256)})

    async def _document(self, request: Request, fields: Mapping[str, str], sent_as: str) -> DocumentPublished:
        told: dict[str, Any] = {name: value for name, value in fields.items() if value}
        if "media_type" not in told:
            told["media_type"] = _told_type(sent_as, told.get("document_id", ""))
        for name in {"allowed_groups", "attributes"} & told.keys():
            told[name] = _json(name, told[name])
        told["file"] = _UNKNOWN.model_dump()
        document = decode_data(DocumentPublished, json.dumps(told).encode(), at_door())
        document = sent_by(request, document, Role.PUBLISHER)
        require_parser(document)
        await self._intake.check_project(document.project)
        self._intake.admit(document.project)
        return document

    async def _read_form(
        self, request: Request, body: AsyncIterator[bytes], target: Path
    ) -> tuple[dict[str, str], int, str]:
        try:
            parser = MultiPartParser(
                request.headers, _bounded(body, self._max_bytes + FORM_BYTES), max_files=1, max_fields=20,
                max_part_size=FORM_BYTES,
            )  # fmt: skip
            form = await parser.parse()
        except (MultiPartException, KeyError, UnicodeError) as error:
            reason = f"is no multipart form ({error}); send the file in a field of its own"
            raise InvalidEvent(field="(body)", reason=reason) from error
        try:
            files = [value for value in form.values() if isinstance(value, UploadFile)]
            if not files:
                raise InvalidEvent(field="(body)", reason="holds no file; send one, in a field of its own")
            given = {name: str(value) for name, value in form.items() if name in FIELDS}
            given.setdefault("document_id", files[0].filename or "")
            size, sha256 = await spool(_chunks(files[0]), target, max_bytes=self._max_bytes)
        finally:
            await form.close()
        return given, size, sha256


async def spool(chunks: AsyncIterator[bytes], target: Path, *, max_bytes: int) -> tuple[int, str]:
    """Write chunks to ``target``; return their size and their SHA-256.

    Raises:
        TooLarge: the chunks exceed ``max_bytes``; the rest is not read.
    """
    size, digest = 0, hashlib.sha256()
    with target.open("wb") as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise TooLarge(field="(body)", reason=too_large(None, max_bytes))
            digest.update(chunk)
            await asyncio.to_thread(file.write, chunk)
    return size, digest.hexdigest()


async def _bounded(body: AsyncIterator[bytes], max_bytes: int) -> AsyncGenerator[bytes]:
    size = 0
    async for chunk in body:
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(field="(body)", reason=too_large(None, max_bytes - FORM_BYTES))
        yield chunk


async def _chunks(file: UploadFile) -> AsyncGenerator[bytes]:
    await file.seek(0)
    while chunk := await file.read(1 << 20):
        yield chunk


def _type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def _told_type(sent_as: str, document_id: str) -> str:
    """Return the media type: ``sent_as`` if a parser reads it, else by the ending of the document's id."""
    known = known_parsers()
    told = sent_as if sent_as in known else known_type(document_id)
    if told is None:
        reason = f"follows neither from Content-Type nor from document_id; send one of {', '.join(known)}"
        raise InvalidEvent(field="media_type", reason=reason)
    return told


def _json(field: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        form = "[…]" if field == "allowed_groups" else "{…}"
        raise InvalidEvent(field=field, reason=f"is not JSON: {error}; send {form}") from error
