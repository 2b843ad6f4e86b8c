"""The options that commands about an installation share: the wheel's folder, Kafka, and JSON output."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from tunewheel_local.connection import Connection
from tunewheel_local.places import Var

from tunewheel_cli.calling import with_options
from tunewheel_cli.exits import show

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Reach:
    """The values of the shared options."""

    var: Var
    connection: Connection
    as_json: bool
    is_writing: bool = False
    """Whether this command has said which wheel it writes to."""

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments of an aiokafka client.

        Raises:
            NoWheel: no wheel runs on ``var``, and nobody named a Kafka.
            InvalidOption: see ``Connection.client_options``.
        """
        options = self.connection.client_options(self.var)
        self.connection.require_named(self.var)
        return options

    def show(self, value: Any, text: str | Callable[[], object]) -> None:
        """Print the command's result: see ``exits.show``."""
        show(value, text, as_json=self.as_json)

    def place(self) -> str:
        """Return the wheel that this command works on, in words."""
        kafka = self.connection.settings(self.var)
        address = f"the Kafka at {kafka.bootstrap_servers}"
        if kafka.topic_prefix:
            address += f", topics {kafka.topic_prefix}*"
        return f"the wheel on {self.var.root} ({address})" if self.connection.wheel(self.var) else address

    def tell_place(self) -> None:
        """Say on standard error, once, which wheel this command writes to."""
        if not (self.is_writing or self.as_json):
            print(f"writing to {self.place()}", file=sys.stderr)
        self.is_writing = True


_KAFKA_OPTIONS = {
    "bootstrap_servers": ("host:port,… of a Kafka.", "the wheel's on --var"),
    "topic_prefix": ("What the names of its topics and groups begin with.", "none"),
    "security_protocol": ("PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.", "PLAINTEXT"),
    "ssl_cafile": ("PEM file of the authority behind the brokers.", "the system's"),
    "ssl_certfile": ("PEM file of the client's certificate, for mTLS.", False),
    "ssl_keyfile": ("Its key; TUNEWHEEL_SSL_KEYFILE_PASSWORD opens an encrypted one.", False),
    "sasl_mechanism": ("PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.", "PLAIN"),
    "sasl_username": ("SASL user.", False),
    "sasl_password": ("SASL password; the variable hides it from other users.", False),
    "sasl_oauth_token_file": ("File that something keeps a token for OAUTHBEARER in.", False),
    "sasl_oauth_token_url": ("Where to ask for such a token; TUNEWHEEL_SASL_OAUTH_CLIENT_SECRET.", False),
    "sasl_oauth_client_id": ("Who asks for it.", False),
    "sasl_oauth_scope": ("Scopes to ask for, separated by spaces.", False),
}
"""By field of ``Connection``, the help text and the default that it shows."""


def _kafka_option(name: str) -> Any:
    help_text, default = _KAFKA_OPTIONS[name]
    kind = get_type_hints(Connection)[name]
    variable, option = f"TUNEWHEEL_{name.upper()}", f"--{name.replace('_', '-')}"
    return Annotated[
        kind,
        typer.Option(option, envvar=variable, help=help_text, show_default=default, rich_help_panel="Kafka"),
    ]


_SHARED: dict[str, Any] = {
    "var": Annotated[
        Path | None,
        typer.Option("--var", envvar="TUNEWHEEL_VAR", help="Folder of the wheel.", show_default="./var"),
    ],
    "as_json": Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")],
    **{name: _kafka_option(name) for name in _KAFKA_OPTIONS},
}


def reaching(command: F, *, kafka: bool = True) -> F:
    """Replace a command's first parameter, ``reach: Reach``, by the shared options. ``kafka``: whether those
    of Kafka are among them, for a command that looks after an installation.

    A command may be async: it then runs in an event loop of its own. A command that waits for a person's
    answer must not, because the loop would keep the first Ctrl-C from ending it.
    """

    def run(values: dict[str, Any]) -> Any:
        # aiokafka's failures are raised as our errors; logging them too would only repeat them.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        var, as_json = Var.at(values.pop("var")), values.pop("as_json")
        connection = Connection(**{name: values.pop(name, None) for name in Connection.__dataclass_fields__})
        outcome = command(Reach(var, connection, as_json), **values)
        return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome

    shared = {name: one for name, one in _SHARED.items() if kafka or name not in _KAFKA_OPTIONS}
    return with_options(command, shared, run)


on_folder = partial(reaching, kafka=False)
"""``reaching``, for a command that needs the wheel's folder alone."""
