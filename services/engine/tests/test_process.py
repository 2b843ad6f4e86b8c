"""The engine from its start to its end: who is let in by which door, and with what code it ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from structlog import make_filtering_bound_logger, wrap_logger
from structlog.testing import LogCapture
from tunewheel_basemodel.locate import BaseModel
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_engine import main
from tunewheel_engine.settings import Settings
from tunewheel_generation.lane import Lane
from tunewheel_runtime.base_mirror import mirror_base
from tunewheel_runtime.store import ObjectStore

STARTS_WITHIN_SECONDS = 120
KEYS: dict[str, list[str]] = {
    "gateway": ["application", "viewer", "operator"],
    "app": ["application"],
    "view": ["viewer"],
}
DESK = "all of desk"
"""A key with these roles in one project: adapters are those of all projects."""
HELLO: Any = [{"role": "user", "content": "Hi"}]


@dataclass
class Running:
    """An engine that serves, and whether it was told to stop or stops by itself."""

    url: str
    health_url: str
    model: str
    http: httpx.Client
    stops: bool = False

    def ask(self, method: str, path: str, key: str | None = None, **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer k-{key}"} if key else {}
        return self.http.request(method, self.url + path, headers=headers, json=body or None)

    def listens(self) -> bool:
        try:
            return all(self.http.get(url).status_code for url in (self.health_url, self.url))
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        # Once: the handler is gone with the engine's loop, and a second signal would end this process.
        if not self.stops:
            self.stops = True
            os.kill(os.getpid(), signal.SIGTERM)


Drive = Callable[[Running], Any]


@pytest.fixture
def guarded(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "keys.json"
    sums = {name: hashlib.sha256(f"k-{name}".encode()).hexdigest() for name in KEYS}
    keys: dict[str, Any] = {n: {"sha256": sums[n], "roles": r} for n, r in KEYS.items()}
    desk = hashlib.sha256(f"k-{DESK}".encode()).hexdigest()
    keys["desk"] = {"sha256": desk, "roles": KEYS["gateway"], "projects": ["desk"]}
    file.write_text(json.dumps({"keys": keys}))
    free = {"http_port": 0, "health_port": 0}
    return settings.model_copy(update={"identity": "required", "api_keys_file": file, **free})


@pytest.fixture
def serve(guarded: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Call it with what to do while the engine serves, after which it is told to stop, and with changed
    settings. It returns the engine's exit code, and what that returned."""
    logged = LogCapture()
    logger = wrap_logger(None, [logged], wrapper_class=make_filtering_bound_logger(0))
    monkeypatch.setattr(main.structlog, "get_logger", lambda *_: logger)

    def bound(http: httpx.Client) -> Running | None:
        for line in logged.entries:
            if line["event"] == "serving":
                url, health_url = (f"http://127.0.0.1:{line[name]}" for name in ("port", "health"))
                return Running(url, health_url, line["base"], http)
        return None

    def started(http: httpx.Client) -> Running:
        until = time.monotonic() + STARTS_WITHIN_SECONDS
        while time.monotonic() < until:
            if (found := bound(http)) and found.listens():
                return found
            time.sleep(0.02)
        raise AssertionError(f"the engine did not start: {logged.entries}")

    def drive_and_stop(drive: Drive) -> Any:
        with httpx.Client(timeout=60) as http:
            running = started(http)
            try:
                return drive(running)
            finally:
                running.stop()

    with ThreadPoolExecutor(1) as other_thread:

        def run(drive: Drive, **changes: Any) -> tuple[int, Any]:
            driving = other_thread.submit(drive_and_stop, drive)
            return main.serve(guarded.model_copy(update=changes)), driving.result()

        yield run


