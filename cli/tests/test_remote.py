"""Object stores below a URL: what is published of them, and what cannot be opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from tunewheel_cli.publishing.items import SourceUnusable
from tunewheel_cli.publishing.remote import Prefix, is_url
from tunewheel_contracts.errors import TransientError


async def test_publishable_objects_are_listed_and_read(tmp_path: Path) -> None:
    root = tmp_path / "bucket"
    for name in ("b/x.md", "a.pdf", "t.jsonl", "b/.hidden.md", "photo.png", "rows.csv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    prefix = Prefix(root.as_uri())
    assert await prefix.objects() == {"a.pdf": 5, "b/x.md": 6, "t.jsonl": 7}
    await prefix.download("b/x.md", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"b/x.md"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://x/y", "is no URL of an object store; use one of s3"),
        ("file:///no/such/folder", "cannot be opened"),
    ],
)
def test_what_is_no_store_says_so(url: str, words: str) -> None:
    assert is_url(url)
    with pytest.raises(SourceUnusable, match=words):
        Prefix(url)


def test_a_path_is_no_url() -> None:
    assert not is_url("sops/a.md")
    assert not is_url("C:\\sops")


OBJECTS = {"docs/sops/a.md": b"# A", "docs/b.pdf": b"%PDF-", "other/c.md": b"# C"}


@pytest.fixture
async def s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """The two calls of S3's protocol that reading takes, over HTTP; yields the paths that were asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        assert "Credential=key/" in request.headers["Authorization"]
        name = request.path.removeprefix("/bucket").removeprefix("/")
        if name:
            return web.Response(body=OBJECTS[name], headers={"ETag": '"x"', "Last-Modified": DATE})
        prefix = request.query.get("prefix", "")
        found = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(data)}</Size><ETag>x</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, data in OBJECTS.items()
            if key.startswith(prefix)
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        return web.Response(text=body, content_type="application/xml")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-north-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield asked
    await runner.cleanup()


DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


async def test_an_s3_prefix_is_listed_and_read_with_what_the_environment_says(
    s3: list[str], tmp_path: Path
) -> None:
    prefix = Prefix("s3://bucket/docs")
    assert await prefix.objects() == {"b.pdf": 5, "sops/a.md": 3}
    await prefix.download("sops/a.md", tmp_path / "a.md")
    assert (tmp_path / "a.md").read_bytes() == b"# A"
    assert s3[-1] == "/bucket/docs/sops/a.md"


async def test_a_store_that_does_not_answer_is_transient(
    s3: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:9")
    with pytest.raises(TransientError, match="s3://bucket/docs: cannot be listed"):
        await Prefix("s3://bucket/docs").objects()
