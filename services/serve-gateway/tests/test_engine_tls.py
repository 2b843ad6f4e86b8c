"""An engine behind https, whose certificate is from an authority that the system does not know."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from huggingface_hub import set_async_client_factory
from huggingface_hub.utils._http import default_async_client_factory
from tunewheel_runtime.tls import InvalidTls
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream.pool import make_client
from tunewheel_serve_gateway.upstream.protocol import KeyRefused, UpstreamAway

ASKED: dict[str, Any] = {"model": "desk-1", "messages": [{"role": "user", "content": "hi"}]}


def is_adapter(name: str) -> bool:
    return "/" not in name


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that is its own authority, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "engine")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    certfile, keyfile = folder / "engine.pem", folder / "engine.key"
    certfile.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    keyfile.write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, plain))
    return certfile, keyfile


@pytest.fixture
async def engine_url(certificate: tuple[Path, Path]) -> AsyncIterator[str]:
    """Of an engine that refuses every key, in the words of the protocol."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"error": "Unauthorized"}, status=401)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture(autouse=True)
def own_factory() -> Iterator[None]:
    yield
    set_async_client_factory(default_async_client_factory)


@pytest.mark.parametrize("protocol", ["openai", "tgi"])
async def test_an_engine_is_reached_whose_authority_is_named(
    protocol: Any, engine_url: str, certificate: tuple[Path, Path]
):
    told: dict[str, list[UpstreamAway]] = {}
    for cafile in (None, certificate[0]):
        settings = Settings(engine_url=engine_url, engine_protocol=protocol, engine_cafile=cafile)
        upstream = make_client(settings, engine_url, is_adapter)
        for ask in (upstream.complete(ASKED), upstream.list_models()):
            with pytest.raises(UpstreamAway) as caught:
                await ask
            told.setdefault("named" if cafile else "unknown", []).append(caught.value)
        await upstream.close()
    assert [type(error) for error in told["named"]] == [KeyRefused] * 2, "by the engine, which was reached"
    assert [type(error) for error in told["unknown"]] == [UpstreamAway] * 2
    assert "TUNEWHEEL_ENGINE_CAFILE" in str(told["unknown"][1])
    assert "(Unauthorized)" in str(told["named"][0])


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), ("none", "holds no certificate")])
def test_a_file_that_holds_no_authority_is_refused_by_name(tmp_path: Path, content: str | None, said: str):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidTls, match=f"^TUNEWHEEL_ENGINE_CAFILE .*{said}"):
        make_client(Settings(engine_cafile=file), "https://127.0.0.1:1", is_adapter)
