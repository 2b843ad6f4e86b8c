"""A client of a schema registry: Confluent's REST protocol, which Karapace, Apicurio and Redpanda speak too.

Source: Confluent Schema Registry API reference, "Schemas" and "Subjects". A schema never changes under its
id, so each is fetched once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, cast
from urllib.parse import quote

import httpx
from tunewheel_contracts.errors import InvalidEvent, TransientError

from tunewheel_ingest.sources.wire import MOST_REFERENCES, Registered, Schema, schema_of

PATIENCE_SECONDS = 10.0
MOST_SCHEMAS = 1_000
MOST_BYTES = 4 << 20
UNKNOWN = frozenset({400, 404, 422})
"""A message can name any number. A registry may answer 400 or 422 to one that is beyond its own numbers, and
will do so for ever."""


class Registry:
    """The schemas of the registry at ``url``. ``auth``: user name and password, if the registry asks."""

    def __init__(self, url: str | None, auth: tuple[str, str] | None = None) -> None:
        self._url, self._auth = (url or "").rstrip("/"), auth
        self._schemas: OrderedDict[int, Schema] = OrderedDict()
        self._fetching = asyncio.Lock()

    async def schema(self, number: int) -> Schema:
        """Return the schema with the id ``number``.

        Raises:
            InvalidEvent: the registry has no such schema, or the schema cannot be used.
            TransientError: the registry does not answer, or does not let ingest in.
        """
        async with self._fetching:
            if number not in self._schemas:
                self._schemas[number] = await self._fetch(number)
                while len(self._schemas) > MOST_SCHEMAS:
                    self._schemas.popitem(last=False)
            self._schemas.move_to_end(number)
            return self._schemas[number]

    async def _fetch(self, number: int) -> Schema:
        if not self._url:
            raise TransientError(
                "a message begins with the id of a schema, and no registry is set; name it in "
                "TUNEWHEEL_SCHEMA_REGISTRY_URL"
            )
        # No redirects and no proxy: what is allowed is the URL that the operator set.
        async with httpx.AsyncClient(
            auth=self._auth, follow_redirects=False, trust_env=False, timeout=PATIENCE_SECONDS
        ) as client:
            found = await self._get(client, f"/schemas/ids/{number}")
            registered = [found]
            for one in registered:  # References may have references.
                for reference in one.references:
                    subject, version = quote(str(reference.get("subject")), safe=""), reference.get("version")
                    path = f"/subjects/{subject}/versions/{quote(str(version), safe='')}"
                    registered.append(await self._get(client, path, name=str(reference.get("name"))))
                if len(registered) > MOST_REFERENCES:
                    raise InvalidEvent(field="(schema)", reason=f"{number} refers to too many other schemas")
        # The last of equal ones stays, so that each comes after all that refer to it.
        return schema_of([*reversed({one.name: one for one in reversed(registered)}.values())])

    async def _get(self, client: httpx.AsyncClient, path: str, *, name: str = "") -> Registered:
        try:
            found = await self._answer(client, path)
            if found.get("schemaType") == "PROTOBUF":  # As a descriptor: the text needs a compiler.
                found = await self._answer(client, f"{path}?format=serialized")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise TransientError(f"the schema registry does not answer: {type(error).__name__}") from error
        references = found.get("references")
        return Registered(
            name,
            str(found.get("schemaType") or "AVRO"),
            str(found.get("schema")),
            [cast("dict[str, Any]", one) for one in references or () if isinstance(one, dict)],
        )

    async def _answer(self, client: httpx.AsyncClient, path: str) -> dict[str, Any]:
        answer = await client.get(f"{self._url}{path}")
        if answer.status_code in UNKNOWN:
            raise InvalidEvent(
                field="(schema)", reason=f"is unknown to the schema registry: it has no {path}"
            )
        if answer.status_code != httpx.codes.OK:
            raise TransientError(f"the schema registry answered {answer.status_code} to {path}")
        if len(answer.content) > MOST_BYTES or not isinstance(found := answer.json(), dict):
            raise TransientError(f"the schema registry answered no schema to {path}")
        return cast("dict[str, Any]", found)
