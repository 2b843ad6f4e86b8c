"""``Idempotency-Key``: a repeated request gets the first answer again, and is not carried out again.

Keys are kept by caller: no caller gets another one's answer, or finds a key used by another one.

Source: IETF draft-ietf-httpapi-idempotency-key-header-07. Receipts are kept in the object store, so that any
replica can answer. A lifecycle rule may delete ``receipts/`` after a day: repeating a request whose receipt
is gone is harmless, because event ids follow from the content.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import Request
from fastapi.responses import JSONResponse
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.fields import Frozen
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.identity.guard import caller_of
from tunewheel_runtime.store import ArtifactConflict, ObjectStore

from tunewheel_ingest.door.intake import Receipt, refusal, unavailable

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
LONGEST_KEY = 255
FOLDER = "receipts"


class Fingerprint:
    """Hashes a body while it is read, together with the other parts that identify the request."""

    def __init__(self, request: Request) -> None:
        self._chunks = request.stream()
        head = f"{request.method} {request.url.path}?{request.url.query}"
        self._digest = hashlib.sha256(f"{head}\n{request.headers.get('content-type', '')}\n".encode())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            self._digest.update(chunk)
            yield chunk

    async def finish(self) -> str:
        """Read the rest of the body and return the fingerprint."""
        async for chunk in self._chunks:
            self._digest.update(chunk)
        return self._digest.hexdigest()


class KeptReceipt(Frozen):
    """The file ``receipts/<hash of caller, path and key>.json``."""

    fingerprint: str
    receipt: Receipt


Work = Callable[[AsyncIterator[bytes]], Awaitable[JSONResponse]]


class Once:
    """Carries out requests; a request with a key only once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def run(self, request: Request, key: str | None, work: Work) -> JSONResponse:
        """Return the answer to ``request``: the kept one if its key was used before, else that of ``work``.

        Status 422: the key was used for another request.
        """
        body = Fingerprint(request)
        if key is None:
            return await work(aiter(body))
        if not 0 < len(key) <= LONGEST_KEY:
            reason = f"must have 1 to {LONGEST_KEY} characters; choose another"
            return refusal(InvalidEvent(field=HEADER, reason=reason))
        place = _place(request, key)
        try:
            known = await self._store.read(place)
            if known is not None:
                return _again(KeptReceipt.model_validate_json(known), await body.finish())
            done = await work(aiter(body))
            if done.status_code == 202:  # a refused request may be corrected and sent again with its key
                await self._keep(place, done, await body.finish())
        except TransientError as error:
            return unavailable(Receipt(), error)
        return done

    async def _keep(self, place: str, done: JSONResponse, fingerprint: str) -> None:
        kept = KeptReceipt(fingerprint=fingerprint, receipt=Receipt.model_validate_json(bytes(done.body)))
        try:
            await self._store.put(place, kept.model_dump_json().encode())
        except ArtifactConflict:
            return  # a concurrent request stored its receipt first


def _place(request: Request, key: str) -> str:
    principal = caller_of(request).principal
    caller = None if principal is None else [principal.issuer, principal.name]
    return f"{FOLDER}/{content_sha256([caller, request.url.path, key])}.json"


def _again(kept: KeptReceipt, fingerprint: str) -> JSONResponse:
    if kept.fingerprint != fingerprint:
        reason = "was used for another request; choose another key, or send the same request again"
        return refusal(InvalidEvent(field=HEADER, reason=reason))
    return JSONResponse(kept.receipt.model_dump(), status_code=202, headers={REPLAYED: "true"})
