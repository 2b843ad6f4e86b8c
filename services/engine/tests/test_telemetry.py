"""What a collector is told by the engine, as by every service."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tunewheel_engine.engine import load_engine
from tunewheel_engine.main import make_app, serve
from tunewheel_engine.settings import Settings
from tunewheel_runtime.identity.access import Access


@dataclass
class Collector:
    """``told``: what came, by path."""

    url: str
    told: dict[str, bytes] = field(default_factory=lambda: defaultdict(bytes))


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.told[self.path] += self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Collector(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


def test_metrics_and_traces_go_to_a_collector(settings: Settings, collector: Collector) -> None:
    told = settings.model_copy(update={"otlp_endpoint": collector.url})
    engine = load_engine(told, on_failure=lambda: None)
    app = make_app(engine, Access(told, warn=print))
    with TestClient(app, base_url="http://127.0.0.1:8110") as http:
        refused = http.post("/v1/completions", json={"model": "none", "prompt": "x"})
    engine.telemetry.shutdown()
    assert refused.status_code == 404
    for name in (b"tunewheel.engine.refused", b"vllm.num_requests_running", b"tunewheel-engine"):
        assert name in collector.told["/v1/metrics"]
    assert b"/v1/completions" in collector.told["/v1/traces"]


@pytest.mark.usefixtures("default_logs")
def test_logs_go_to_a_collector_too(tmp_path: Path, collector: Collector, capsys) -> None:
    settings = Settings(
        base_model=str(tmp_path / "none"), cache_dir=tmp_path, identity="open", otlp_endpoint=collector.url
    )
    assert serve(settings) == 2
    assert "cannot_start" in capsys.readouterr().err
    assert b"cannot_start" in collector.told["/v1/logs"]
