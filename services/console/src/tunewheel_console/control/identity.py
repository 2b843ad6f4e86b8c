"""Routes that say where to log in and who the caller is; and ``/v1/keys``, the file of API keys, where the
console may change it. No answer holds a hash."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, TypeVar

import structlog
from fastapi import Body, FastAPI, Query, Request
from tunewheel_contracts.api.identity import Addresses, Login, Me, OidcLogin, RolesIn
from tunewheel_contracts.api.keys import Key, KeyOrder, Keys, NewKey, RotationOrder
from tunewheel_runtime.identity import key_file
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import asks_nobody, caller_of, needs
from tunewheel_runtime.identity.key_file import KeyFileUnwritable, KeyRefused, KeyTaken, UnknownKey
from tunewheel_runtime.identity.keys import ApiKey, InvalidKeys
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused

from tunewheel_console.logins import LoginLinks
from tunewheel_console.settings import Settings


def add_identity(api: FastAPI, settings: Settings) -> None:
    """Add ``GET /v1/login``, which answers anybody, and ``GET /v1/me``, for callers with any role."""
    release = version("tunewheel-console")
    addresses = Addresses(
        gateway=settings.public_gateway_url,
        ingest=settings.public_ingest_url,
        console=settings.public_console_url,
    )
    login = Login(version=release, oidc=_oidc(settings))

    @api.get("/v1/login")
    @asks_nobody
    async def where_to_log_in() -> Login:
        """How to log in here. The answer is the same for everybody and needs no key."""
        return login

    @api.get("/v1/me")
    @needs(*Role)
    async def me(request: Request) -> Me:
        """Who the caller is, what they may do in which project, and the addresses of the wheel's doors."""
        caller = caller_of(request)
        grants = tuple(
            RolesIn(
                roles=tuple(role.value for role in Role if role in grant.roles),
                projects=None if grant.projects is None else tuple(sorted(grant.projects)),
            )
            for grant in caller.grants
        )
        issuer = caller.principal.issuer if caller.principal else None
        return Me(name=caller.name, issuer=issuer, grants=grants, version=release, addresses=addresses)


def _oidc(settings: Settings) -> OidcLogin | None:
    if settings.oidc_issuer is None or settings.oidc_client_id is None:
        return None
    return OidcLogin(
        issuer=settings.oidc_issuer, client_id=settings.oidc_client_id, scope=settings.oidc_scope
    )


log = structlog.get_logger(__name__)
T = TypeVar("T")
READ_ONLY = "is read-only here: change it where it is mounted from"
NAMED = "/v1/keys/{name}"


