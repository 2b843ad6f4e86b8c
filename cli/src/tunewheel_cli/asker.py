"""The principal in events that the command line writes to Kafka."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydantic import ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.principal import Principal

from tunewheel_cli.connection import InvalidOption
from tunewheel_cli.endpoint import VARIABLE, given_key
from tunewheel_cli.places import Var
from tunewheel_cli.run_state import living
from tunewheel_cli.wheel_secrets import LOCAL

NAME = "TUNEWHEEL_PRINCIPAL"
UNNAMED = (
    "this was sent in nobody's name, and services that ask who sent it make a dead letter of it; set "
    f"{NAME} to the name of your key, or {VARIABLE} to a key of the file in TUNEWHEEL_API_KEYS_FILE"
)


def principal_of(var: Var, bootstrap_servers: str) -> Principal | None:
    """Return the principal of events: ``TUNEWHEEL_PRINCIPAL``, else the name of the key in
    ``TUNEWHEEL_API_KEY``. On the Kafka of the wheel on ``var``, that wheel's own key is the last resort.

    Kafka does not check the name: any client with the right to write the topic can give any name.

    Raises:
        InvalidOption: a variable holds no valid name, or no known key.
        InvalidKeys: the file of keys cannot be read.
    """
    name = os.environ.get(NAME, "").strip()
    if name:
        try:
            return Principal(name=name)
        except ValidationError as error:
            raise InvalidOption(f"{NAME}: {first_complaint(error)[1]}") from error
    key = given_key()
    if key is not None:
        from tunewheel_runtime.identity.keys import read_keys

        file = Path(os.environ.get("TUNEWHEEL_API_KEYS_FILE") or var.keys_file)
        return read_keys(file).find(key.get_secret_value()) if file.is_file() else None
    running = living(var.run_file)
    if running is None or running.bootstrap_servers != bootstrap_servers:
        return None
    return Principal(name=LOCAL) if running.keys_file == str(var.keys_file) else None


def tell_unnamed(var: Var) -> None:
    """Warn on standard error about events without a principal, unless this wheel's identity is open."""
    running = living(var.run_file)
    if running is None or running.identity != "open":
        print(f"tunewheel: {UNNAMED}", file=sys.stderr)
