"""Generates the AsyncAPI 3.0 document of all services. Its payloads refer to the JSON Schemas beside it.

Sources: AsyncAPI specification 3.0.0, its Kafka bindings 0.5.0, and CloudEvents' Kafka protocol binding.
"""

from __future__ import annotations

from typing import Any, get_args

import yaml

from tunewheel_contracts.binding import CONTENT_TYPE, REQUIRED_HEADERS
from tunewheel_contracts.topics import NOT_SHOWN, TOPICS, Service, TopicSpec

FILE = "contracts/asyncapi.yaml"
BINDING = {"bindingVersion": "0.5.0"}
SCHEMA_FORMAT = "application/schema+json;version=draft-2020-12"
SERVICES: tuple[str, ...] = get_args(Service)
DEAD_LETTER_HEADERS = {
    "dlq_service": "The service that refused the message.",
    "dlq_kind": "invalid: a field is wrong. crashed: the service failed on the message again and again.",
    "dlq_field": "The wrong field.",
    "dlq_reason": "The fault and the fix.",
    "dlq_source_topic": "The topic from which the message was read.",
    "dlq_source_partition": "The message's partition on that topic.",
    "dlq_source_offset": "The message's offset in that partition.",
}
SECURITY: dict[str, dict[str, Any]] = {
    "sasl-plain": {"type": "plain", "description": "SASL/PLAIN over TLS."},
    "sasl-scram-256": {"type": "scramSha256", "description": "SASL/SCRAM-SHA-256 over TLS."},
    "sasl-scram-512": {"type": "scramSha512", "description": "SASL/SCRAM-SHA-512 over TLS."},
    "mtls": {"type": "X509", "description": "TLS with a certificate of the client."},
    "sasl-oauthbearer": {
        "type": "oauth2",
        "description": "SASL/OAUTHBEARER over TLS; the token is that of the issuer which the brokers trust.",
        "flows": {
            "clientCredentials": {"tokenUrl": "https://issuer.example.org/token", "availableScopes": {}}
        },
    },
}
"""How clients may authenticate at ``kafka-secure``: what the services can, and Kafka's own names for it."""
HEADER = "# Generated from the event models and topics; run `python -m tunewheel_contracts.generate`.\n"


def consumed_by(service: str) -> tuple[TopicSpec, ...]:
    """Return the topics that ``service`` reads."""
    if service == "console":
        return tuple(spec for spec in TOPICS if spec not in NOT_SHOWN)
    return tuple(spec for spec in TOPICS if service in spec.consumers)


def produced_by(service: str) -> tuple[TopicSpec, ...]:
    return tuple(s for s in TOPICS if service in s.producers)


def document() -> dict[str, Any]:
    """Return the document of all messages. An operation's name begins with its service."""
    operations: dict[str, Any] = {}
    for service in SERVICES:
        for spec in produced_by(service):
            operations[f"{service}.send.{_dashed(spec.name)}"] = _operation("send", spec.name)
        for spec in consumed_by(service):
            operations[f"{service}.receive.{_dashed(spec.name)}"] = _operation(
                "receive", spec.name, spec.groups_of(service)
            )
            if service in spec.handled_by:
                operations[f"{service}.send.{_dashed(spec.dead_letter)}"] = _operation(
                    "send", spec.dead_letter
                )
    used = {operation["channel"]["$ref"].removeprefix("#/channels/") for operation in operations.values()}
    channels: dict[str, Any] = {}
    for spec in TOPICS:
        channels[spec.name] = _channel(spec)
        if spec.dead_letter in used:
            channels[spec.dead_letter] = _dead_letter_channel(spec)
    messages = {spec.event.__name__: _message(spec) for spec in TOPICS}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Tunewheel", "version": "0.1.0", "license": {"name": "Apache-2.0"}},
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "kafka": _server("kafka", "On one machine, and with compose: without authentication."),
            "kafka-secure": {
                **_server(
                    "kafka-secure", "Elsewhere; `tunewheel admin acls` prints the rights of each principal."
                ),
                "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in SECURITY],
            },
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages | {"DeadLetter": _dead_letter_message()},
            "messageTraits": {"CloudEvent": _cloud_event()},
            "securitySchemes": SECURITY,
        },
    }


