"""Passes by which the console asks another service as the person of a session."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import LOOK_SECONDS, Access, Credential
from tunewheel_runtime.identity.command_keys import retire_key
from tunewheel_runtime.identity.passes import LEEWAY_SECONDS, SECONDS, Passes
from tunewheel_runtime.identity.roles import InvalidToken, NotAuthenticated, Role
from tunewheel_runtime.settings import HttpSettings
from tunewheel_testing.clock import Clock
from tunewheel_testing.command_keys import CommandKeys


class World:
    """The console and the gateway, with a file of keys that both read."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock(1_000_000.0)
        self.keys = CommandKeys(folder)
        self.file = folder / "keys.json"
        self.write("k-ann")
        self.gateway = self.access("serve-gateway")

    def write(self, key: str) -> None:
        entry = {"sha256": hashlib.sha256(key.encode()).hexdigest(), "roles": ["application"]}
        self.file.write_text(json.dumps({"keys": {"ann": entry | {"projects": ["desk"]}}}))
        self.clock.now += LOOK_SECONDS

    def passes(self, service: str) -> Passes:
        return Passes(service, self.keys.of(service), clock=self.clock)

    def access(self, service: str, **settings: Any) -> Access:
        told = {"identity": "required", "api_keys_file": self.file} | settings
        made = Access(HttpSettings.model_validate(told), warn=lambda *_: None, clock=self.clock)
        made.read_pass = self.passes(service).read
        return made

    async def of_ann(self, audience: str = "serve-gateway", by: str = "console") -> str:
        credential = await self.gateway.credential("Bearer k-ann")
        made = self.passes(by).authorization(credential, audience)
        assert made is not None
        return made


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_pass_gives_the_rights_of_the_key_that_began_the_session_and_no_others(world: World):
    caller = await world.gateway.identify(await world.of_ann())
    assert caller.name == "ann"
    assert [caller.may(Role.APPLICATION, project) for project in ("desk", "other")] == [True, False]
    assert not caller.may(Role.OPERATOR, "desk")


async def test_a_pass_ends_with_its_minute_or_with_the_key(world: World):
    made = await world.of_ann()
    world.write("k-new")
    with pytest.raises(NotAuthenticated, match="changed or removed"):
        await world.gateway.identify(made)
    world.write("k-ann")
    assert (await world.gateway.identify(made)).name == "ann"
    world.clock.now += SECONDS + LEEWAY_SECONDS
    with pytest.raises(InvalidToken, match="expired"):
        await world.gateway.identify(made)


@pytest.mark.parametrize(
    ("made_by", "audience", "reason"),
    [
        ("console", "registry", "is for registry"),
        ("curate", "serve-gateway", "no pass that the console signed"),
        ("serve-gateway", "serve-gateway", "no pass that the console signed"),
    ],
)
async def test_a_pass_for_another_service_or_by_another_one_counts_nothing(
    world: World, made_by: str, audience: str, reason: str
):
    with pytest.raises(InvalidToken, match=reason):
        await world.gateway.identify(await world.of_ann(audience, by=made_by))


async def test_a_pass_that_was_changed_or_is_another_kind_of_signature_counts_nothing(world: World):
    head, payload, signature = (await world.of_ann()).partition(" ")[2].split(".")
    claims = {
        "audience": "serve-gateway", "expires_at": 9e9, "credential": {"principal": {"name": "ops"}},
    }  # fmt: skip
    other = world.keys.of("console").signature(json.dumps(claims).encode())
    assert other is not None
    forged = other.decode().split(".")[1]
    for token in (f"{head}.{forged}.{signature}", other.decode(), f"{head}.{payload}", "", "x.y.z"):
        with pytest.raises(InvalidToken):
            await world.gateway.identify(f"Tunewheel-Pass {token}")


async def test_a_key_that_the_console_no_longer_uses_signs_no_pass(world: World):
    made = await world.of_ann()
    retire_key(world.keys.file, json.loads(world.keys.private["console"])["kid"], {})
    with pytest.raises(InvalidToken, match="in use"):
        await world.gateway.identify(made)


async def test_a_pass_is_no_key_that_begins_another_session(world: World):
    with pytest.raises(NotAuthenticated):
        await world.gateway.credential(await world.of_ann())


async def test_a_token_of_an_issuer_that_a_service_does_not_trust_gives_no_role(world: World):
    credential = Credential(principal=Principal(name="eve", issuer="https://elsewhere", groups=("ops",)))
    made = world.passes("console").authorization(credential, "serve-gateway")
    assert (await world.gateway.identify(made)).grants == ()


def test_a_console_without_a_key_makes_no_pass(world: World):
    passes = Passes("console", world.keys.of("console", signing_key=None))
    assert passes.authorization(Credential(principal=Principal(name="ann")), "registry") is None
