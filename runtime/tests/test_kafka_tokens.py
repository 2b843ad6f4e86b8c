"""Tokens of a real endpoint: kept, renewed in time, asked for again, and never shown."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.kafka_tokens import ATTEMPTS, ClientCredentials, TokenFile, TokenUnavailable
from tunewheel_testing.clock import Clock

SECRET = "pass word+&:"


class Endpoint:
    """Answers in turn what it is told; the last answer, with the number of the request, for ever."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, Any] | bytes, dict[str, str]]] = []
        self.requests: list[tuple[str, dict[str, list[str]]]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                endpoint.requests.append((self.headers["Authorization"], parse_qs(body)))
                answers = endpoint.answers
                status, answer, headers = answers.pop(0) if len(answers) > 1 else answers[0]
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                """The test's output is no place for it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/token"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def then(self, status: int, answer: dict[str, Any] | bytes, **headers: str) -> None:
        self.answers.append((status, answer, headers))


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint()
    yield found
    found.server.shutdown()
    found.server.server_close()


def credentials(endpoint: Endpoint, clock: Clock, **more: Any) -> ClientCredentials:
    return ClientCredentials(
        endpoint.url, "client:1", SecretStr(SECRET), clock=clock, sleep=clock.waits.append, **more
    )


def token(word: str, **more: Any) -> dict[str, Any]:
    return {"access_token": word, "token_type": "Bearer", **more}


async def test_a_token_is_asked_for_as_the_standard_says_and_kept(endpoint: Endpoint) -> None:
    endpoint.then(200, token("one", expires_in=3_600))
    provider = credentials(endpoint, Clock(1_000.0), scope="kafka read")
    assert [await provider.token() for _ in range(3)] == ["one"] * 3
    ((authorization, body),) = endpoint.requests
    assert body == {"grant_type": ["client_credentials"], "scope": ["kafka read"]}
    pair = base64.b64decode(authorization.removeprefix("Basic ")).decode()
    assert pair == "client%3A1:pass+word%2B%26%3A"


@pytest.mark.parametrize(("lifetime", "kept", "renewed"), [(3_600, 3_539, 3_540), (10, 7.9, 8.0)])
async def test_a_token_is_renewed_shortly_before_it_expires(
    lifetime: int, kept: float, renewed: float, endpoint: Endpoint
) -> None:
    endpoint.then(200, token("one", expires_in=lifetime))
    endpoint.then(200, token("two", expires_in=lifetime))
    clock = Clock(1_000.0)
    provider = credentials(endpoint, clock)
    assert await provider.token() == "one"
    clock.now = 1_000 + kept
    assert await provider.token() == "one"
    clock.now = 1_000 + renewed
    assert await provider.token() == "two"


async def test_a_token_that_says_nothing_of_its_life_is_not_kept(endpoint: Endpoint) -> None:
    endpoint.then(200, token("one"))
    endpoint.then(200, token("two", expires_in="soon"))
    endpoint.then(200, token("three"))
    provider = credentials(endpoint, Clock(1_000.0))
    assert [await provider.token() for _ in range(3)] == ["one", "two", "three"]


async def test_the_old_token_serves_to_its_end_while_the_endpoint_is_away(endpoint: Endpoint) -> None:
    endpoint.then(200, token("one", expires_in=100))
    endpoint.then(503, b"later")
    clock = Clock(1_000.0)
    provider = credentials(endpoint, clock)
    await provider.token()
    clock.now += 99
    with capture_logs() as logs:
        assert await provider.token() == "one"
    assert [line["event"] for line in logs] == ["credentials_not_renewed"]
    assert "one" not in str(logs).replace(endpoint.url, "").split()
    clock.now += 1
    with pytest.raises(TokenUnavailable, match="refuses with status 503"):
        await provider.token()


async def test_only_temporary_failures_are_retried(endpoint: Endpoint) -> None:
    clock = Clock(1_000.0)
    endpoint.then(503, b"")
    endpoint.then(429, b"")
    endpoint.then(200, token("one", expires_in=60))
    assert await credentials(endpoint, clock).token() == "one"
    assert (len(endpoint.requests), clock.waits) == (ATTEMPTS, [0.5, 1.0])

    endpoint.answers.clear()
    endpoint.requests.clear()
    endpoint.then(401, {"error": "invalid_client", "error_description": "wrong secret"})
    with pytest.raises(
        TokenUnavailable, match="refuses with status 401: invalid_client, wrong secret"
    ) as told:
        await credentials(endpoint, clock).token()
    assert len(endpoint.requests) == 1
    assert SECRET not in repr(told.value)


async def test_an_endpoint_that_nobody_answers_at_is_named(endpoint: Endpoint) -> None:
    endpoint.server.shutdown()
    endpoint.server.server_close()
    clock = Clock(1_000.0)
    with pytest.raises(TokenUnavailable, match=rf"sasl_oauth_token_url: {endpoint.url} does not answer"):
        await credentials(endpoint, clock).token()
    assert len(clock.waits) == ATTEMPTS - 1


async def test_the_secret_follows_no_redirect(endpoint: Endpoint) -> None:
    endpoint.then(302, b"", Location=f"{endpoint.url}/elsewhere")
    with pytest.raises(TokenUnavailable, match="refuses with status 302"):
        await credentials(endpoint, Clock(1_000.0)).token()
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"<html>", "answers without an access_token"),
        ([], "answers without an access_token"),
        (token("two words"), "holds no token"),
        (token("a\x01auth=Bearer b"), "holds no token"),
    ],
)
async def test_an_answer_without_a_token_is_told(answer: Any, reason: str, endpoint: Endpoint) -> None:
    endpoint.then(200, answer)
    with pytest.raises(TokenUnavailable, match=reason):
        await credentials(endpoint, Clock(1_000.0)).token()


async def test_a_file_is_read_for_every_connection(tmp_path: Path) -> None:
    file = tmp_path / "token"
    provider = TokenFile(file)
    with pytest.raises(TokenUnavailable, match=f"sasl_oauth_token_file: {file} cannot be read"):
        await provider.token()
    for word in ("one", "two"):
        file.write_text(f"{word}\n")
        assert await provider.token() == word
    file.write_text("")
    with pytest.raises(TokenUnavailable, match="holds no token"):
        await provider.token()


def test_all_clients_of_a_process_share_a_token_and_show_no_secret() -> None:
    settings = KafkaSettings(
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        sasl_oauth_token_url="https://issuer.example.org/token",
        sasl_oauth_client_id="c",
        sasl_oauth_client_secret=SecretStr(SECRET),
    )
    one, two = client_options(settings), client_options(settings.model_copy())
    assert one["sasl_oauth_token_provider"] is two["sasl_oauth_token_provider"]
    assert SECRET not in repr(one)
