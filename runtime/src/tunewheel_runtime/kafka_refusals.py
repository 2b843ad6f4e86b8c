"""Explains why a broker refuses a client or an operation, and what to correct.

aiokafka only logs why a connection fails; its exception does not contain the reason.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, cast

from aiokafka.conn import AIOKafkaConnection, collect_hosts
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest
from tunewheel_contracts.errors import TransientError, TunewheelError

from tunewheel_runtime.kafka_tokens import TokenUnavailable

PROBE_SECONDS = 10.0
_AUTHORIZATION_ERRORS = (
    TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)  # fmt: skip
_WHAT_TO_MEND = {
    "CERTIFICATE_REQUIRED": "set ssl_certfile and ssl_keyfile",
    "CERTIFICATE_VERIFY_FAILED": (
        "its certificate is not signed by an authority in ssl_cafile, or is for another host"
    ),
    "CERTIFICATE_UNKNOWN": "it does not know the authority that signed ssl_certfile",
    "UNKNOWN_CA": "it does not know the authority that signed ssl_certfile",
    "CERTIFICATE_EXPIRED": "renew ssl_certfile",
}
"""Advice by OpenSSL's name of the error (its end)."""
_PASSWORD = "sasl_username and sasl_password"
_IDENTIFIES = {
    "PLAIN": _PASSWORD, "SCRAM-SHA-256": _PASSWORD, "SCRAM-SHA-512": _PASSWORD,
    "OAUTHBEARER": "sasl_oauth_token_file, or the client behind sasl_oauth_token_url",
}  # fmt: skip
"""By SASL mechanism: the settings by which a client authenticates."""
_OF_A_CONNECTION = (
    "ssl_context", "security_protocol", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password",
    "sasl_oauth_token_provider",
)  # fmt: skip


class NotAllowed(TunewheelError):
    """This client lacks a right on the broker; the message names the right and how to grant it."""


def not_allowed(error: BaseException) -> NotAllowed | None:
    """Return a ``NotAllowed`` if ``error`` is a missing right or was caused by one; otherwise None."""
    # aiokafka's sender names the transactional id in an error of its own.
    cause = error if isinstance(error, _AUTHORIZATION_ERRORS) and error.args else _first_cause(error)
    if not isinstance(cause, _AUTHORIZATION_ERRORS):
        return None
    kind = type(cause).__name__.partition("Authorization")[0].replace("Id", " id").lower()
    names = ", ".join(_names(cause.args))
    what = f"use {kind} {names}" if names else "write to any topic" if kind == "cluster" else f"use a {kind}"
    return NotAllowed(
        f"Kafka does not let this client {what}: grant its principal the rights that "
        "`tunewheel admin acls` prints"
    )


def _names(arguments: Iterable[Any]) -> list[str]:
    found: list[str] = []
    for argument in arguments:
        found += [argument] if isinstance(argument, str) else sorted(map(str, argument))
    return found


async def unreachable(options: Mapping[str, Any], error: Exception) -> TunewheelError:
    """Return the error to report if Kafka does not answer or refuses. ``options``: of the aiokafka client."""
    return not_allowed(error) or TransientError(f"no connection to Kafka: {await why_unreachable(options)}")


async def why_unreachable(options: Mapping[str, Any]) -> str:
    """Connect once more, and return the reason for which that fails.

    Args:
        options: those of the aiokafka client that could not connect.
    """
    failing = await failing_addresses(options)
    if not failing:
        return "every broker can be reached now; try again"
    return "; ".join(f"{address} {reason}" for address, reason in failing.items())


async def failing_addresses(options: Mapping[str, Any]) -> dict[str, str]:
    """Connect to each bootstrap server, and to each broker that they name. Return the reason for each
    connection that fails, by host:port.

    Args:
        options: those of an aiokafka client.
    """
    connection = {name: options[name] for name in _OF_A_CONNECTION if name in options}
    servers = [(host, port) for host, port, _ in collect_hosts(options["bootstrap_servers"], randomize=False)]
    answers = await asyncio.gather(*(_probe(*server, connection) for server in servers))
    failing = {
        f"{host}:{port}": answer
        for (host, port), answer in zip(servers, answers, strict=True)
        if isinstance(answer, str)
    }
    advertised = {broker for answer in answers if not isinstance(answer, str) for broker in answer}
    named = sorted(advertised - set(servers))
    for (host, port), answer in zip(
        named, await asyncio.gather(*(_probe(*broker, connection) for broker in named)), strict=True
    ):
        if isinstance(answer, str):
            failing[f"{host}:{port}"] = (
                f"{answer}; the brokers advertise this address: see advertised.listeners"
            )
    return failing


async def _probe(host: str, port: int, options: Mapping[str, Any]) -> str | list[tuple[str, int]]:
    """Return the brokers that the broker at ``host`` names, or the reason why it does not answer."""
    connection = AIOKafkaConnection(host, port, **options)
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await connection.connect()
            answer = cast(Any, await connection.send(MetadataRequest([])))
    except TimeoutError:
        return f"does not answer within {PROBE_SECONDS:g} s"
    except Exception as error:  # Any error is the reason why there is no connection.
        return _reason(_first_cause(error), options)
    finally:
        connection.close()
    return [(broker[1], broker[2]) for broker in answer.brokers]


def _reason(cause: BaseException, options: Mapping[str, Any]) -> str:
    if isinstance(cause, TokenUnavailable):
        return f"was not asked: {cause.args[0]}"
    if isinstance(cause, SaslAuthenticationFailed):
        said = cause.args[0] or "authentication failed"
        return f"does not let this client in: {said} (check {_IDENTIFIES[options['sasl_mechanism']]})"
    if isinstance(cause, UnsupportedSaslMechanismError):
        return f"does not accept sasl_mechanism {options['sasl_mechanism']} there"
    if isinstance(cause, ssl.SSLError) and cause.reason:
        mend = (advice for end, advice in _WHAT_TO_MEND.items() if cause.reason.endswith(end))
        return f"fails the TLS handshake: {next(mend, cause.reason)} ({cause.reason})"
    if isinstance(cause, KafkaError | EOFError | ConnectionResetError):
        protocol = options.get("security_protocol", "PLAINTEXT")
        return (
            f"closes the connection: does it speak {protocol} there? Check security_protocol "
            f"({str(cause) or type(cause).__name__})"
        )
    return f"cannot be reached: {cause}"


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
