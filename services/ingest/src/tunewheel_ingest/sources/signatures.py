"""Checks who sent a webhook: each vendor's signature over the raw body, by a secret that both sides have.

Sources: Zendesk, "Verifying webhook authenticity"; GitHub, "Validating webhook deliveries"; Atlassian,
"Secure webhooks" of Jira and Confluence (``X-Hub-Signature``, WebSub §7.1); Standard Webhooks 1.0. ServiceNow
signs no webhooks: a business rule, shown in docs/connect.md, signs them as Standard Webhooks are.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import yaml
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.identity.roles import NotAuthenticated
from tunewheel_runtime.webhooks import signed

WINDOW_SECONDS = 300
"""How far the time of a signature may be from now. An older request may be a copy that somebody kept."""
STANDARD = "webhook-signature"
"""The header of Standard Webhooks, which may hold several signatures, separated by spaces."""
SIGNATURES: Mapping[str, str] = {
    "zendesk": "x-zendesk-webhook-signature",
    "github": "x-hub-signature-256",
    "jira": "x-hub-signature",
    "confluence": "x-hub-signature",
    "servicenow": STANDARD,
    "hmac": STANDARD,
}
"""By vendor, the header of the signature, in lower case."""


def secrets_of(path: Path | None, project: str, source: str) -> tuple[str, ...]:
    """Return the secrets of a source: one, or two while a secret is replaced. The file holds YAML: by
    ``project/source`` a text, or a list of texts. It is read at each call.

    Raises:
        TransientError: the file cannot be read.
    """
    if path is None:
        return ()
    try:
        held: Any = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = f"TUNEWHEEL_SOURCE_SECRETS_FILE cannot be read ({type(error).__name__})"
        raise TransientError(reason) from error
    found = cast("dict[str, Any]", held).get(f"{project}/{source}") if isinstance(held, dict) else None
    listed = cast("list[Any]", found) if isinstance(found, list) else [found]
    return tuple(one for one in listed if isinstance(one, str) and one)


def name_of(vendor: str, headers: Mapping[str, str]) -> str:
    """Return what names a request: nothing that a copy of the request could change. Of Standard Webhooks
    these are the id and the time, because more signatures may be added to the header."""
    header = SIGNATURES[vendor]
    parts = ("webhook-id", "webhook-timestamp") if header == STANDARD else (header,)
    return content_sha256([headers.get(part, "") for part in parts])


def check(
    vendor: str, headers: Mapping[str, str], body: bytes, secrets: Iterable[str], *, now: datetime
) -> None:
    """Refuse a request that none of ``secrets`` signed.

    Raises:
        NotAuthenticated: the signature is missing or wrong, or its time is too far from ``now``.
    """
    header = SIGNATURES[vendor]
    value = headers.get(header, "")
    sent = value.split(" ") if header == STANDARD else [value]  # ``name_of`` reads all of other headers.
    expected = [one for secret in secrets for one in _expected(vendor, headers, body, secret, now)]
    if not any(hmac.compare_digest(one.encode(), other.encode()) for one in expected for other in sent):
        raise NotAuthenticated(f"{header} is no signature of this body by the source's secret")


def _expected(
    vendor: str, headers: Mapping[str, str], body: bytes, secret: str, now: datetime
) -> tuple[str, ...]:
    """Return the signatures that count, of which one must be there."""
    match vendor:
        case "zendesk":
            at = headers.get("x-zendesk-webhook-signature-timestamp", "")
            _check_time(at, now)
            # Zendesk's own page has the two in both orders. No body is a time, so neither can be the other.
            both = (at.encode() + body, body + at.encode())
            macs = (hmac.digest(secret.encode(), one, "sha256") for one in both)
            return tuple(base64.b64encode(mac).decode() for mac in macs)
        case "github" | "jira" | "confluence":
            return (f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}",)
        case _:
            name, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
            _check_time(at, now)
            if not name:
                raise NotAuthenticated("webhook-id is missing, by which a copy of the request is known")
            try:
                made = signed(name, body, secret=secret, at=int(at))
            except ValueError as error:
                raise NotAuthenticated(
                    "webhook-timestamp is no whole number, or the secret no base64"
                ) from error
            return (made["webhook-signature"],)


def _check_time(text: str, now: datetime) -> None:
    try:
        at = float(text) if text.isdecimal() else datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise NotAuthenticated("the time of the signature is missing, or no time") from error
    if abs(now.timestamp() - at) > WINDOW_SECONDS:
        raise NotAuthenticated(f"the time of the signature is over {WINDOW_SECONDS} seconds from now")
