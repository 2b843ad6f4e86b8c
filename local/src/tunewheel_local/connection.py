"""A command's connection to Kafka."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import TransientError, TunewheelError

from tunewheel_local.places import Var
from tunewheel_local.run_state import RunState, living

if TYPE_CHECKING:
    from pydantic import ValidationError
    from tunewheel_runtime.kafka_settings import KafkaSettings

WANTED_KAFKA = "use Apache Kafka 3.7 or later, or a service that speaks its protocol"


class InvalidOption(TunewheelError):
    """An option of the command line, or a ``TUNEWHEEL_*`` variable, has an invalid value."""


class NoWheel(InvalidOption):
    """No wheel runs on the folder, and nobody named an address. What listens at the usual port may be
    another team's."""

    def __init__(self, var: Var, what: str, how: str) -> None:
        super().__init__(
            f"--var: no wheel runs on {var.root}, and nobody named {what}; start one with `tunewheel up`, "
            f"give the folder of one that runs with --var, or name {what} with {how}"
        )


@dataclass(frozen=True, slots=True)
class Connection:
    """The connection options of the command line. An option that is not given comes from its ``TUNEWHEEL_*``
    variable, then from the wheel on the ``var`` folder, then from the defaults."""

    bootstrap_servers: str | None = None
    topic_prefix: str | None = None
    security_protocol: str | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None
    sasl_oauth_token_file: Path | None = None
    sasl_oauth_token_url: str | None = None
    sasl_oauth_client_id: str | None = None
    sasl_oauth_scope: str | None = None

    def chosen(self) -> dict[str, Any]:
        names = self.__dataclass_fields__
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def settings(self, var: Var | None = None) -> KafkaSettings:
        """Return the settings of the connection, as services have them.

        Raises:
            InvalidOption: an option's value is invalid or missing.
        """
        from pydantic import ValidationError
        from tunewheel_runtime.kafka_settings import KafkaSettings

        running = living(var.run_file) if var else None
        try:
            if running and not self._names_servers():
                found: dict[str, Any] = {"bootstrap_servers": running.bootstrap_servers}
                for name in ("security_protocol", "topic_prefix"):
                    found[name] = os.environ.get(_variable(name), getattr(running, name))
                return KafkaSettings(**(found | self.chosen()))
            return KafkaSettings(**self.chosen())
        except ValidationError as error:
            raise self._invalid(error) from error

    def wheel(self, var: Var) -> RunState | None:
        """Return the wheel on ``var``; None: there is none, or this connection is to another Kafka."""
        running = living(var.run_file)
        if running is None:
            return None
        mine = self.settings(var)
        own = (running.bootstrap_servers, running.topic_prefix)
        return running if (mine.bootstrap_servers, mine.topic_prefix) == own else None

    def require_named(self, var: Var) -> None:
        """Raise ``NoWheel`` where nobody named a Kafka and no wheel runs on ``var``."""
        if "bootstrap_servers" not in self.settings().model_fields_set and living(var.run_file) is None:
            raise NoWheel(var, "a Kafka", f"--bootstrap-servers or {_variable('bootstrap_servers')}")

    def _names_servers(self) -> bool:
        return self.bootstrap_servers is not None or _variable("bootstrap_servers") in os.environ

    def _invalid(self, error: ValidationError) -> InvalidOption:
        from tunewheel_runtime.process import wrong_settings

        name, wanted = wrong_settings(error)[0]
        value = getattr(self, name, None) if "password" not in name else None
        got = f", not {value!r}" if value is not None else ""
        return InvalidOption(f"{self._option(name)}: {wanted}{got}")

    def _option(self, name: str) -> str:
        """Return the option or variable of ``name``. Some secrets have no option: other users could read
        it."""
        return f"--{name.replace('_', '-')}" if name in self.__dataclass_fields__ else _variable(name)

    def client_options(self, var: Var | None = None) -> dict[str, Any]:
        """Return the keyword arguments of an aiokafka client.

        Raises:
            InvalidOption: see ``settings``; or a certificate or key cannot be used.
        """
        from tunewheel_runtime.kafka import InvalidSetting, client_options

        try:
            return client_options(self.settings(var))
        except InvalidSetting as error:
            raise InvalidOption(f"{self._option(error.field)}: {error.reason}") from error


class IncompatibleKafka(TunewheelError):
    """A broker does not support a version of a request that Tunewheel sends."""


async def unreachable(options: Mapping[str, Any], error: Exception) -> TunewheelError:
    """Return the error to report if Kafka does not answer, refuses, or is too old. ``options``: of the
    aiokafka client."""
    from aiokafka.errors import IncompatibleBrokerVersion
    from tunewheel_runtime.kafka_refusals import not_allowed, why_unreachable

    # aiokafka raises NotImplementedError if the broker supports only older versions of the request.
    if isinstance(error, IncompatibleBrokerVersion | NotImplementedError):
        return IncompatibleKafka(
            f"--bootstrap-servers: this Kafka does not speak a request that Tunewheel sends ({error}); "
            f"{WANTED_KAFKA}"
        )
    return not_allowed(error) or TransientError(
        f"--bootstrap-servers: no connection to Kafka: {await why_unreachable(options)}; start one with "
        "`tunewheel up`, give the folder where one was started with --var, or check the address and the "
        "security options"
    )


def as_environment(settings: KafkaSettings) -> dict[str, str]:
    """Return the connection of ``settings`` as a service's environment variables."""
    from pydantic import SecretStr

    fields = ((name, getattr(settings, name)) for name in type(settings).model_fields)
    return {
        _variable(name): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in fields
        if value is not None
    }


def _variable(name: str) -> str:
    return f"TUNEWHEEL_{name.upper()}"
