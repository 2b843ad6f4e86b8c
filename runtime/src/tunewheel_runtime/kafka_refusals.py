"""Why a broker lets a client not in, or not do something: in words that say what to mend.

aiokafka logs why a connection fails, and raises only that none could be made.
"""

# aiokafka has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka.conn import AIOKafkaConnection, collect_hosts
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest
from tunewheel_contracts.errors import TunewheelError

from tunewheel_runtime.kafka_tokens import TokenUnavailable

PROBE_SECONDS = 10.0
_AUTHORIZATION_ERRORS = (
    TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError,
)  # fmt: skip
_WHAT_TO_MEND = {
    "CERTIFICATE_REQUIRED": "set ssl_certfile and ssl_keyfile",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not of the authority in ssl_cafile, or of another host",
    "CERTIFICATE_UNKNOWN": "it does not know the authority behind ssl_certfile",
    "UNKNOWN_CA": "it does not know the authority behind ssl_certfile",
    "CERTIFICATE_EXPIRED": "renew ssl_certfile",
}
"""By the end of OpenSSL's names for what a handshake failed by."""
_OF_A_CONNECTION = (
    "ssl_context", "security_protocol", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password",
    "sasl_oauth_token_provider",
)  # fmt: skip


class NotAllowed(TunewheelError):
    """The broker does not let this client do what it must; the message says what, and how to allow it."""


def not_allowed(error: BaseException) -> NotAllowed | None:
    """Return ``error`` as ours where it is, or comes of, a missing right; None where it is something else."""
    cause = _first_cause(error)
    if not isinstance(cause, _AUTHORIZATION_ERRORS):
        return None
    kind = type(cause).__name__.removesuffix("AuthorizationFailedError").lower()
    names = ", ".join(_names(cause.args))
    what = f"use {kind} {names}" if names else "write to any topic" if kind == "cluster" else f"use a {kind}"
    return NotAllowed(
        f"Kafka does not let this client {what}: allow its principal what `tunewheel topics acls` prints"
    )


def _names(arguments: Iterable[Any]) -> list[str]:
    found: list[str] = []
    for argument in arguments:
        found += [argument] if isinstance(argument, str) else sorted(map(str, argument))
    return found


async def why_unreachable(options: Mapping[str, Any]) -> str:
    """Connect once more, to each of the bootstrap servers, and return why that fails.

    Args:
        options: those of the aiokafka client that could not connect.
    """
    connection = {name: options[name] for name in _OF_A_CONNECTION if name in options}
    servers = [(host, port) for host, port, _ in collect_hosts(options["bootstrap_servers"], randomize=False)]
    reasons = await asyncio.gather(*(_probe(host, port, connection) for host, port in servers))
    return "; ".join(f"{host}:{port} {reason}" for (host, port), reason in zip(servers, reasons, strict=True))


async def _probe(host: str, port: int, options: Mapping[str, Any]) -> str:
    connection = AIOKafkaConnection(host, port, **options)
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await connection.connect()
            await connection.send(MetadataRequest([]))
    except TimeoutError:
        return f"does not answer within {PROBE_SECONDS:g} s"
    except Exception as error:  # whatever it is, it is why there is no connection
        return _reason(_first_cause(error), options)
    finally:
        connection.close()
    return "can be reached now; try again"


def _reason(cause: BaseException, options: Mapping[str, Any]) -> str:
    if isinstance(cause, TokenUnavailable):
        return f"was not asked: {cause.args[0]}"
    if isinstance(cause, SaslAuthenticationFailed):
        return f"does not let this client in: {cause.args[0] or 'authentication failed'}"
    if isinstance(cause, UnsupportedSaslMechanismError):
        return f"does not take sasl_mechanism {options['sasl_mechanism']} there"
    if isinstance(cause, ssl.SSLError) and cause.reason:
        mend = (advice for end, advice in _WHAT_TO_MEND.items() if cause.reason.endswith(end))
        return f"fails the TLS handshake: {next(mend, cause.reason)} ({cause.reason})"
    if isinstance(cause, KafkaError | EOFError | ConnectionResetError):
        protocol = options.get("security_protocol", "PLAINTEXT")
        return (
            f"closes the connection: does it speak {protocol} there? ({str(cause) or type(cause).__name__})"
        )
    return f"cannot be reached: {cause}"


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
