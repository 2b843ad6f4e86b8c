"""contracts publish: writes the schemas of topics into a schema registry.

Source: Confluent Schema Registry API reference, "Subjects" and "Config".
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import typer
from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_contracts.topics import TOPICS, TopicSpec

from tunewheel_cli.calling import InvalidOption
from tunewheel_cli.reach import Reach, on_folder

PATIENCE_SECONDS = 30.0
MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"


OTHER_VERSIONS = 40403
"""The registry's code: the subject is there, and this schema is not."""


class Compatibility(StrEnum):
    """What a registry checks before it takes a new version of a schema."""

    BACKWARD = "BACKWARD"
    FORWARD = "FORWARD"
    FULL = "FULL"
    NONE = "NONE"


class RegistryRefused(TunewheelError):
    """The registry does not take a request; the message has its reason."""


@on_folder
def publish(
    reach: Reach,
    registry: Annotated[
        str,
        typer.Option(
            envvar="TUNEWHEEL_SCHEMA_REGISTRY_URL", help="http(s)://… of a Confluent-compatible registry."
        ),
    ],
    prefix: Annotated[
        str,
        typer.Option(
            "--topic-prefix", envvar="TUNEWHEEL_TOPIC_PREFIX", help="What the names of topics begin with."
        ),
    ] = "",
    every: Annotated[
        bool, typer.Option("--all", help="All topics, not only those that other systems write.")
    ] = False,
    compatibility: Annotated[
        Compatibility | None,
        typer.Option(
            help="What the registry checks.", show_default="BACKWARD where others write, else FORWARD"
        ),
    ] = None,
) -> None:
    """Write the JSON Schemas of topics into a schema registry, each under the subject TOPIC-value.

    A schema that the registry has already is left alone, so the command may run again.
    TUNEWHEEL_SCHEMA_REGISTRY_USERNAME and TUNEWHEEL_SCHEMA_REGISTRY_PASSWORD log in, if the registry asks.
    """
    if not registry.startswith(("http://", "https://")):
        raise InvalidOption(f"--registry: {registry!r} is no address; give http(s)://host:port")
    if "@" in urlsplit(registry).netloc:
        variables = "TUNEWHEEL_SCHEMA_REGISTRY_USERNAME and TUNEWHEEL_SCHEMA_REGISTRY_PASSWORD"
        raise InvalidOption(f"--registry: holds a login, which errors would show; give it in {variables}")
    specs = [spec for spec in TOPICS if every or spec.is_from_upstream]
    done = _publish(registry.rstrip("/"), specs, prefix=prefix, level=compatibility)
    reach.show(
        done,
        "\n".join(f"{'new' if one['new'] else 'there':5}  {one['subject']}  id {one['id']}" for one in done),
    )


def _publish(
    url: str, specs: Iterable[TopicSpec], *, prefix: str, level: Compatibility | None
) -> list[dict[str, Any]]:
    import httpx

    user = os.environ.get("TUNEWHEEL_SCHEMA_REGISTRY_USERNAME")
    auth = (user, os.environ.get("TUNEWHEEL_SCHEMA_REGISTRY_PASSWORD", "")) if user else None
    with httpx.Client(auth=auth, timeout=PATIENCE_SECONDS, headers={"content-type": MEDIA_TYPE}) as client:
        try:
            return [_publish_one(client, url, spec, prefix=prefix, level=level) for spec in specs]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise TransientError(f"the schema registry at {url} does not answer: {error}") from error


def _publish_one(
    client: Any, url: str, spec: TopicSpec, *, prefix: str, level: Compatibility | None
) -> dict[str, Any]:
    """Register one schema, and set what is checked of its later versions."""
    from tunewheel_contracts.generation.schemas import topic_schema

    # Other systems write after the readers are upgraded; what services write meets earlier readers.
    level = level or (Compatibility.BACKWARD if spec.is_from_upstream else Compatibility.FORWARD)
    subject = f"{prefix}{spec.name}-value"
    place = f"{url}/subjects/{quote(subject, safe='')}"
    # The registry names a schema by subject and version: the address of another copy would mislead it.
    schema = {name: part for name, part in topic_schema(spec).items() if name != "$id"}
    body = {"schemaType": "JSON", "schema": json.dumps(schema)}
    known = client.post(place, json=body)
    is_known = known.status_code != 404
    rule = f"{url}/config/{quote(subject, safe='')}", {"compatibility": level}
    if not is_known and known.json().get("error_code") == OTHER_VERSIONS:
        _answer(client.put(rule[0], json=rule[1]), subject)  # it holds for the version that comes now
    registered = _answer(known if is_known else client.post(f"{place}/versions", json=body), subject)
    _answer(client.put(rule[0], json=rule[1]), subject)
    return {"subject": subject, "id": registered["id"], "new": not is_known, "compatibility": level}


def _answer(answer: Any, subject: str) -> dict[str, Any]:
    if answer.status_code >= 500:
        raise TransientError(
            f"{subject}: the schema registry answered {answer.status_code}: {answer.text[:300]}"
        )
    if answer.status_code == 409:
        raise RegistryRefused(
            f"{subject}: the schema registry finds the new schema incompatible with what it has; give "
            f"--compatibility NONE if your programs can read it: {answer.text[:300]}"
        )
    if answer.status_code >= 300:
        raise RegistryRefused(
            f"{subject}: the schema registry answered {answer.status_code}: {answer.text[:300]}"
        )
    return answer.json()
