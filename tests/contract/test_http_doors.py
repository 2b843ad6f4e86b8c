"""No website can write to a service through the browser of somebody who looks at it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp
from tunewheel_runtime.identity.access import NoIdentity
from tunewheel_runtime.lifecycle import Lifecycle

from .identity_samples import build

ROOT = Path(__file__).resolve().parents[2]
WRITES = {
    "ingest": ("/v1/tickets", "/v1/documents", "/v1/examples", "/v1/erasures", "/v1/documents/files"),
    "console": ("/v1/projects/p/runs/r/cancel",),
    "serve-gateway": ("/v1/feedback", "/v1/chat/completions"),
    "registry": ("/v1/projects/p/models",),
}
DOORS = tuple(WRITES)
ONLY_HEALTH = ("index", "monitor", "curate", "train", "eval")
TYPED_FREELY = ("/v1/documents/files",)


def test_every_service_is_here() -> None:
    folders = {path.parent.name for path in ROOT.glob("services/*/pyproject.toml")}
    assert {*DOORS, *ONLY_HEALTH, "engine"} == folders, "the engine's door has its own test"


@pytest.mark.parametrize("name", WRITES)
async def test_what_another_website_makes_a_browser_send_is_refused(name: str, tmp_path: Path) -> None:
    app: ASGIApp = build(name, tmp_path).doors.asgi()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://127.0.0.1:8101"
    ) as client:

        async def post(path: str, **headers: str) -> tuple[int, str]:
            answer = await client.post(path, content=b'{"project": "p"}', headers=headers)
            return answer.status_code, answer.json()["error"]["param"]

        plain, typed = {"content-type": "text/plain"}, {"content-type": "application/json"}
        for path in WRITES[name]:
            assert await post(path, origin="https://evil.example", **plain) == (403, "Origin")
            assert await post(path, origin="https://evil.example", **typed) == (403, "Origin")
            rebound = await post(path, host="evil.example", origin="http://evil.example", **typed)
            assert rebound == (421, "Host")
            if not path.startswith(TYPED_FREELY):
                assert await post(path, **plain) == (415, "Content-Type")


@pytest.mark.parametrize("name", DOORS)
async def test_no_door_opens_where_nobody_asks_who_calls(name: str, tmp_path: Path) -> None:
    with pytest.raises(NoIdentity, match=f"{name} cannot identify callers"):
        await Lifecycle(build(name, tmp_path, identity="required")).serve()
    with pytest.raises(NoIdentity, match=f"{name} does not identify callers"):
        await Lifecycle(build(name, tmp_path, identity="open", http_host="0.0.0.0")).serve()
