"""Kafka's IncrementalAlterConfigs (KIP-339), which aiokafka's admin client lacks.

The older AlterConfigs replaces all settings of a topic: a setting that is not sent, such as an operator's
``min.insync.replicas``, falls back to the broker's default. IncrementalAlterConfigs changes only the settings
that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TOPIC = 2
"""Kafka protocol, resource type TOPIC."""
_SET = 0
"""Kafka protocol, operation of IncrementalAlterConfigs: set the value."""

Answer = tuple[int, str | None, int, str]
"""Error code (0 is none), error message, resource type, topic."""


async def set_configs(admin: Any, changes: Mapping[str, Mapping[str, str]]) -> list[Answer]:
    """Set the settings in ``changes``, by topic, and leave all others. Return the answer for each topic.

    ``admin`` is a started ``AIOKafkaAdminClient``.
    """
    resources = [
        (_TOPIC, topic, [(name, _SET, value) for name, value in settings.items()])
        for topic, settings in changes.items()
    ]
    response = await admin._send_request(_request(resources))
    return list(response.resources)


def _request(resources: list[Any]) -> Any:
    from aiokafka.protocol.admin import AlterConfigsResponse_v0
    from aiokafka.protocol.api import Request, RequestStruct, Response
    from aiokafka.protocol.types import Array, Boolean, Int8, Schema, String

    class ResponseV0(Response):
        API_KEY = 44
        API_VERSION = 0
        SCHEMA = AlterConfigsResponse_v0.SCHEMA

    class RequestV0(RequestStruct):
        API_KEY = 44
        API_VERSION = 0
        RESPONSE_TYPE = ResponseV0
        entries = ("config_name", String("utf-8")), ("operation", Int8), ("config_value", String("utf-8"))
        SCHEMA = Schema(
            (
                "resources",
                Array(
                    ("resource_type", Int8), ("resource_name", String("utf-8")), ("configs", Array(*entries))
                ),
            ),
            ("validate_only", Boolean),
        )

    class IncrementalAlterConfigs(Request[RequestV0]):
        API_KEY = 44

        def build(self, request_struct_class: type[RequestV0]) -> RequestV0:
            return request_struct_class(resources, False)

    return IncrementalAlterConfigs()
