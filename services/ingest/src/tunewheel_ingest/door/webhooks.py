"""Takes the webhooks of other systems, which sign their requests instead of sending a key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import structlog
from fastapi import Request
from fastapi.responses import JSONResponse
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.formats.source_spec import SourceSpec
from tunewheel_contracts.principal import Principal
from tunewheel_contracts.reading import at_door
from tunewheel_contracts.sources.envelopes import Message
from tunewheel_contracts.sources.mapping import mapped
from tunewheel_runtime.identity.guard import refusal as unauthenticated
from tunewheel_runtime.identity.guard import set_caller
from tunewheel_runtime.identity.roles import Caller, NotAuthenticated

from tunewheel_ingest.door.intake import Intake, Receipt, TooLarge, answer, encoded, refusal, unavailable
from tunewheel_ingest.door.once import Once
from tunewheel_ingest.records import ISSUER
from tunewheel_ingest.sources.signatures import SIGNATURES, check, name_of, secrets_of
from tunewheel_ingest.sources.topics import as_published
from tunewheel_ingest.sources.wire import parse_json

log = structlog.get_logger(__name__)


class Webhooks:
    """Maps the body of a signed request to events, and publishes them.

    The receipt of a request is kept by ``name_of``. So a request that is sent again, by the vendor or by
    somebody who has a copy, changes nothing.
    """

    def __init__(self, intake: Intake, once: Once, *, secrets: Path | None, max_bytes: int) -> None:
        self._intake, self._once = intake, once
        self._secrets, self._max_bytes = secrets, max_bytes

    async def take(self, request: Request, project: str, name: str) -> JSONResponse:
        """Return the receipt.

        Status 202: a record was taken, or all are left out by the mapping's ``where``. 422: none was taken,
        and one at least is wrong. 401: the source is unknown, or its secret did not sign the body.
        """
        if (refused := encoded(request)) is not None:
            return refused
        source = self._intake.source(project, name)
        vendor = source.webhook if source is not None else None
        if source is None or vendor is None or not request.headers.get(SIGNATURES[vendor]):
            return _unknown(NotAuthenticated("there is no such source with a webhook, or no signature of it"))
        key = name_of(vendor, request.headers)
        set_caller(request.scope, Caller(Principal(name=f"{project}/{name}", issuer=ISSUER), ()))
        try:
            return await self._once.run(request, key, lambda body: self._work(request, body, project, source))
        except NotAuthenticated as error:
            log.warning("caller_refused", path=request.url.path[:200], reason=str(error))
            return _unknown(error)

    async def _work(
        self, request: Request, chunks: AsyncIterator[bytes], project: str, source: SourceSpec
    ) -> JSONResponse:
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            if len(body) > self._max_bytes:
                reason = f"is over {self._max_bytes} bytes; let the webhook send less"
                return refusal(TooLarge(field="(body)", reason=reason))
        secrets = secrets_of(self._secrets, project, source.name)
        check(source.webhook or "", request.headers, bytes(body), secrets, now=datetime.now(UTC))
        receipt = Receipt()
        try:
            await self._intake.check_project(project)
            self._intake.admit(project)
            found = [*mapped(source, project, Message(parse_json(bytes(body))), at_door)]
            envelopes = [
                as_published(one.event, source, time=one.changed_at) for one in found if one.event is not None
            ]
            await self._intake.publish(envelopes)
        except InvalidEvent as error:
            return refusal(error)
        except TransientError as error:
            return unavailable(receipt, error)
        receipt.accept(envelopes)
        for one in found:
            if one.refusal is not None:
                receipt.refuse(one.number, one.refusal)
        return answer(receipt, 422 if receipt.refusals and not receipt.accepted else 202)


def _unknown(error: NotAuthenticated) -> JSONResponse:
    status, headers, body = unauthenticated(error)
    return JSONResponse(body, status, headers)
