"""``Idempotency-Key``: a request that is sent again is answered as it was, and not carried out again.

Each caller has keys of its own: nobody is answered what another caller was, nor finds a key taken by one.

Source: IETF draft-ietf-httpapi-idempotency-key-header-07. Receipts lie in the object store, so that any
replica answers; a lifecycle rule on ``receipts/`` may take them away after a day. Where one was lost,
carrying the request out again is harmless: events are named by their content.
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
    """A body that is hashed as it is read, with what else makes the request what it is."""

    def __init__(self, request: Request) -> None:
        self._chunks = request.stream()
        head = f"{request.method} {request.url.path}?{request.url.query}"
        self._digest = hashlib.sha256(f"{head}\n{request.headers.get('content-type', '')}\n".encode())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            self._digest.update(chunk)
            yield chunk

    async def finish(self) -> str:
        """Read what nobody has read yet and return the fingerprint."""
        async for chunk in self._chunks:
            self._digest.update(chunk)
        return self._digest.hexdigest()


class KeptReceipt(Frozen):
    """``receipts/<hash of caller, path and key>.json``."""

    fingerprint: str
    receipt: Receipt


Work = Callable[[AsyncIterator[bytes]], Awaitable[JSONResponse]]


class Once:
    """Carries requests out, those with a key once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def run(self, request: Request, key: str | None, work: Work) -> JSONResponse:
        """Return the answer to ``request``: what ``work`` makes of its body, or what it made of it before.

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
            if done.status_code == 202:  # what was refused may be mended and sent again under its key
                await self._keep(place, done, await body.finish())
        except TransientError as error:
            return unavailable(Receipt(), error)
        return done

    async def _keep(self, place: str, done: JSONResponse, fingerprint: str) -> None:
        kept = KeptReceipt(fingerprint=fingerprint, receipt=Receipt.model_validate_json(bytes(done.body)))
        try:
            await self._store.put(place, kept.model_dump_json().encode())
        except ArtifactConflict:
            return  # two at once: the first receipt stands


def _place(request: Request, key: str) -> str:
    principal = caller_of(request).principal
    caller = None if principal is None else [principal.issuer, principal.name]
    return f"{FOLDER}/{content_sha256([caller, request.url.path, key])}.json"


def _again(kept: KeptReceipt, fingerprint: str) -> JSONResponse:
    if kept.fingerprint != fingerprint:
        reason = "was used for another request; choose another key, or send the same request again"
        return refusal(InvalidEvent(field=HEADER, reason=reason))
    return JSONResponse(kept.receipt.model_dump(), status_code=202, headers={REPLAYED: "true"})