def test_each_route_asks_for_its_role_and_health_for_none(
    serve: Any, write_adapter: Callable[..., Path]
) -> None:
    adapter = {"lora_name": "tuned", "lora_path": str(write_adapter("tuned", seed=1))}

    def drive(engine: Running) -> None:
        chat = {"model": engine.model, "messages": HELLO, "max_tokens": 2}
        generate = {"inputs": "Hi", "parameters": {"max_new_tokens": 2}}
        routes: list[tuple[str, str, dict[str, Any], set[str]]] = [
            ("POST", "/v1/chat/completions", chat, {"app", "gateway"}),
            ("POST", "/v1/completions", {"model": engine.model, "prompt": "Hi"}, {"app", "gateway"}),
            ("POST", "/generate", generate, {"app", "gateway"}),
            ("POST", "/generate_stream", generate, {"app", "gateway"}),
            ("POST", "/", generate, {"app", "gateway"}),
            ("GET", "/v1/models", {}, {"view", "gateway"}),
            ("GET", "/info", {}, {"view", "gateway"}),
            ("POST", "/v1/load_lora_adapter", adapter, {"gateway"}),
            ("POST", "/v1/unload_lora_adapter", {"lora_name": "tuned"}, {"gateway"}),
        ]
        for method, path, body, allowed in routes:
            got = {
                key: engine.ask(method, path, key, **body).status_code for key in (None, "no", *KEYS, DESK)
            }
            refused = {None: 401, "no": 401, **dict.fromkeys((*KEYS, DESK), 403)}
            assert got == refused | dict.fromkeys(allowed, 200), path
        for path in ("/health", "/health/ready", "/metrics"):
            assert engine.http.get(engine.health_url + path).status_code == 200
            assert engine.ask("GET", path).status_code == 404, "not by this door"

    assert serve(drive)[0] == 0


def test_the_clients_of_both_protocols_say_that_the_key_is_wrong(serve: Any) -> None:
    def drive(engine: Running) -> None:
        for key, of_openai, status in (
            ("k-no", openai.AuthenticationError, 401),
            ("k-view", openai.PermissionDeniedError, 403),
        ):
            client = openai.OpenAI(base_url=f"{engine.url}/v1", api_key=key, max_retries=0)
            with client, pytest.raises(of_openai) as refused:
                client.chat.completions.create(messages=HELLO, model=engine.model)
            with pytest.raises(HfHubHTTPError) as also_refused:
                InferenceClient(f"{engine.url}/generate", token=key).text_generation("Hi")
            assert refused.value.status_code == also_refused.value.response.status_code == status
            assert "ask for" in str(refused.value)
            assert "ask for" in str(also_refused.value)

    assert serve(drive)[0] == 0


@pytest.mark.parametrize("revision", [None, "a" * 40])
def test_an_engine_without_the_hub_serves_the_base_that_train_mirrored(
    revision: str | None, serve: Any, tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    url, base = (tmp_path / "store").as_uri(), BaseModelRef(name="owner/name", revision="a" * 40)
    asyncio.run(mirror_base(ObjectStore(url), base, tiny_base.path, tmp_path / "train", meant=True))

    def drive(engine: Running) -> dict[str, Any]:
        return engine.ask("GET", "/v1/models", "view").json()["data"][0]

    changes = {"base_model": base.name, "base_revision": revision, "store_url": url}
    code, told = serve(drive, cache_dir=tmp_path / "engine", **changes)
    assert (code, told["id"], told["revision"]) == (0, base.name, base.revision)


def test_running_answers_are_finished_before_the_process_ends(serve: Any) -> None:
    def drive(engine: Running) -> list[str]:
        body = {"model": engine.model, "messages": HELLO, "stream": True}
        body |= {"max_tokens": 60, "ignore_eos": True}
        headers = {"authorization": "Bearer k-gateway"}
        url = f"{engine.url}/v1/chat/completions"
        with engine.http.stream("POST", url, json=body, headers=headers) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            engine.stop()
            return [first, *(line for line in lines if line)]

    code, lines = serve(drive)
    assert (code, lines[-1]) == (0, "data: [DONE]")
    assert '"finish_reason":"length"' in lines[-2], "the answer came to its own end"


def test_the_process_ends_with_code_1_when_generation_breaks(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the kernel is unhappy")

    def drive(engine: Running) -> httpx.Response:
        monkeypatch.setattr(Lane, "work", broken)
        engine.stops = True
        return engine.ask("POST", "/v1/chat/completions", "gateway", messages=HELLO, model=engine.model)

    code, answer = serve(drive)
    assert (code, answer.status_code, answer.json()["error"]["code"]) == (1, 500, "engine_failed")
