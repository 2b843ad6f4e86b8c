"""Tokens of an OIDC issuer: the device grant (RFC 8628), and renewal (RFC 6749 §6)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from tunewheel_client.contexts import Tokens, put, read, try_lock, unlock
from tunewheel_client.errors import Away, NotAllowed, Refused
from tunewheel_client.target import Target
from tunewheel_client.trust import is_local
from tunewheel_client.values import DeviceCode

if TYPE_CHECKING:
    import httpx

DISCOVERY = "/.well-known/openid-configuration"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
RENEWED_SECONDS_BEFORE = 30.0
"""Seconds before its expiry at which a token is renewed."""
REQUEST_SECONDS = 10.0
LOCK_SECONDS = 0.05
LEAST_SECONDS = 0.2
"""The shortest interval between two questions, whatever the issuer says."""
SLOWER_SECONDS = 5.0
"""What ``slow_down`` adds to the interval (RFC 8628 §3.5)."""
M = TypeVar("M", bound=BaseModel)


class _Told(BaseModel):
    """What an issuer answers. Built when it is needed, so that a client without tokens starts sooner."""

    model_config = ConfigDict(defer_build=True)


class _Discovery(_Told):
    issuer: str
    token_endpoint: str
    device_authorization_endpoint: str | None = None


class _Device(_Told):
    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None = None
    expires_in: float
    interval: float = 5.0


class _Granted(_Told):
    access_token: SecretStr
    token_type: str = "Bearer"
    refresh_token: SecretStr | None = None
    expires_in: float | None = None


async def log_in_by_device(
    http: httpx.AsyncClient,
    *,
    issuer: str,
    client_id: str,
    scope: str | None,
    on_code: Callable[[DeviceCode], None],
) -> Tokens:
    """Return the tokens of the person who enters the code that ``on_code`` shows.

    Raises:
        NotAllowed: the person or the issuer refused, or nobody entered the code in time.
        Refused: the issuer knows no device grant, or its answer cannot be used.
        Away: the issuer does not answer.
    """
    found = await _discover(http, issuer)
    if found.device_authorization_endpoint is None:
        raise Refused(f"{issuer}: offers no device grant (RFC 8628); enable it there, or log in with a key")
    asked = {"client_id": client_id} | ({"scope": scope} if scope else {})
    status, body = await _post(http, found.device_authorization_endpoint, asked)
    if status != 200:
        raise _refused(issuer, body)
    device = _parsed(_Device, body, issuer)
    on_code(
        DeviceCode(
            device.verification_uri, device.user_code, device.verification_uri_complete, device.expires_in
        )
    )
    granted = await _poll(http, found.token_endpoint, device, client_id, issuer)
    return _kept(granted, Tokens(issuer=issuer, client_id=client_id, scope=scope, access_token=SecretStr("")))


async def _poll(http: httpx.AsyncClient, url: str, device: _Device, client_id: str, issuer: str) -> _Granted:
    asked = {"grant_type": DEVICE_GRANT, "device_code": device.device_code, "client_id": client_id}
    interval, ends = max(LEAST_SECONDS, device.interval), time.monotonic() + device.expires_in
    while time.monotonic() < ends:
        await asyncio.sleep(interval)
        try:
            status, body = await _post(http, url, asked)
        except Away:
            interval *= 2  # RFC 8628 §3.5: back off while the issuer does not answer
            continue
        if status == 200:
            return _parsed(_Granted, body, issuer)
        error = body.get("error")
        if error == "slow_down":
            interval += SLOWER_SECONDS
        elif error != "authorization_pending":
            raise _refused(issuer, body)
    raise NotAllowed(f"{issuer}: nobody entered the code in time; log in again", code="expired_token")


async def bearer_of(target: Target, http: httpx.AsyncClient) -> tuple[str | None, Target]:
    """Return the secret to send and the target, with tokens that were renewed if they were about to expire.

    Renewed tokens are kept in the target's file. Of several processes one renews them, because an issuer may
    accept a refresh token only once.

    Raises:
        NotAllowed: the issuer does not renew the login.
        Away: the issuer does not answer, and the old token has expired.
    """
    context = target.context
    if context.key is not None:
        return context.key.get_secret_value(), target
    if context.tokens is None:
        return None, target
    if _is_fresh(context.tokens) or context.tokens.refresh_token is None:
        return context.tokens.access_token.get_secret_value(), target
    renewed = await _renewed_once(target, http)
    told = context.model_copy(update={"tokens": renewed})
    return renewed.access_token.get_secret_value(), replace(target, context=told)


def _is_fresh(tokens: Tokens) -> bool:
    return tokens.expires_at is None or tokens.expires_at - RENEWED_SECONDS_BEFORE > time.time()


async def _renewed_once(target: Target, http: httpx.AsyncClient) -> Tokens:
    assert target.context.tokens is not None
    if target.file is None or target.name is None:
        return await _renewed(target.context.tokens, http)
    lock = try_lock(target.file)
    while lock is None:
        await asyncio.sleep(LOCK_SECONDS)
        lock = try_lock(target.file)
    try:
        kept = read(target.file).contexts.get(target.name)
        latest = (kept.tokens if kept else None) or target.context.tokens
        if latest != target.context.tokens and _is_fresh(latest):
            return latest  # another process renewed them
        renewed = await _renewed(latest, http)
        if kept is not None and renewed != latest:
            put(target.name, kept.model_copy(update={"tokens": renewed}), use=False, file=target.file)
        return renewed
    finally:
        unlock(lock)


async def _renewed(tokens: Tokens, http: httpx.AsyncClient) -> Tokens:
    if tokens.refresh_token is None:
        return tokens
    asked = {
        "grant_type": "refresh_token",
        "refresh_token": tokens.refresh_token.get_secret_value(),
        "client_id": tokens.client_id,
    }
    try:
        found = await _discover(http, tokens.issuer)
        status, body = await _post(http, found.token_endpoint, asked)
    except Away:
        if tokens.expires_at is not None and tokens.expires_at > time.time():
            return tokens
        raise
    if status != 200:
        raise _refused(tokens.issuer, body)
    return _kept(_parsed(_Granted, body, tokens.issuer), tokens)


def _kept(granted: _Granted, before: Tokens) -> Tokens:
    ends = None if granted.expires_in is None else time.time() + granted.expires_in
    told = {
        "access_token": granted.access_token,
        "refresh_token": granted.refresh_token or before.refresh_token,
        "expires_at": ends,
    }
    return before.model_copy(update=told)


async def _discover(http: httpx.AsyncClient, issuer: str) -> _Discovery:
    import httpx

    _require_safe(issuer)
    try:
        answer = await http.get(issuer.rstrip("/") + DISCOVERY, timeout=REQUEST_SECONDS)
    except httpx.TransportError as failure:
        raise Away(f"{issuer}: does not answer ({failure or type(failure).__name__})") from failure
    if answer.status_code >= 500:
        raise Away(f"{issuer}: answers status {answer.status_code}", status=answer.status_code)
    found = _parsed(_Discovery, _object(answer), issuer)
    if found.issuer.rstrip("/") != issuer.rstrip("/"):  # RFC 8414 §3.3
        raise Refused(f"{issuer}: its discovery document names another issuer; correct the wheel's setting")
    for url in (found.token_endpoint, found.device_authorization_endpoint or issuer):
        _require_safe(url)
    return found


def _require_safe(url: str) -> None:
    if not url.startswith("https://") and not is_local(url):
        raise Refused(f"{url}: tokens are sent by https alone; correct the issuer's address")


async def _post(http: httpx.AsyncClient, url: str, fields: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    import httpx

    try:
        answer = await http.post(
            url, data=fields, headers={"Accept": "application/json"}, timeout=REQUEST_SECONDS
        )
    except httpx.TransportError as failure:
        raise Away(f"{url}: does not answer ({failure or type(failure).__name__})") from failure
    if answer.status_code >= 500 or answer.status_code == 429:
        raise Away(f"{url}: answers status {answer.status_code}", status=answer.status_code)
    return answer.status_code, _object(answer)


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def _parsed(model: type[M], body: dict[str, Any], issuer: str) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:  # its message would quote the tokens
        fields = ", ".join(str(one["loc"][0]) for one in error.errors(include_input=False))
        raise Refused(f"{issuer}: its answer cannot be used: {fields} is missing or wrong") from None


def _refused(issuer: str, body: Mapping[str, Any]) -> NotAllowed:
    code = str(body.get("error", "refused"))
    said = str(body.get("error_description") or code)[:300]
    return NotAllowed(f"{issuer}: {said}; log in again", code=code)
