"""Generates ``docs/events.md``: a table of the topics, then every event with its fields."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.formats.catalog import FORMATS
from tunewheel_contracts.generation.schemas import json_schema, topic_schema
from tunewheel_contracts.topics import DAY_MS, TOPICS, TopicSpec

PATH = "docs/events.md"

INTRODUCTION = """\
# Events

<!-- Generated from the event models and topics; run `python -m tunewheel_contracts.generate`. -->

Every message is a [CloudEvent 1.0](https://cloudevents.io) in Kafka's binary mode: attributes are `ce_*`
headers, the value is the JSON data. `ce_type` is the topic's name, `ce_causationid` the id of the event that
caused this one, `ce_correlationid` the turn of the wheel.

A topic with consumers has a dead-letter topic `<topic>.dlq`. A dead letter has the original bytes and
headers, and the additional headers `dlq_service`, `dlq_kind` (`invalid`, or `crashed`: the service failed on
the message again and again), `dlq_field`, `dlq_reason`, `dlq_source_topic`,
`dlq_source_partition` and `dlq_source_offset`. An upstream record that no service can read, because it is
malformed or its signature is wrong, has one letter, by the first of the topic's consumers; the others log it.
A service that is killed before it commits its offset may write a letter again. So count letters by service
and source, as the console and the command line do.

The console reads every topic except `inference.scored`, `alarm.opened` and the topics whose content comes
again as `record.ingested`.

The column "key" names the field whose value is the record key. Events with the same key stay in order. On a
topic that keeps the newest event per key, a null value (a tombstone) removes the key: the project is then no
longer declared, or no longer served by a model.

Evolution: optional fields may be added. Any other change needs a new topic `<topic>.v2`.

## Topics
"""


def catalogue_files() -> dict[str, str]:
    """Return text by path, relative to the repository's root."""
    parts = [INTRODUCTION, _topic_table(), ""]
    for spec in TOPICS:
        parts += [_topic_section(spec), ""]
    parts += ["## Artifact formats", ""]
    for name, model in FORMATS.items():
        parts += [_section(name, json_schema(name, model), f"`contracts/schemas/{name}.json`"), ""]
    return {PATH: "\n".join(parts).rstrip() + "\n"}


def _topic_table() -> str:
    rows = [
        "| topic | producers | consumers | key | partitions | kept |",
        "|---|---|---|---|---|---|",
    ]
    for spec in TOPICS:
        anchor = spec.name.replace(".", "")
        cells = [
            f"[`{spec.name}`](#{anchor})",
            ", ".join(spec.producers),
            ", ".join(spec.consumers) or "none",
            f"`{spec.key}`",
            str(spec.partitions),
            _kept(spec),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _kept(spec: TopicSpec) -> str:
    if spec.cleanup == "compact":
        return "newest per key"
    if spec.deleted_by is not None:
        return f"until handled, then days that a setting of {spec.deleted_by} says"
    return f"{spec.retention_ms // DAY_MS} days" if spec.retention_ms > 0 else "for ever"


def _topic_section(spec: TopicSpec) -> str:
    subject = spec.event.subject_field
    identity = dict.fromkeys(f"`{name}`" for name in ("project", subject, *spec.event.identity_fields))
    later = ", ".join(f"`{name}`" for name in spec.event.identity_when_given)
    note = (
        f"Subject `{subject}`; the id follows from {', '.join(identity)}"
        f"{', and where given ' + later if later else ''}."
    )
    return _section(spec.name, topic_schema(spec), note, level=3)


def _section(name: str, schema: dict[str, Any], note: str, *, level: int = 3) -> str:
    description = " ".join(str(schema.get("description", "")).split())
    lines = [f"{'#' * level} {name}", "", description, "", note, ""]
    lines += ["| field | type | | |", "|---|---|---|---|"]
    required = set(schema.get("required", ()))
    for field, body in schema["properties"].items():
        need = "required" if field in required else _default(body)
        text = " ".join(str(body.get("description", "")).split()).replace("|", "\\|")
        lines.append(f"| `{field}` | {type_name(body, schema)} | {need} | {text} |")
    return "\n".join(lines)


def _default(body: dict[str, Any]) -> str:
    value = body.get("default")
    if value in (None, "", [], {}) or isinstance(value, dict | list):
        return "optional"
    return f"default `{value}`"


def type_name(body: dict[str, Any], root: dict[str, Any]) -> str:
    """Return a short name of a field's type, with its bounds."""
    if "$ref" in body:
        target = body["$ref"].rsplit("/", 1)[-1]
        definition = root.get("$defs", {}).get(target, {})
        return _literals(definition["enum"]) if "enum" in definition else target
    if "anyOf" in body:
        names = [type_name(branch, root) for branch in body["anyOf"]]
        return " or ".join(name for name in names if name != "null")
    if "enum" in body:
        return _literals(body["enum"])
    if "const" in body:
        return f"`{body['const']}`"
    if body.get("type") == "array":
        return f"list of {type_name(body.get('items', {}), root)}"
    if body.get("type") == "object" and isinstance(body.get("additionalProperties"), dict):
        return f"map of {type_name(body['additionalProperties'], root)}"
    return f"{body.get('format') or body.get('type', 'any')}{_bounds(body)}"


def _literals(values: list[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _bounds(body: dict[str, Any]) -> str:
    words = {
        "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
        "minLength": "{}+ characters", "maxLength": "up to {} characters",
    }  # fmt: skip
    found = [text.format(f"{body[key]:,}") for key, text in words.items() if key in body]
    if "pattern" in body:
        found.append(f"`{body['pattern']}`")
    return f" ({', '.join(found)})" if found else ""
