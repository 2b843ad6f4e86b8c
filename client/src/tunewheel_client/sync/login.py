# Generated from aio/login.py by scripts/client_sync.py; change that file instead.
"""Logs a person in to a wheel, by an API key or by an OIDC issuer, and keeps the login as a context."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunewheel_contracts.api.identity import Login, Me

from tunewheel_client.contexts import Addresses, Context, put
from tunewheel_client.errors import Refused
from tunewheel_client.sync.tokens import log_in_by_device
from tunewheel_client.sync.transport import Transport
from tunewheel_client.target import Target, resolve
from tunewheel_client.values import DeviceCode

if TYPE_CHECKING:
    import httpx

LOGIN_SECONDS = 30.0


def print_code(device: DeviceCode) -> None:
    """Tell the person on standard error what to open and to enter."""
    import sys

    where = device.complete_url or device.url
    print(f"Open {where} in a browser and enter {device.code}.", file=sys.stderr)


def login(
    url: str,
    *,
    as_: str,
    key: str | None = None,
    device: bool = False,
    project: str | None = None,
    use: bool = True,
    on_code: Callable[[DeviceCode], None] = print_code,
    http: httpx.Client | None = None,
) -> Context:
    """Log in to the wheel whose console answers at ``url``, and keep the login as the context ``as_``. An
    older login of this name is replaced only once the new one works.

    Args:
        key: an API key.
        device: log in at the wheel's OIDC issuer, in any browser. ``on_code`` shows what to enter there.
        project: the project that is meant where none is named.
        use: whether the context is the one in use from now on.
        http: the caller's own HTTP client.

    Raises:
        NotAllowed: the wheel refuses the key, or the issuer the person.
        Refused: ``key`` and ``device`` are both given or both missing, or the wheel has no issuer.
        Away: the wheel or the issuer does not answer.
        InvalidContexts: the file of contexts cannot be written.
    """
    if (key is None) != device:
        raise Refused("key: give a key, or device=True to log in in a browser; exactly one", param="key")
    made = resolve(url, key, environment={}).context
    stranger = Transport(resolve(url, environment={}), timeout_seconds=LOGIN_SECONDS, http=http)
    try:
        told = stranger.read(Login, "login")
        if device:
            if told.oidc is None:
                raise Refused(f"{url}: has no OIDC issuer; log in with an API key", param="device")
            tokens = log_in_by_device(stranger.http(), **told.oidc.model_dump(), on_code=on_code)
            made = made.model_copy(update={"tokens": tokens})
        caller = Transport(Target(made), timeout_seconds=LOGIN_SECONDS, http=stranger.http())
        me = caller.read(Me, "me")
        made = caller.target.context  # with tokens that were renewed meanwhile
    finally:
        stranger.close()
    found = Addresses.model_validate(me.addresses.model_dump())
    made = made.model_copy(update={"addresses": found, "name": me.name, "project": project})
    put(as_, made, use=use)
    return made
