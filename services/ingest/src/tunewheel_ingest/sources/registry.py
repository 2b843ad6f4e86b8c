"""A client of a schema registry: Confluent's REST protocol, which Karapace, Apicurio and Redpanda speak too.

Source: Confluent Schema Registry API reference, "Schemas" and "Subjects". A schema never changes under its
number or its GUID, so each is fetched once.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast
from urllib.parse import quote

import httpx
from tunewheel_contracts.errors import InvalidEvent, TransientError

from tunewheel_ingest.sources.wire import MOST_REFERENCES, Lookup, Registered, Schema, SchemaId, schema_of

PATIENCE_SECONDS = 10.0
MOST_SCHEMAS = 1_000
BY_SCHEMA = ("avro", "protobuf")
"""The formats that only a registry can decode."""
_PLACE = ("subject", "version")
MOST_BYTES = 4 << 20
UNKNOWN = frozenset({400, 404, 422})
"""A message can name any number. A registry may answer 400 or 422 to one that is beyond its own numbers, and
will do so for ever."""


class Registry:
    """The schemas of the registry at ``url``. ``auth``: user name and password, if the registry asks."""

    def __init__(self, url: str | None, auth: tuple[str, str] | None = None) -> None:
        self._url, self._auth = (url or "").rstrip("/"), auth
        self._schemas: dict[SchemaId, Schema] = {}
        self._fetching = asyncio.Lock()

    def lookup(self, format: str) -> Lookup | None:
        """Return how the schemas of a source's messages are looked up. None: its messages are JSON. Debezium
        and CloudEvents may be JSON or come with a schema, so without a registry they are JSON."""
        asks = format in BY_SCHEMA or (format != "json" and self._url)
        return self.schema if asks else None

    async def schema(self, schema: SchemaId) -> Schema:
        """Return the schema with this number or GUID.

        Raises:
            InvalidEvent: the registry has no such schema, or the schema cannot be used.
            TransientError: the registry does not answer, or does not let ingest in.
        """
        async with self._fetching:
            found = self._schemas.pop(schema, None) or await self._fetch(schema)
            self._schemas[schema] = found  # The one that was used last stands last.
            if len(self._schemas) > MOST_SCHEMAS:
                del self._schemas[next(iter(self._schemas))]
            return found

    async def _fetch(self, schema: SchemaId) -> Schema:
        if not self._url:
            raise TransientError(
                "a message comes with the id of a schema, and no registry is set; name it in "
                "TUNEWHEEL_SCHEMA_REGISTRY_URL"
            )
        # No redirects and no proxy: what is allowed is the URL that the operator set.
        async with httpx.AsyncClient(
            auth=self._auth, follow_redirects=False, trust_env=False, timeout=PATIENCE_SECONDS
        ) as client:
            place = "ids" if isinstance(schema, int) else "guids"
            registered = [await self._get(client, f"/schemas/{place}/{schema}")]
            for one in registered:  # References may have references.
                for reference in one.references:
                    subject, version = (quote(str(reference.get(part)), safe="") for part in _PLACE)
                    path = f"/subjects/{subject}/versions/{version}"
                    registered.append(await self._get(client, path, name=str(reference.get("name"))))
                if len(registered) > MOST_REFERENCES:
                    raise InvalidEvent(field="(schema)", reason=f"{schema} refers to too many other schemas")
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
