"""Logins by key and by device grant, and tokens that are renewed, beside a real issuer."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from tunewheel_client import Client, contexts, login, login_async
from tunewheel_client.errors import Away, NoAddress, NotAllowed, Refused
from tunewheel_client.target import resolve
from tunewheel_testing.oidc_issuer import TOKEN, Issuer

KEY = "tw_ada"
LOGINS = pytest.mark.parametrize("log_in", [login, login_async], ids=["sync", "async"])


def enters(issuer: Issuer, *, name: str = "grace") -> Any:
    """Return what shows a code to somebody who enters it at once."""

    def on_code(device: Any) -> None:
        issuer.logins[device.code] = (name, ["leads"])

    return on_code


@LOGINS
async def test_a_key_is_checked_and_kept_with_the_addresses(wheel: str, log_in: Any, done: Any):
    made = await done(log_in(wheel, as_="prod", key=KEY, project="desk"))
    assert contexts.read().contexts["prod"] == made
    assert (made.name, made.project, made.addresses.gateway) == ("ada", "desk", "http://gateway.example")
    assert contexts.read().current == "prod"


@LOGINS
async def test_a_login_that_fails_leaves_the_old_one(wheel: str, log_in: Any, done: Any):
    await done(log_in(wheel, as_="prod", key=KEY))
    before = contexts.path().read_bytes()
    with pytest.raises(NotAllowed):
        await done(log_in(wheel, as_="prod", key="tw_wrong"))
    with pytest.raises(Away):
        await done(log_in("http://127.0.0.1:1", as_="prod", key=KEY))
    with pytest.raises(Refused, match="exactly one"):
        await done(log_in(wheel, as_="prod"))
    with pytest.raises(NoAddress, match="copy the key again"):
        await done(log_in(wheel, as_="prod", key="tw_é"))
    assert contexts.path().read_bytes() == before


@LOGINS
async def test_a_person_logs_in_by_entering_a_code(wheel: str, issuer: Issuer, log_in: Any, done: Any):
    issuer.answers_to_polls = ["authorization_pending", "authorization_pending"]
    made = await done(log_in(wheel, as_="prod", device=True, on_code=enters(issuer)))
    assert (made.name, made.key) == ("grace", None)
    assert contexts.read().contexts["prod"].tokens == made.tokens
    with Client() as client:
        assert client.me().name == "grace"


@pytest.mark.parametrize("error", ["access_denied", "expired_token"])
def test_a_person_who_refuses_is_not_logged_in(wheel: str, issuer: Issuer, error: str):
    issuer.answers_to_polls = [error]
    with pytest.raises(NotAllowed) as refused:
        login(wheel, as_="prod", device=True, on_code=enters(issuer))
    assert refused.value.code == error
    assert contexts.read().contexts == {}


def test_an_issuer_that_asks_for_patience_gets_it(
    wheel: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tunewheel_client.sync.tokens.SLOWER_SECONDS", 0.01)
    waits: list[float] = []
    monkeypatch.setattr("tunewheel_client.sync.tokens.time.sleep", waits.append)
    issuer.answers_to_polls = ["slow_down", "authorization_pending", "slow_down"]
    login(wheel, as_="prod", device=True, on_code=enters(issuer))
    assert [wait for wait in waits if wait < 1] == pytest.approx([0.2, 0.21, 0.21, 0.22]), "it said 0"


def test_a_token_is_renewed_before_it_ends_and_kept(wheel: str, issuer: Issuer, make_client: Any):
    issuer.lasting = 20  # less than is left at a renewal
    first = login(wheel, as_="prod", device=True, on_code=enters(issuer)).tokens
    issuer.lasting = 300
    with Client() as client:
        assert client.me().name == "grace"
        assert client.me().name == "grace"
    renewed = contexts.read().contexts["prod"].tokens
    assert renewed is not None
    assert renewed != first
    assert renewed.expires_at is not None
    assert renewed.expires_at > time.time() + 200
    assert list(issuer.refreshes) == [renewed.refresh_token.get_secret_value()]  # type: ignore[union-attr]


def test_of_many_clients_one_renews(wheel: str, issuer: Issuer):
    issuer.lasting = 20
    login(wheel, as_="prod", device=True, on_code=enters(issuer))
    issuer.lasting, issuer.asked = 300, []
    names: list[str | None] = []

    def ask() -> None:
        with Client() as client:
            names.append(client.me().name)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert names == ["grace"] * 6
    assert issuer.asked.count(TOKEN) == 1


def test_a_login_that_the_issuer_ended_must_be_made_again(wheel: str, issuer: Issuer):
    issuer.lasting = 20
    login(wheel, as_="prod", device=True, on_code=enters(issuer))
    issuer.refreshes.clear()
    with Client() as client, pytest.raises(NotAllowed, match="log in again"):
        client.me()


def test_a_valid_token_is_sent_while_the_issuer_is_away(
    wheel: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tunewheel_client.sync.tokens.RENEWED_SECONDS_BEFORE", 600.0)
    issuer.lasting = 300
    login(wheel, as_="prod", device=True, on_code=enters(issuer))
    issuer.stop()
    with Client() as client:
        assert client.me().name == "grace"


async def test_waiting_for_another_renewal_blocks_nobody(wheel: str, issuer: Issuer):
    from tunewheel_client import AsyncClient
    from tunewheel_client.contexts import try_lock, unlock

    issuer.lasting = 20
    login(wheel, as_="prod", device=True, on_code=enters(issuer))
    lock = try_lock(contexts.path())
    assert lock is not None
    async with AsyncClient() as client:
        asking = asyncio.create_task(client.me())
        await asyncio.sleep(0.2)
        assert not asking.done()
        unlock(lock)
        assert (await asking).name == "grace"


def test_tokens_go_to_no_plain_http_address_elsewhere(wheel: str, issuer: Issuer):
    from tunewheel_client.sync import tokens

    with pytest.raises(Refused, match="https"):
        tokens._require_safe("http://issuer.example/token")
    assert resolve(wheel).context.tokens is None
