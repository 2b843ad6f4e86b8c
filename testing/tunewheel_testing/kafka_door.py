"""The door of tests that publish straight onto a Kafka, and give files to ingest by its address."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from tunewheel_cli.publishing.door import IngestDoor, Late
from tunewheel_cli.publishing.events import encode
from tunewheel_cli.publishing.items import Found, FoundFile, Refusal
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import DocumentWithdrawn
from tunewheel_contracts.principal import Principal
from tunewheel_local.http import open_session
from tunewheel_local.roster import ROSTER, url

from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.sender import Sender, publish

if TYPE_CHECKING:
    from aiohttp import ClientSession

USUAL = Endpoint("ingest", url(next(member.port for member in ROSTER if member.name == "ingest")))
TIMEOUT_SECONDS = 600.0


class Uploader:
    """Sends files to ingest, one after the other. It connects for the first file."""

    def __init__(self, ingest: Endpoint) -> None:
        self._ingest = ingest
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, file: FoundFile, project: str) -> Refusal | None:
        """Upload one file. Return its refusal, or None once it is on the log.

        Raises:
            TransientError: ingest does not answer, or cannot reach its broker or store.
        """
        import aiohttp

        if self._session is None:
            self._session = open_session(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS), headers=self._ingest.headers
            )
        query = {"project": project, "document_id": file.document_id}
        query |= {"media_type": file.media_type} if file.media_type else {}
        try:
            with file.path.open("rb") as body:
                async with self._session.post(
                    f"{self._ingest.url}/v1/documents/files", params=query, data=body
                ) as response:
                    return _judge(file, response.status, await response.text())
        except (TimeoutError, aiohttp.ClientError) as error:
            raise TransientError(f"ingest: nothing answers at {self._ingest.url} ({error})") from error
        except OSError as error:
            return Refusal(file.where, None, "(file)", f"cannot be read: {error.strerror}")


def _judge(file: FoundFile, status: int, text: str) -> Refusal | None:
    if status == 202:
        return None
    try:
        receipt: dict[str, Any] = json.loads(text)
        if status == 503:
            raise TransientError(f"ingest: {receipt['error']}; run the same command again")
        first = receipt["refused"][0]
        return Refusal(file.where, None, first["field"], first["reason"])
    except (ValueError, KeyError, IndexError, TypeError):
        return Refusal(file.where, None, "(file)", f"was answered with status {status}: {text[:200]}")


class KafkaDoor(IngestDoor):
    """A Kafka that this process may write, and ingest for files. ``options`` are aiokafka's."""

    def __init__(
        self, options: Mapping[str, Any], ingest: Endpoint = USUAL, principal: Principal | None = None
    ) -> None:
        self._options, self._principal = options, principal
        self._sender, self._uploader = Sender(options), Uploader(ingest)
        self.refused: list[Late] = []
        self.lowered: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        await self._sender.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._sender.__aexit__(*error)
        await self._uploader.__aexit__(*error)

    async def send(self, found: Found, event: Envelope[Any]) -> Refusal | None:
        record = encode(found, event)
        if isinstance(record, Refusal):
            return record
        await self._sender.send(record)
        return None

    async def upload(self, file: FoundFile, project: str) -> Refusal | None:
        return await self._uploader.send(file, project)

    async def flush(self) -> None:
        await self._sender.flush()

    async def withdraw(self, project: str, names: tuple[str, ...], reason: str) -> None:
        told = {"project": project, "reason": reason, "principal": self._principal}
        withdrawn = [DocumentWithdrawn.model_validate({**told, "document_id": name}) for name in names]
        await publish(self._options, *withdrawn)