def add_keys(api: FastAPI, path: Path | None) -> None:
    """Add the routes, for operators of all projects. ``path``: the file of keys."""

    async def change(edit: Callable[[Path], T]) -> T:
        if path is None or not may_write(path):
            raise Refused(HTTPStatus.CONFLICT, "file", READ_ONLY)
        return await asyncio.to_thread(_told, partial(edit, path))

    @api.get("/v1/keys")
    @needs(Role.OPERATOR, everywhere=True)
    async def list_keys() -> Keys:
        """Who has a key, and what each may do."""
        if path is None:
            return Keys(keys=(), writable=False)
        file = await asyncio.to_thread(_told, partial(key_file.read, path))
        found = tuple(_key(name, entry) for name, entry in file.keys.items())
        return Keys(keys=found, groups=tuple(file.groups), writable=may_write(path))

    @api.post("/v1/keys", status_code=HTTPStatus.CREATED)
    @needs(Role.OPERATOR, everywhere=True)
    async def add_key(request: Request, order: KeyOrder) -> NewKey:
        """Make a key. The answer tells it, once; services take it within seconds."""
        if not order.roles and not order.groups:
            reason = "are missing, and so are groups; say what the key may do"
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "roles", reason)
        told = order.model_dump(exclude={"name"})
        key = await change(lambda file: key_file.add(file, order.name, **told))
        log.info("key_added", name=order.name, by=caller_of(request).name, **told)
        return NewKey(name=order.name, key=key)

    @api.post(f"{NAMED}/rotate")
    @needs(Role.OPERATOR, everywhere=True)
    async def rotate_key(
        request: Request, name: str, order: Annotated[RotationOrder, Body()] = RotationOrder()
    ) -> NewKey:
        """Give a name a new key. The one before ends within seconds, unless it is kept."""
        if not order.keep_old:
            _require_another(request, name, "keep the old one (keep_old), then revoke it")
        key = await change(lambda file: key_file.rotate(file, name, keep_old=order.keep_old))
        log.info("key_rotated", name=name, by=caller_of(request).name, keep_old=order.keep_old)
        return NewKey(name=name, key=key)

    @api.delete(NAMED, status_code=HTTPStatus.NO_CONTENT)
    @needs(Role.OPERATOR, everywhere=True)
    async def revoke_key(
        request: Request,
        name: str,
        old_only: Annotated[bool, Query(description="Only the keys before the newest one.")] = False,
    ) -> None:
        """Take a key away: within seconds no service knows it."""
        if not old_only:
            _require_another(request, name, "let another operator revoke it")
        await change(lambda file: key_file.revoke(file, name, old_only=old_only))
        log.info("key_revoked", name=name, by=caller_of(request).name, old_only=old_only)


def may_write(path: Path) -> bool:
    """Return whether this process can replace the file, which takes a new file in its folder."""
    return os.access(path.resolve().parent, os.W_OK)


def _require_another(request: Request, name: str, advice: str) -> None:
    """Refuse to end the key that the caller uses: they would lock themselves out."""
    principal = caller_of(request).principal
    if principal is not None and principal.issuer is None and principal.name == name:
        raise Refused(HTTPStatus.CONFLICT, "name", f"{name!r} is the key that you use; {advice}")


def _told(change: Callable[[], T]) -> T:
    try:
        return change()
    except KeyRefused as error:
        known: dict[type[KeyRefused], HTTPStatus] = {
            KeyTaken: HTTPStatus.CONFLICT,
            UnknownKey: HTTPStatus.NOT_FOUND,
        }
        status = known.get(type(error), HTTPStatus.UNPROCESSABLE_ENTITY)
        raise Refused(status, error.field, error.reason) from error
    except KeyFileUnwritable as error:
        raise Refused(HTTPStatus.CONFLICT, "file", READ_ONLY) from error
    except InvalidKeys as error:
        raise Refused(HTTPStatus.CONFLICT, "file", str(error)) from error


def _key(name: str, entry: ApiKey) -> Key:
    return Key(
        name=name,
        roles=tuple(role.value for role in entry.roles),
        projects=entry.projects,
        groups=entry.groups,
        limits=None if entry.limits is None else entry.limits.model_dump(mode="json", exclude_none=True),
        keys=len(entry.sha256),
    )


def add_login_links(api: FastAPI, links: LoginLinks, access: Access) -> None:
    """Add ``POST /v1/login-links``. Status 201 with ``path``, a link that logs a browser in once, and
    ``expires_at``. 409: identity is open, so nobody logs in."""

    @api.post("/v1/login-links", status_code=HTTPStatus.CREATED)
    @needs(Role.VIEWER)
    async def make_login_link(request: Request) -> dict[str, str]:
        """A link that logs a browser in, once, as the key that asks for it."""
        if access.is_open:
            raise Refused(HTTPStatus.CONFLICT, None, "identity is open: the page asks nobody to log in")
        # a session's cookie does not suffice for another session
        credential = await access.credential(request.headers.get("authorization"))
        secret, ends = links.make(credential)
        return {"path": f"/login?link={secret}", "expires_at": datetime.fromtimestamp(ends, UTC).isoformat()}
