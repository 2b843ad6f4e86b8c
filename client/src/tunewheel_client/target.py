"""Chooses the wheel that is meant, and the login that is sent to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tunewheel_client.contexts import OWN_FILE, Context, named_in, path, read
from tunewheel_client.errors import NoAddress
from tunewheel_client.trust import is_local

URL = "TUNEWHEEL_URL"
KEY = "TUNEWHEEL_API_KEY"
PROJECT = "TUNEWHEEL_PROJECT"
CONTEXT = "TUNEWHEEL_CONTEXT"
FOLDER = "TUNEWHEEL_VAR"
ADDRESSES = {"gateway": "TUNEWHEEL_GATEWAY_URL", "ingest": "TUNEWHEEL_INGEST_URL"}
"""Variables for a client that reaches a service otherwise than the wheel says, as in a container."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a client sends its requests, and as whom."""

    context: Context
    name: str | None = None
    """The name of the context; None: the URL came from elsewhere."""
    file: Path | None = field(default=None, repr=False)
    """The file in which renewed tokens of the context are kept."""


def resolve(
    url: str | None = None,
    key: str | None = None,
    *,
    context: str | None = None,
    project: str | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Target:
    """Return which wheel is meant: an argument goes before the environment (``TUNEWHEEL_URL``,
    ``TUNEWHEEL_CONTEXT``), this before the context in use, this before the wheel on the working folder.
    ``folder``: that of the wheel on this machine that is meant.

    ``TUNEWHEEL_GATEWAY_URL`` and ``TUNEWHEEL_INGEST_URL`` go before the addresses that the wheel tells.

    The login of a context is sent to these addresses alone. A key that is given as argument or in
    ``TUNEWHEEL_API_KEY`` replaces it.

    Raises:
        NoAddress: nobody named a wheel, or the key cannot be sent in a header.
        InvalidContexts: the context is not in the file, or the file cannot be used.
    """
    named = url or (None if context or folder else environment.get(URL))
    if named:
        found = Target(Context(url=_url(named)))
    else:
        chosen = context or (None if folder else environment.get(CONTEXT))
        found = _kept(chosen, folder, Path(environment.get(FOLDER, "var")))
    told: dict[str, Any] = {}
    if secret := sendable(key or key_of(environment)):
        told |= {"key": SecretStr(secret), "tokens": None}
    if in_project := (project or environment.get(PROJECT)):
        told["project"] = in_project
    elsewhere = {name: _url(value, one) for name, one in ADDRESSES.items() if (value := environment.get(one))}
    told["addresses"] = found.context.addresses.model_copy(update=elsewhere)
    return replace(found, context=found.context.model_copy(update=told))


def _kept(name: str | None, folder: Path | None, usual: Path) -> Target:
    own = (folder or usual).expanduser() / OWN_FILE
    for file in [path()] if name else [own] if folder else [path(), own]:
        found = read(file)
        if name is not None or found.current is not None:
            chosen, context = named_in(found, name or found.current or "")
            if file is own:
                _require_local(context, file)
            return Target(context, chosen, file)
    if folder is not None:
        raise NoAddress(
            f"--var: no wheel with a console runs on {folder}; start one with `tunewheel up`, or name "
            "another with --context"
        )
    raise NoAddress(
        f"no wheel is named; run `tunewheel login URL`, set {URL}, or give a URL (a wheel on this machine is "
        "found in the folder from which `tunewheel up` started it)"
    )


def _require_local(context: Context, file: Path) -> None:
    """Refuse an address elsewhere in the file of a folder: whoever made the folder would get the key of the
    environment, and what is asked and published."""
    told = context.addresses
    urls = (context.url, told.console, told.gateway, told.ingest)
    if elsewhere := next((url for url in urls if url and not is_local(url)), None):
        raise NoAddress(
            f"url: {file} names {elsewhere}, and the wheel of a folder is on this machine; run `tunewheel "
            "login URL` if you trust that address, or delete the file",
            param="url",
        )


def _url(text: str, field: str = "url") -> str:
    if not text.startswith(("https://", "http://")) or "@" in text:
        reason = "is no address; write https://host, without a name or password"
        raise NoAddress(f"{field}: {reason}", param=field)
    return text.rstrip("/")


def key_of(environment: Mapping[str, str], variable: str = KEY) -> str | None:
    """Return the key of the environment, or of the file of its name in ``TUNEWHEEL_SECRETS_DIR``."""
    value = environment.get(variable, "").strip()
    folder = environment.get("TUNEWHEEL_SECRETS_DIR")
    if not value and folder and (file := Path(folder) / variable).is_file():
        value = file.read_text("utf-8", errors="replace").strip()
    return value or None


def sendable(key: str | None) -> str | None:
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise NoAddress("key: holds a character that no key has; copy the key again", param="key")
    return key
