"""Webhooks of other systems: who signed counts, what they say is mapped, and a copy changes nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tunewheel_contracts.formats.source_spec import SourceSpec
from tunewheel_ingest.door.app import make_api
from tunewheel_ingest.sources.signatures import check
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.identity.roles import NotAuthenticated
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.webhooks import signed

from .conftest import LIMITS, Log, client_of

SECRET = "a-secret-of-the-desk"
MAPPING: dict[str, Any] = {
    "kind": "ticket", "each": "cases || [@]",
    "map": {"ticket_id": "no", "body": "text", "answer": "solution"},
}  # fmt: skip
SOURCES = {
    "own": SourceSpec(name="own", webhook="hmac", **MAPPING),
    "hub": SourceSpec(name="hub", webhook="github", use="github", trust="expert"),
    "file": SourceSpec(name="file", **MAPPING),
}
ISSUE = {
    "action": "created",
    "issue": {"number": 2, "title": "Bell", "body": "It is silent.", "user": {"login": "c"}},
    "comment": {"body": "Charge it.", "user": {"login": "m"}, "author_association": "OWNER"},
    "repository": {"full_name": "o/r"},
}  # fmt: skip
NOON = "2026-05-01T12:00:00Z"
REPOSITORY = {"repository": ISSUE["repository"]}


class Sourced(Log):
    def source(self, project: str, name: str) -> SourceSpec | None:
        return SOURCES.get(name) if project == "p" else None


@pytest.fixture
def log() -> Sourced:
    return Sourced()


@pytest.fixture
async def hooks(log: Sourced, store: ObjectStore, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The door where callers need keys; it holds the secrets of two sources."""
    held = tmp_path / "secrets.yaml"
    held.write_text(yaml.safe_dump({"p/own": [SECRET, "the-next-secret"], "p/hub": SECRET}))
    app = make_api(log, store, **LIMITS, source_secrets=held)
    keys = tmp_path / "keys.yaml"
    keys.write_text(yaml.safe_dump({"keys": {"k": {"sha256": "0" * 64, "roles": ["publisher"]}}}))
    guard(app.routes, Access(HttpSettings(api_keys_file=keys), warn=print))
    async with client_of(app) as client:
        yield client


