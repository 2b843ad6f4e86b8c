"""The sources of a project: other systems, whose records become tickets, examples and documents."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, JsonValue, StringConstraints, model_validator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import Slug, Strict
from tunewheel_contracts.formats.expressions import Expression

Kind = Literal["ticket", "example", "document"]
ID_OF: Mapping[str, str] = MappingProxyType(
    {"ticket": "ticket_id", "example": "example_id", "document": "document_id"}
)
_SAID = "validated_by validated_at attributes"
FIELDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        kind: frozenset(names.split())
        for kind, names in {
            "ticket": f"ticket_id subject body thread customer channel answer created_at media_type {_SAID}",
            "example": f"example_id input messages output rejected_output group {_SAID}",
            "document": "document_id title content media_type published_at allowed_groups attributes",
        }.items()
    }
)
"""By kind, the fields of the event that a mapping may fill."""
MAPPINGS = "tunewheel_contracts.sources.mappings"
BuiltIn = Literal["zendesk", "jira", "servicenow", "github", "confluence", "langfuse", "litellm", "openai"]
FieldName = Annotated[str, StringConstraints(pattern=r"^[a-z_]+(\.[^.]{1,64})*$", max_length=256)]
"""A field of the event; a dotted name makes an object: ``attributes.priority``, ``output.category``."""


class MappingSpec(Strict):
    """How the records of another system become events. Expressions are JMESPath; ``docs/connect.md`` shows
    them."""

    kind: Kind | None = None
    """What each record becomes."""
    each: Annotated[Expression | None, Field(exclude_if=operator.not_)] = None
    """The list of records within a message, such as `tickets`. Null: the message is one record, or a list of
    them."""
    where: Annotated[Expression | None, Field(exclude_if=operator.not_)] = None
    """Only records for which this is true are taken."""
    withdraw: Annotated[Expression | None, Field(exclude_if=operator.not_)] = None
    """Records for which this is true withdraw what was published under their id."""
    changed_at: Annotated[Expression | None, Field(exclude_if=operator.not_)] = None
    """When the other system wrote this version of the record, such as `updated_at`. A version from before a
    withdrawal stays withdrawn, even if it is delivered later. Null: when ingest, or the topic, got it."""
    map: Annotated[dict[FieldName, Expression], Field(max_length=64, exclude_if=operator.not_)] = {}
    """By field of the event, where its value stands in the record. What is not found is left out."""
    set: Annotated[dict[FieldName, JsonValue], Field(max_length=64, exclude_if=operator.not_)] = {}
    """By field of the event, a value that all records get where `map` finds none."""


def group_of(project: str, source: str) -> str:
    """Return ingest's consumer group of a source. The slash keeps apart the sources ``a`` / ``b.c`` and
    ``a.b`` / ``c``: in one group, each would get some partitions only."""
    return f"ingest.source.{project}/{source}"


@lru_cache
def built_in(name: str) -> MappingSpec:
    """Return a mapping of this package."""
    text = resources.files(MAPPINGS).joinpath(f"{name}.yaml").read_text("utf-8")
    return MappingSpec.model_validate(yaml.safe_load(text))


class SourceSpec(MappingSpec):
    """Another system that the project learns from, through its Kafka topic or its webhook. Without either,
    the source is a mapping for `tunewheel publish FILE --source NAME`."""

    name: Slug
    topic: Annotated[
        str | None, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,249}$"), Field(exclude_if=operator.not_)
    ] = None
    """A Kafka topic that another system writes. Ingest's operator lists it in `TUNEWHEEL_SOURCE_TOPICS`."""
    format: Annotated[
        Literal["json", "cloudevents", "debezium", "avro", "protobuf"],
        Field(exclude_if=lambda name: name == "json"),
    ] = "json"
    """What the topic's messages are: `json`; `cloudevents`, of which expressions read the whole envelope;
    `debezium`, of which they read the rows, and deletes withdraw; `avro` or `protobuf` by the schema registry
    of ingest. If ingest has a registry, it also decodes messages of `cloudevents` and `debezium` that come
    with a schema's id."""
    webhook: Annotated[
        Literal["zendesk", "jira", "servicenow", "github", "confluence", "hmac"] | None,
        Field(exclude_if=operator.not_),
    ] = None
    """Who calls `POST /v1/projects/{project}/sources/{name}` of ingest, so how requests are signed; `hmac`:
    by Standard Webhooks. The secret is in the file that `TUNEWHEEL_SOURCE_SECRETS_FILE` names."""
    use: Annotated[BuiltIn | None, Field(exclude_if=operator.not_)] = None
    """A mapping that comes with Tunewheel. The other fields replace its parts, and add to its `map`."""
    trust: Annotated[
        Literal["unverified", "corrected", "expert"], Field(exclude_if=lambda trust: trust == "unverified")
    ] = "unverified"
    """The most trust that an answer of this source gets: `expert` where its `validated_by` is believed."""

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.topic is not None and self.webhook is not None:
            raise inconsistent("webhook", "is given beside a topic; make two sources of them")
        if self.format != "json" and self.topic is None:
            raise inconsistent("format", "is of topics; leave it out, or name the topic")
        mapping = self.mapping
        if mapping.kind is None:
            raise inconsistent(
                "kind", "is missing; write ticket, example or document, or use a built-in mapping"
            )
        for part in ("map", "set"):
            for name in getattr(mapping, part):
                if name.partition(".")[0] not in FIELDS[mapping.kind]:
                    known = ", ".join(sorted(FIELDS[mapping.kind]))
                    raise inconsistent(
                        f"{part}.{name}", f"is no field of a {mapping.kind}; choose from {known}"
                    )
        if ID_OF[mapping.kind] not in mapping.map:
            raise inconsistent(
                f"map.{ID_OF[mapping.kind]}", "is missing; say where the id stands in a record"
            )
        return self

    @property
    def mapping(self) -> MappingSpec:
        """The built-in mapping, if the source uses one, with the source's own parts over it."""
        base = built_in(self.use) if self.use is not None else MappingSpec()
        own: dict[str, Any] = {
            name: value
            for name in MappingSpec.model_fields
            if (value := getattr(self, name)) and name not in ("map", "set")
        }
        return base.model_copy(update={**own, "map": base.map | self.map, "set": base.set | self.set})
