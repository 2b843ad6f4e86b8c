"""Routes that say where to log in, and who the caller is."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Request
from tunewheel_contracts.api.identity import Addresses, Login, Me, OidcLogin, RolesIn
from tunewheel_runtime.identity.guard import asks_nobody, caller_of, needs
from tunewheel_runtime.identity.roles import Role

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