def own(body: bytes, *, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    return signed("m-1", body, secret=secret, at=int(time.time() if at is None else at))


def hub(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={hmac.digest(secret.encode(), body, hashlib.sha256).hex()}"}


async def post(hooks: httpx.AsyncClient, name: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    sent = {"content-type": "application/json", **headers}
    return await hooks.post(f"/v1/projects/p/sources/{name}", content=body, headers=sent)


async def test_a_signed_body_becomes_events_in_the_name_of_its_source(
    hooks: httpx.AsyncClient, log: Sourced
) -> None:
    body = json.dumps({"cases": [{"no": 7, "text": "Hi"}, {"no": 8}]}).encode()
    answer = await post(hooks, "own", body, own(body))
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 1
    assert [(one["line"], one["field"]) for one in answer.json()["refused"]] == [(2, "body")]
    (event,) = log.events
    assert (event.data.ticket_id, event.data.principal.name, event.data.principal.issuer) == (
        "7",
        "p/own",
        "source",
    )
    assert event.data.authority == "unverified"


async def test_a_source_grants_the_trust_of_its_spec(hooks: httpx.AsyncClient, log: Sourced) -> None:
    body = json.dumps(ISSUE).encode()
    assert (await post(hooks, "hub", body, hub(body))).status_code == 202
    assert (log.events[0].data.authority, log.events[0].data.validated_by) == ("expert", "m")


async def test_a_copy_of_a_request_changes_nothing(hooks: httpx.AsyncClient, log: Sourced) -> None:
    body = json.dumps(ISSUE).encode()
    first, again = [await post(hooks, "hub", body, hub(body)) for _ in range(2)]
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(log.events) == 1


async def test_a_version_that_is_delivered_after_the_deletion_of_its_ticket_stays_withdrawn(
    hooks: httpx.AsyncClient, log: Sourced
) -> None:
    def said(at: str) -> bytes:
        return json.dumps(ISSUE | {"comment": ISSUE["comment"] | {"updated_at": at}}).encode()

    issue = ISSUE["issue"] | {"updated_at": NOON}
    deleted = json.dumps({"action": "deleted", "issue": issue} | REPOSITORY).encode()
    later = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    for body in (said(NOON), deleted, said("2026-05-01T11:00:00Z"), said(later)):
        assert (await post(hooks, "hub", body, hub(body))).status_code == 202
    first, withdrawal, retried, new = log.events
    assert withdrawal.data.kind == "ticket"
    assert max(first.time, retried.time) <= withdrawal.time < new.time
    assert retried.time == datetime(2026, 5, 1, 11, tzinfo=UTC)


async def test_a_copy_with_more_in_its_header_of_signatures_changes_nothing(
    hooks: httpx.AsyncClient, log: Sourced
) -> None:
    for name, header, body in (
        ("hub", "X-Hub-Signature-256", json.dumps(ISSUE).encode()),
        ("own", "webhook-signature", b'{"no": 1, "text": "Hi"}'),
    ):
        headers = own(body) if name == "own" else hub(body)
        assert (await post(hooks, name, body, headers)).status_code == 202
        taken = len(log.events)
        for more in (f"{headers[header]} v1,AAAA", f"{'x' * 255} {headers[header]}"):
            await post(hooks, name, body, headers | {header: more})
        assert len(log.events) == taken


async def test_both_secrets_count_while_one_is_replaced(hooks: httpx.AsyncClient) -> None:
    body = b'{"no": 1, "text": "Hi"}'
    assert (await post(hooks, "own", body, own(body, secret="the-next-secret"))).status_code == 202


async def test_what_nobody_signed_is_refused_alike_whether_or_not_the_source_exists(
    hooks: httpx.AsyncClient, log: Sourced
) -> None:
    body = json.dumps(ISSUE).encode()
    wrong = [
        ("hub", hub(body + b" ")), ("hub", hub(body, "another")), ("hub", {}),
        ("own", own(body, at=time.time() - 400)),
        ("own", own(body, at=time.time() + 400)), ("own", hub(body)), ("file", own(body)),
        ("none", own(body)),
        ("own", signed("", body, secret=SECRET, at=int(time.time()))),
        ("own", {**own(body), "webhook-timestamp": "soon"}), ("hub", {"X-Hub-Signature-256": "sha256="}),
    ]  # fmt: skip
    for name, headers in wrong:
        answer = await post(hooks, name, body, headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert not log.events


async def test_a_body_that_is_no_json_or_too_long_is_refused(hooks: httpx.AsyncClient) -> None:
    body = b"{"
    assert (await post(hooks, "own", body, own(body))).status_code == 422
    long = b'"' + b"x" * LIMITS["max_body_bytes"] + b'"'
    assert (await post(hooks, "own", long, own(long))).status_code == 413


async def test_an_event_that_the_mapping_leaves_out_is_taken_without_effect(
    hooks: httpx.AsyncClient, log: Sourced
) -> None:
    for left_out in ({"zen": "Keep it simple.", "hook_id": 1}, {**ISSUE, "action": "deleted"}):
        body = json.dumps(left_out).encode()
        assert (await post(hooks, "hub", body, hub(body))).status_code == 202
    assert not log.events


ZENDESK = "HRkRd4BeOAoUkfZr-mhauJT64rvBASlJRoIyPsd3zeA="


def test_zendesks_own_example_is_verified_in_its_minutes_alone() -> None:
    at = datetime(2021, 7, 25, 10, 0, tzinfo=UTC)
    headers = {
        "x-zendesk-webhook-signature": "tRDSF7URY8BLCDlaBcQ7FHu051Zk+aAB0NKMP53teMw=",
        "x-zendesk-webhook-signature-timestamp": "2021-07-25T10:00:00Z",
    }
    check("zendesk", headers, b'{"say": "hello"}', [ZENDESK], now=at)
    other = hmac.digest(ZENDESK.encode(), b'2021-07-25T10:00:00Z{"say": "hello"}', "sha256")
    headers["x-zendesk-webhook-signature"] = base64.b64encode(other).decode()
    check("zendesk", headers, b'{"say": "hello"}', [ZENDESK], now=at)
    for body, now in ((b'{"say": "bye"}', at), (b'{"say": "hello"}', datetime.now(UTC))):
        with pytest.raises(NotAuthenticated):
            check("zendesk", headers, body, [ZENDESK], now=now)


def test_githubs_own_example_is_verified() -> None:
    expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = {"x-hub-signature-256": expected}
    check("github", headers, b"Hello, World!", ["It's a Secret to Everybody"], now=datetime.now(UTC))
    with pytest.raises(NotAuthenticated):
        check("github", headers, b"Hello, World!", ["", "another"], now=datetime.now(UTC))
    with pytest.raises(NotAuthenticated):
        check("github", headers, b"Hello, World!", [], now=datetime.now(UTC))
