"""Everybody who may call: by key and by token, in every role and every scope, and those who are nobody."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.identity.guard import Need
from tunewheel_runtime.identity.roles import Role
from tunewheel_testing.oidc_issuer import Issuer, make_key

from .identity_samples import PROJECT, Sample

ROLES: Mapping[Role, set[Role]] = {
    Role.VIEWER: {Role.VIEWER},
    Role.PUBLISHER: {Role.PUBLISHER},
    Role.EXPERT: {Role.EXPERT},
    Role.APPLICATION: {Role.APPLICATION},
    Role.REVIEWER: {Role.REVIEWER, Role.VIEWER},
    Role.OPERATOR: {Role.OPERATOR, Role.VIEWER},
}
"""What each role lets its holder do: reviewers and operators read."""
SCOPES: Mapping[str, list[str] | None] = {"held": [PROJECT], "not-held": ["shop"], "all": None}
NEVER = 9_999_999_999
"""When tokens end, in seconds since 1970."""


@dataclass(frozen=True)
class Credential:
    """Shown by one who has ``role`` in ``scope``; without a role, by a stranger."""

    name: str
    authorization: str | None
    role: Role | None = None
    scope: str = ""
    stranger: int = 401
    """The status that strangers are answered with."""

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": self.authorization} if self.authorization is not None else {}

    def has(self, need: Need) -> bool:
        """Return whether the role is one that ``need`` names, wherever."""
        return self.role is not None and not ROLES[self.role].isdisjoint(need.roles)

    def expected(self, need: Need, sample: Sample) -> int:
        """Return the status that a request is to be answered with."""
        if not need.roles:
            return sample.status
        if self.role is None:
            return self.stranger
        if not self.has(need):
            return 403
        if need.everywhere and self.scope != "all":
            return 403
        return sample.status if self.scope != "not-held" or sample.refused is None else sample.refused


NOBODY = Credential("no credentials", None)
FOREIGNER = Credential("every role in shop", "Bearer key of everything-not-held")


def write_keys(path: Path) -> Path:
    """Write a file with a key and a group for every role in every scope."""
    grants: dict[str, Any] = {
        f"{role.value}-{scope}": {"roles": [role.value]} | ({"projects": projects} if projects else {})
        for role, (scope, projects) in itertools.product(Role, SCOPES.items())
    }
    grants["everything-not-held"] = {"roles": [role.value for role in Role], "projects": SCOPES["not-held"]}
    keys = {name: {"sha256": content_sha256(f"key of {name}".encode()), **g} for name, g in grants.items()}
    path.write_text(yaml.safe_dump({"keys": keys, "groups": grants}))
    return path


def holders(issuer: Issuer) -> Iterator[Credential]:
    for role, scope in itertools.product(Role, SCOPES):
        name = f"{role.value}-{scope}"
        token = issuer.token("ada", [name], exp=NEVER)
        yield Credential(f"the key of {name}", f"Bearer key of {name}", role, scope)
        yield Credential(f"a token of {name}", f"Bearer {token}", role, scope)


def strangers(issuer: Issuer) -> Iterator[Credential]:
    powerful = ("ada", ["operator-all"])
    forger = make_key("ES256", issuer.key.kid)
    secrets = {
        "an unknown key": "nobody-knows-me",
        "an empty key": "",
        "the name of a key": "operator-all",
        "a token that has ended": issuer.token(*powerful, exp=1_000_000_000),
        "a token for somebody else": issuer.token(*powerful, exp=NEVER, aud="another-service"),
        "a token of another issuer": issuer.token(*powerful, exp=NEVER, iss="https://login.example.org"),
        "a token that another key signed": issuer.token(*powerful, exp=NEVER, key=forger),
        "a token without a signature": issuer.forged(*powerful, algorithm="none"),
        "a token signed by a public key": issuer.forged(*powerful, algorithm="HS256"),
    }
    for name, secret in secrets.items():
        yield Credential(name, f"Bearer {secret}")
    yield Credential("another scheme", "Basic b3BlcmF0b3ItYWxsOg==")
    powerless = issuer.token("ada", ["operators"], exp=NEVER)
    yield Credential("a token of a group without a role", f"Bearer {powerless}", stranger=403)
