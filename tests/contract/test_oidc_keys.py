"""The keys of a real OIDC issuer: fetched, kept, rotated, withdrawn, and an issuer that is away or wrong."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tunewheel_runtime.identity.roles import IssuerAway
from tunewheel_runtime.identity.signing_keys import (
    FETCH_SECONDS,
    HOLD_SECONDS,
    MAX_BYTES,
    PAUSE_SECONDS,
    REFRESH_SECONDS,
    STALE_SECONDS,
    WARNING,
)
from tunewheel_testing.oidc_issuer import DISCOVERY, KEYS, Issuer, encoded, make_key
from tunewheel_testing.waiting import until

from ..integration.secured_kafka import Authority
from .oidc_world import World


async def test_keys_rotate_while_the_service_runs(world: World, issuer: Issuer) -> None:
    old = issuer.token("ada")
    assert await world.name(old) == "ada"
    issuer.rotate("RS256", keep=1)
    world.clock.now += PAUSE_SECONDS
    assert await world.name(issuer.token("bob")) == "bob", "an unknown key is asked for"
    assert await world.name(old) == "ada"
    issuer.rotate("ES256")
    world.clock.now += REFRESH_SECONDS + 1
    assert await world.name(old) == "ada", "nobody waits while keys are fetched anew"
    await world.fetched()
    assert "does not have the key" in await world.refusal(old), "it was withdrawn"
    assert await world.name(issuer.token("bob")) == "bob"


async def test_a_key_that_was_withdrawn_while_nobody_came_is_refused_to_the_first_who_comes(
    world: World, issuer: Issuer
) -> None:
    old = issuer.token("ada")
    assert await world.name(old) == "ada"
    issuer.rotate()
    world.clock.now += STALE_SECONDS + 1
    assert "does not have the key" in await world.refusal(old)


async def test_nobody_waits_twice_for_an_issuer_that_is_away(world: World, issuer: Issuer) -> None:
    known = issuer.token("ada")
    assert await world.name(known) == "ada"
    issuer.stop()
    world.clock.now += STALE_SECONDS + 1
    assert await world.name(known) == "ada", "it was waited for"
    issuer.start()
    issuer.answering.clear()
    world.clock.now += PAUSE_SECONDS
    assert await world.name(known) == "ada"
    assert world.access.begin() is not None, "it is being asked"


async def test_tokens_of_unknown_keys_neither_hammer_the_issuer_nor_hold_up_others(
    world: World, issuer: Issuer
) -> None:
    good = issuer.token("ada")
    assert await world.name(good) == "ada"
    asked = len(issuer.asked)
    issuer.answering.clear()
    world.clock.now += PAUSE_SECONDS
    flood = [
        asyncio.create_task(world.refusal(issuer.token("eve", header={"kid": str(n)}))) for n in range(300)
    ]
    await until(lambda: len(issuer.asked) != asked)
    assert [await world.name(good) for _ in range(20)] == ["ada"] * 20
    assert not any(task.done() for task in flood), "the issuer has not answered yet"
    issuer.answering.set()
    assert {*await asyncio.gather(*flood)} == {
        "the issuer does not have the key that this token names; get a new token"
    }
    for n in range(300):
        await world.refusal(issuer.token("eve", header={"kid": f"late-{n}"}))
    assert issuer.asked[asked:] == [DISCOVERY, KEYS]


async def test_an_issuer_that_is_away_at_the_start_is_told_and_asked_again(
    world: World, issuer: Issuer
) -> None:
    issuer.stop()
    world.access.begin()
    for _ in range(3):
        with pytest.raises(IssuerAway, match="try again in 10 seconds, or send an API key"):
            await world.name(issuer.token("ada"))
    assert issuer.url in (world.warned[WARNING] or "")
    assert await world.name("k-ada") == "ada", "keys are taken as ever"
    issuer.start()
    with pytest.raises(IssuerAway):
        await world.name(issuer.token("ada"))
    world.clock.now += PAUSE_SECONDS
    assert await world.name(issuer.token("ada")) == "ada"
    assert world.warned[WARNING] is None


async def test_known_keys_hold_for_a_day_without_the_issuer(world: World, issuer: Issuer) -> None:
    known = issuer.token("ada")
    assert await world.name(known) == "ada"
    issuer.stop()
    world.clock.now += HOLD_SECONDS - PAUSE_SECONDS
    assert await world.name(known) == "ada"
    assert "the keys fetched before are used for 24 hours" in (world.warned[WARNING] or "")
    assert await world.name(known) == "ada"
    with pytest.raises(IssuerAway):
        await world.name(issuer.token("ada", header={"kid": "new"}))
    world.clock.now += PAUSE_SECONDS + 1
    with pytest.raises(IssuerAway):
        await world.name(known)


async def test_an_issuer_that_never_answers_is_given_up(
    world: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewheel_runtime.identity.signing_keys.FETCH_SECONDS", 0.05)
    assert FETCH_SECONDS <= 10
    issuer.answering.clear()
    with pytest.raises(IssuerAway):
        await world.name(issuer.token("ada"))
    assert "does not answer within" in (world.warned[WARNING] or "")


def told(body: object, status: int = 200, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    return status, body if isinstance(body, bytes) else json.dumps(body).encode(), headers


FAULTS = {
    "a redirect": (DISCOVERY, told(b"", 302, Location="http://127.0.0.1/"), "redirects to another"),
    "a redirect of the keys": (KEYS, told(b"", 307, Location="http://127.0.0.1/"), "redirects to another"),
    "an error": (DISCOVERY, told(b"", 500), "answers with status 500"),
    "no JSON": (KEYS, told(b"<html>"), "does not answer with a JSON object that has keys"),
    "deep JSON": (KEYS, told(b"[" * 9000), "does not answer with a JSON object that has keys"),
    "compressed": (KEYS, told(b"\x1f\x8b0", **{"Content-Encoding": "gzip"}), "does not answer with"),
    "without end": (KEYS, told(b" " * (MAX_BYTES + 1)), f"more than {MAX_BYTES} bytes"),
    "another issuer": (DISCOVERY, told({"issuer": "https://x.example", "jwks_uri": "https://x.example"}),
                       "names another issuer"),
    "no address of keys": (DISCOVERY, told({"issuer": "x"}), "that has issuer and jwks_uri"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_no_issuer_should_answer_is_told_by_address(
    world: World, issuer: Issuer, fault: str
) -> None:
    path, issuer.answers[path], said = FAULTS[fault]
    with pytest.raises(IssuerAway):
        await world.name(issuer.token("ada"))
    assert said in (world.warned[WARNING] or "")
    assert issuer.url in (world.warned[WARNING] or "")
    issuer.answers.clear()
    world.clock.now += PAUSE_SECONDS
    assert await world.name(issuer.token("ada")) == "ada"


@pytest.mark.parametrize(
    "address", ["http://keys.example/", "ftp://127.0.0.1/", "/keys", "http://[", "https://a@b/"]
)
async def test_keys_come_over_https_or_from_this_machine(world: World, issuer: Issuer, address: str) -> None:
    issuer.answers[DISCOVERY] = told({"issuer": issuer.url, "jwks_uri": address})
    with pytest.raises(IssuerAway):
        await world.name(issuer.token("ada"))
    assert "jwks_uri " in (world.warned[WARNING] or "")


async def test_over_https_an_issuer_is_trusted_by_its_authority(tmp_path: Path, key_file: Path) -> None:
    authority = Authority(tmp_path / "authority", "an authority that no system knows")
    with Issuer("ES256", certificate=authority.issue("127.0.0.1")) as issuer:
        stranger = World(issuer, key_file)
        with pytest.raises(IssuerAway):
            await stranger.name(issuer.token("ada"))
        assert "name its authority in TUNEWHEEL_OIDC_CAFILE" in (stranger.warned[WARNING] or "")
        assert await World(issuer, key_file, oidc_cafile=authority.cafile).name(issuer.token("ada")) == "ada"


@pytest.mark.filterwarnings("ignore:Key size should be")
async def test_keys_that_cannot_be_used_hide_no_other(world: World, issuer: Issuer) -> None:
    weak = make_key("RS256", "weak", bits=1024)
    secret = {"kty": "oct", "kid": "secret", "k": encoded(b"s" * 32)}
    junk: list[object] = [5, {}, {"kty": "AKP"}, {"kty": "RSA", "n": 1}, {"kty": "RSA", "key_ops": 5}, secret]
    encrypting = {**issuer.key.jwk(), "use": "enc", "kid": "enc"}
    issuer.answers[KEYS] = told({"keys": [*junk, weak.jwk(), encrypting, issuer.key.jwk()]})
    assert await world.name(issuer.token("ada")) == "ada"
    assert "does not have the key" in await world.refusal(issuer.token("ada", key=weak))
    assert "does not have the key" in await world.refusal(issuer.token("ada", header={"kid": "enc"}))


async def test_an_issuer_without_keys_lets_nobody_in(world: World, issuer: Issuer) -> None:
    issuer.answers[KEYS] = told({"keys": []})
    assert "does not have the key" in await world.refusal(issuer.token("ada"))
    assert "has no key" in (world.warned[WARNING] or "")


async def test_without_a_name_the_only_key_of_its_type_is_meant(world: World, issuer: Issuer) -> None:
    nameless = issuer.token("ada", header={"kid": None})
    issuer.rotate("RS256", keep=1)
    assert await world.name(nameless) == "ada"
    issuer.rotate("ES256", keep=2)
    world.clock.now += REFRESH_SECONDS + 1
    await world.name(nameless)
    await world.fetched()
    assert "does not have the key" in await world.refusal(nameless)


async def test_the_address_of_the_keys_can_be_set(issuer: Issuer, key_file: Path) -> None:
    world = World(issuer, key_file, oidc_jwks_url=issuer.url + KEYS)
    assert await world.name(issuer.token("ada")) == "ada"
    assert issuer.asked == [KEYS]


def test_one_access_serves_any_number_of_event_loops(world: World, issuer: Issuer, key_file: Path) -> None:
    """Made before a loop runs, and used in several, one after another."""
    for turn in range(3):
        world.clock.now += REFRESH_SECONDS + 1
        key_file.write_text(key_file.read_text() + "\n")

        async def callers() -> list[str | None]:
            names = [world.name(secret) for secret in (issuer.token("ada"), "k-ada") * 5]
            return await asyncio.gather(*names)

        assert asyncio.run(callers()) == ["ada"] * 10, turn
