"""Object stores below a URL: what is published of them, and what cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunewheel_cli.publishing.items import SourceUnusable
from tunewheel_cli.publishing.remote import Prefix, is_url


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
