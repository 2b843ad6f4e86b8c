"""login."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from tunewheel_cli.calling import Call, calling, named_project


@calling
def command(
    call: Call,
    url: Annotated[
        str | None,
        typer.Argument(help="The wheel's console, such as https://wheel.example.", show_default=False),
    ] = None,
    as_: Annotated[
        str | None, typer.Option("--as", help="What to call this wheel.", show_default="its host's name")
    ] = None,
    device: Annotated[
        bool, typer.Option("--device", help="Log in at the wheel's OIDC issuer, in any browser.")
    ] = False,
    default: Annotated[
        str | None,
        typer.Option(
            "--project", "-p", help="The project that is meant where none is named.", callback=named_project
        ),
    ] = None,
) -> None:
    """Log in to a wheel, and use it from now on.

    The API key is that of TUNEWHEEL_API_KEY, else read from standard input, or asked for at a terminal.
    Without URL: print a link that logs a browser in to the console of the wheel in use, once.
    """
    if url is None:
        link = call.client.login_link()
        call.show(link.model_dump(mode="json", include={"url", "expires_at"}), link.url)
        return
    from urllib.parse import urlsplit

    from tunewheel_client import login

    name = as_ or urlsplit(url).hostname or url
    made = login(url, as_=name, key=None if device else _key(), device=device, project=default)
    value = {"context": name, "url": made.url, "as": made.name, "addresses": made.addresses.model_dump()}
    call.show(value, f"logged in to {made.url} as {made.name or 'nobody'}; it is the context {name}")


def _key() -> str:
    from tunewheel_client.target import key_of

    if (found := key_of(os.environ)) is not None:
        return found
    if sys.stdin.isatty():
        return typer.prompt("API key", hide_input=True, err=True)
    return sys.stdin.readline().strip()
