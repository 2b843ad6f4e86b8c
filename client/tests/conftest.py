"""A wheel's doors on loopback, beside a real issuer, and both clients."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunewheel_client import AsyncClient, Client
from tunewheel_console.control.identity import add_identity
from tunewheel_console.control.routes import make_api
from tunewheel_console.settings import Settings
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.settings import HttpSettings
from tunewheel_testing.oidc_issuer import Issuer
from tunewheel_testing.served import served

KEY = "tw_ada"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder without contexts, on a machine without a wheel."""
    for name in ("URL", "API_KEY", "PROJECT", "CONTEXT", "CONFIG", "VAR", "SECRETS_DIR", "HTTP_CAFILE"):
        monkeypatch.delenv(f"TUNEWHEEL_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def wheel(issuer: Issuer, tmp_path: Path) -> Iterator[str]:
    """The address of a console that knows the key ``KEY`` of ada, and the issuer's group ``leads``."""
    file = tmp_path / "keys.yaml"
    keys = {"ada": {"sha256": content_sha256(KEY.encode()), "roles": ["operator"]}}
    file.write_text(yaml.safe_dump({"keys": keys, "groups": {"leads": {"roles": ["viewer"]}}}))
    settings = HttpSettings(
        identity="required", api_keys_file=file, oidc_issuer=issuer.url, oidc_audience=issuer.audience
    )
    told = {"oidc_client_id": "tunewheel-cli", "public_gateway_url": "http://gateway.example"}
    web = make_api()
    add_identity(web, Settings(**settings.model_dump(exclude_unset=True) | told))
    guard(web.routes, Access(settings, warn=lambda *_: None))
    with served(web) as url:
        yield url


@pytest.fixture(params=[AsyncClient, Client])
def make_client(request: pytest.FixtureRequest) -> Any:
    return request.param


async def result(value: Any) -> Any:
    """Return what a method of either client returns."""
    return await value if inspect.isawaitable(value) else value


@pytest.fixture
def done() -> Any:
    return result
