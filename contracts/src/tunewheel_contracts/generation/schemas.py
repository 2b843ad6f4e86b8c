"""Generates JSON Schemas (draft 2020-12) of all events and artifact formats."""

from __future__ import annotations

import functools
import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from tunewheel_contracts.formats.catalog import FORMATS
from tunewheel_contracts.topics import TOPICS, TopicSpec

FOLDER = "contracts/schemas"


class _Untitled(GenerateJsonSchema):
    """Leaves out the titles that pydantic derives from field names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def enum_schema(self, schema: core_schema.EnumSchema) -> dict[str, Any]:
        described = super().enum_schema(schema)
        # Python gives an enum without a docstring a default one, which differs between versions.
        if not (schema["cls"].__dict__.get("__doc__") or "").strip():
            described.pop("description", None)
        return described


def json_schema(name: str, model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of the JSON that a reader of ``model`` accepts. Its ``$id`` is relative to the
    address from which the schema is read: a file of the repository, or ingest's ``/v1/schemas``."""
    schema = model.model_json_schema(schema_generator=_Untitled, mode="validation")
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"{name}.json",
        **schema,
    }


def topic_schema(spec: TopicSpec) -> dict[str, Any]:
    """Return the schema of a topic's data. ``x-topic`` holds properties on which the order and the ids of
    events depend, and which therefore must not change either."""
    later = spec.event.identity_when_given
    return {
        **json_schema(spec.name, spec.event),
        "x-topic": {
            "key": spec.key,
            "subject": spec.event.subject_field,
            "identity": list(spec.event.identity_fields),
            **({"identity_when_given": list(later)} if later else {}),
            "partitions": spec.partitions,
            "cleanup": spec.cleanup,
        },
    }


@functools.cache
def all_schemas() -> dict[str, dict[str, Any]]:
    """Return all schemas by topic name or key of ``FORMATS``; nobody may change them."""
    topics = {spec.name: topic_schema(spec) for spec in TOPICS}
    return topics | {name: json_schema(name, model) for name, model in FORMATS.items()}


def schema_files() -> dict[str, str]:
    """Return text by path, relative to the repository's root."""
    return {
        f"{FOLDER}/{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in all_schemas().items()
    }
