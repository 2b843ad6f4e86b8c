"""Who waits is told by a signed CloudEvent, at listed hosts only, with what a receiver needs to trust it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

import pytest
from aiokafka import TopicPartition
from pydantic import ValidationError
from structlog.testing import capture_logs
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested
from tunewheel_runtime.jobs import Lease, LeaseLost
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.webhooks import Notice, Webhook, WebhookSettings

SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()
AT_ONCE = Backoff(attempts=3, first=0.0, longest=0.0)


@dataclass
class Receiver:
    """An HTTP server that answers with ``statuses``, the last of them for ever."""

    statuses: list[int] = field(default_factory=lambda: [204])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list[Any])
    port: int = 0

    def url(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status = state.statuses[min(len(state.got), len(state.statuses)) - 1]
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{state.url()}/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


def webhook(*hosts: str, secret: str = SECRET, leads_to: str | None = None) -> Webhook:
    async def resolve(host: str, _: int) -> list[Any]:
        return [ip_address(leads_to or host)]

    return Webhook(hosts=hosts, secret=secret, backoff=AT_ONCE, resolve=resolve)


@pytest.fixture
def waiting() -> Notice:
    data = DatasetRequested(project="desk", reason=BuildReason.COMMAND, request="1")
    event = new_event(data, source="/tunewheel/eval")
    told = {"project": "desk", "items": 6, "url": None}
    return Notice(event=event, type="some.waiting", subject="run-1", field="review.webhook", data=told)


async def test_a_receiver_gets_a_signed_cloudevent(receiver: Receiver, waiting: Notice) -> None:
    assert await webhook("127.0.0.1").tell(waiting, receiver.url())
    ((headers, body),) = receiver.got
    told = json.loads(body)
    assert headers["content-type"].startswith("application/cloudevents+json")
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert (told["specversion"], told["type"], told["id"]) == ("1.0", "some.waiting", waiting.event.id)
    assert (told["subject"], told["data"]) == ("run-1", {"project": "desk", "items": 6})
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(b"k" * 24, content, hashlib.sha256)).decode()
    assert (headers["webhook-id"], headers["webhook-signature"]) == (waiting.event.id, f"v1,{expected}")


async def test_a_notice_is_sent_again_under_the_same_id(receiver: Receiver, waiting: Notice) -> None:
    receiver.statuses = [503, 429, 200]
    assert await webhook("127.0.0.1").tell(waiting, receiver.url())
    assert len({(headers["webhook-id"], body) for headers, body in receiver.got}) == 1
    assert len(receiver.got) == 3


@pytest.mark.parametrize(
    ("statuses", "attempts"), [([500], 3), ([302], 1), ([404], 1)], ids=["broken", "redirects", "gone"]
)
async def test_a_notice_is_given_up_and_the_failure_reported(
    receiver: Receiver, waiting: Notice, statuses: list[int], attempts: int
) -> None:
    receiver.statuses = statuses
    with capture_logs() as logs:
        assert not await webhook("127.0.0.1").tell(waiting, receiver.url())
    assert len(receiver.got) == attempts
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["webhook_not_told"]
    assert str(statuses[0]) in logs[-1]["reason"]


@pytest.mark.parametrize(
    ("hosts", "host", "leads_to", "secret", "words"),
    [
        ((), "127.0.0.1", None, SECRET, "does not list 127.0.0.1"),
        (("example.com",), "127.0.0.1", None, SECRET, "does not list"),
        (("hooks.example.com",), "hooks.example.com", "127.0.0.1", SECRET, "not 127.0.0.1, the private"),
        (("hooks.example.com",), "hooks.example.com", "169.254.169.254", SECRET, "the private"),
        (("hooks.example.com", "nonsense/99"), "hooks.example.com", "::1", SECRET, "the private"),
        (("127.0.0.1",), "127.0.0.1", None, "", "WEBHOOK_SECRET is not set"),
        (("127.0.0.1",), "user:password@127.0.0.1", None, SECRET, "must be an http or https URL"),
    ],
)
async def test_a_notice_is_not_sent_to_a_host_that_is_not_allowed(
    receiver: Receiver,
    waiting: Notice,
    hosts: tuple[str, ...],
    host: str,
    leads_to: str | None,
    secret: str,
    words: str,
) -> None:
    with capture_logs() as logs:
        told = await webhook(*hosts, secret=secret, leads_to=leads_to).tell(waiting, receiver.url(host))
    assert not told
    assert words in logs[-1]["reason"]
    assert not receiver.got


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/", "127.0.0.1", "http://[", "http://127.0.0.1:99999/", "", "http://127.0.0.1/\x01",
        "http://127.0.0.1/\ud800", "http://127.0.0.1/" + "a" * 70_000, "http://hoo\u212as.example/",
    ],
)  # fmt: skip
async def test_an_invalid_url_is_refused_and_stops_no_process(waiting: Notice, url: str) -> None:
    with capture_logs() as logs:
        listed = webhook("127.0.0.1", "hooks.example", "127.0.0.0/8", leads_to="127.0.0.1")
        assert not await listed.tell(waiting, url)
    assert "review.webhook" in logs[-1]["reason"]


async def test_a_name_is_connected_to_at_the_address_that_was_checked(
    receiver: Receiver, waiting: Notice
) -> None:
    listed = webhook("hooks.example.com", "127.0.0.0/8", leads_to="127.0.0.1")
    assert await listed.tell(waiting, receiver.url("hooks.example.com"))
    assert receiver.got[0][0]["host"] == f"hooks.example.com:{receiver.port}"


async def test_a_closed_port_and_an_unknown_host_are_failures(waiting: Notice) -> None:
    async def fails(_: str, __: int) -> list[Any]:
        raise OSError("no such name")

    assert not await webhook("127.0.0.1").tell(waiting, "http://127.0.0.1:1/")
    lost = Webhook(hosts=("gone.example",), secret=SECRET, backoff=AT_ONCE, resolve=fails)
    assert not await lost.tell(waiting, "http://gone.example/")


async def test_a_slow_receiver_does_not_keep_the_service_from_stopping(waiting: Notice) -> None:
    class Slow(Webhook):
        async def tell(self, notice: Notice, url: str) -> bool:
            await asyncio.Event().wait()
            return True

    lease = Lease(TopicPartition("review.requested", 0))
    lease.lose("the service is stopping")
    with pytest.raises(LeaseLost):
        await Slow(hosts=(), secret="").tell_under(lease, waiting, "http://127.0.0.1:1/")


def test_a_secret_that_cannot_be_decoded_stops_the_service_before_it_starts() -> None:
    with pytest.raises(ValidationError, match="base64"):
        WebhookSettings(webhook_secret="whsec_%")  # type: ignore[arg-type]
    listed = WebhookSettings(webhook_hosts=" A.example, 10.0.0.0/8,", console_url="https://console/")
    assert listed.webhook_host_list == ("a.example", "10.0.0.0/8")
    assert listed.page("labels/desk") == "https://console/labels/desk"
    assert WebhookSettings().page("labels/desk") is None
