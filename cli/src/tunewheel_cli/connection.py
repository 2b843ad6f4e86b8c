"""Which Kafka a command talks to, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import TransientError, TunewheelError

from tunewheel_cli.places import Var
from tunewheel_cli.run_state import living

if TYPE_CHECKING:
    from tunewheel_runtime.settings import ServiceSettings


class InvalidOption(TunewheelError):
    """An option of the command line, or a ``TUNEWHEEL_*`` variable, has a value that cannot be."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What the command line says; what it leaves open comes from ``TUNEWHEEL_*`` variables, then from the
    wheel that runs on this ``var`` folder, then from the defaults."""

    bootstrap_servers: str | None = None
    security_protocol: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None
    ssl_cafile: Path | None = None

    def given(self) -> dict[str, Any]:
        names = self.__dataclass_fields__
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def settings(self, var: Var | None = None) -> ServiceSettings:
        """Return settings as the services know them.

        Raises:
            InvalidOption: a value is not of its kind; the option is named.
        """
        from pydantic import ValidationError
        from tunewheel_runtime.settings import ServiceSettings

        try:
            settings = ServiceSettings(**self.given())
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "options"
            given = name in self.__dataclass_fields__
            option = f"--{name.replace('_', '-')}" if given else f"TUNEWHEEL_{name.upper()}"
            wanted = first["msg"].removeprefix("Value error, ")
            raise InvalidOption(f"{option}: {wanted}, not {first['input']!r}") from error
        running = living(var.run_file) if var else None
        if running and "bootstrap_servers" not in settings.model_fields_set:
            found: dict[str, Any] = {"bootstrap_servers": running.bootstrap_servers}
            if "security_protocol" not in settings.model_fields_set:
                found["security_protocol"] = running.security_protocol
            settings = ServiceSettings(**(self.given() | found))
        return settings

    def client_options(self, var: Var | None = None) -> dict[str, Any]:
        """Return the keyword arguments of an aiokafka client."""
        from tunewheel_runtime.kafka import client_options

        settings = self.settings(var)
        try:
            return client_options(settings)
        except OSError as error:
            raise InvalidOption(f"--ssl-cafile: {settings.ssl_cafile} cannot be read: {error}") from error


def unreachable(options: Mapping[str, Any], error: Exception) -> TransientError:
    """Return the error for a Kafka that does not answer; ``options`` are those of the aiokafka client."""
    servers = options["bootstrap_servers"]
    where = servers if isinstance(servers, str) else ",".join(servers)
    return TransientError(
        f"--bootstrap-servers: no Kafka answers at {where} ({error}); start one with `tunewheel up`, or "
        "check the address and the security options"
    )


def as_environment(settings: ServiceSettings) -> dict[str, str]:
    """Return the connection of ``settings`` as the variables that a service reads."""
    password = settings.sasl_password
    values = {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "TUNEWHEEL_SECURITY_PROTOCOL": settings.security_protocol,
        "TUNEWHEEL_SASL_MECHANISM": settings.sasl_mechanism,
        "TUNEWHEEL_SASL_USERNAME": settings.sasl_username,
        "TUNEWHEEL_SASL_PASSWORD": password.get_secret_value() if password else None,
        "TUNEWHEEL_SSL_CAFILE": str(settings.ssl_cafile) if settings.ssl_cafile else None,
    }
    return {name: value for name, value in values.items() if value is not None}