def asyncapi_files() -> dict[str, str]:
    """Return text by path, relative to the repository's root."""
    body = yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    return {FILE: HEADER + body}


def _server(protocol: str, description: str) -> dict[str, Any]:
    return {
        "host": "{bootstrap}",
        "protocol": protocol,
        "description": description,
        "variables": {"bootstrap": {"default": "localhost:9092", "description": "A broker of yours."}},
    }


def _dashed(topic: str) -> str:
    return topic.replace(".", "-")


def _channel(spec: TopicSpec) -> dict[str, Any]:
    return {
        "address": spec.name,
        "description": spec.summary,
        "messages": {spec.event.__name__: {"$ref": f"#/components/messages/{spec.event.__name__}"}},
        "bindings": {
            "kafka": {
                "partitions": spec.partitions,
                "topicConfiguration": {
                    "cleanup.policy": [spec.cleanup],
                    "retention.ms": spec.retention_ms,
                    "max.message.bytes": spec.max_message_bytes,
                },
                **BINDING,
            }
        },
    }


def _dead_letter_channel(spec: TopicSpec) -> dict[str, Any]:
    return {
        "address": spec.dead_letter,
        "description": f"Messages of {spec.name} that were refused as invalid.",
        "messages": {"DeadLetter": {"$ref": "#/components/messages/DeadLetter"}},
    }


def _dead_letter_message() -> dict[str, Any]:
    headers = {name: {"type": "string", "description": about} for name, about in DEAD_LETTER_HEADERS.items()}
    return {
        "name": "DeadLetter",
        "summary": "A refused message: the original bytes and headers, and headers with the reason.",
        "headers": {
            "type": "object",
            "required": [name for name in headers if name != "dlq_kind"],
            "properties": headers,
        },
        "payload": {"description": "The original bytes."},
    }


def _operation(action: str, channel: str, groups: tuple[str, ...] = ()) -> dict[str, Any]:
    operation: dict[str, Any] = {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}
    if groups:
        operation["bindings"] = {"kafka": {"groupId": {"type": "string", "enum": list(groups)}, **BINDING}}
    return operation


def _message(spec: TopicSpec) -> dict[str, Any]:
    """Return the message of ``spec``: what ``_cloud_event`` says of all messages, and what is its own."""
    identity = " and ".join(f"`{name}`" for name in spec.event.identity_fields)
    derived = f"subject, project and {identity}" if identity else "subject and project"
    return {
        "name": spec.name,
        "title": spec.event.__name__,
        "summary": spec.summary,
        "traits": [{"$ref": "#/components/messageTraits/CloudEvent"}],
        "headers": {
            "type": "object",
            "properties": {
                "ce_id": {
                    "description": f"UUIDv5 of type, {derived}; other systems may send ids of their own."
                },
                "ce_type": {"const": spec.name},
                "ce_subject": {"description": f"The data's `{spec.event.subject_field}`."},
            },
        },
        "payload": {"schemaFormat": SCHEMA_FORMAT, "schema": {"$ref": f"schemas/{spec.name}.json"}},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": f"The data's `{spec.key}`, UTF-8."},
                **BINDING,
            }
        },
    }


def _cloud_event() -> dict[str, Any]:
    """Return the trait of all messages: CloudEvents 1.0 in Kafka's binary mode."""

    def text(description: str, **more: Any) -> dict[str, Any]:
        return {"type": "string", "description": description, **more}

    return {
        "contentType": CONTENT_TYPE,
        "correlationId": {
            "description": "The turn of the wheel that this event belongs to.",
            "location": "$message.header#/ce_correlationid",
        },
        "headers": {
            "type": "object",
            "required": list(REQUIRED_HEADERS),
            "properties": {
                "ce_specversion": text("CloudEvents version.", const="1.0"),
                "ce_id": {"type": "string"},
                "ce_source": text("The sender."),
                "ce_type": text("The topic."),
                "ce_subject": {"type": "string"},
                "ce_time": text("Time of the event.", format="date-time"),
                "ce_project": text("The data's `project`."),
                "ce_causationid": text("Id of the event that caused this one."),
                "ce_correlationid": text("The turn of the wheel."),
                "content-type": text("Media type of the value.", const=CONTENT_TYPE),
                "traceparent": text("W3C trace context."),
            },
        },
    }
