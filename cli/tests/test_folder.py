"""Documents are named by their path below the folder, and never lie outside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunewheel_cli.publishing.folder import document_files, read_documents
from tunewheel_cli.publishing.items import Found, Refusal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "sops"
    (root / "deep").mkdir(parents=True)
    (root / "b.md").write_text("intro\n\n# The title #\n\ntext")
    (root / "deep" / "a.txt").write_text("plain")
    (root / ".hidden.md").write_text("no")
    (root / "picture.png").write_bytes(b"\x89PNG")
    return root


def read(root: Path) -> dict[str, Found | Refusal]:
    return {item.where: item for item in read_documents(root, document_files(root), max_bytes=1_000)}


def test_documents_have_path_title_and_type(folder: Path) -> None:
    found = read(folder)
    assert list(found) == ["b.md", "deep/a.txt"]
    first, second = found["b.md"], found["deep/a.txt"]
    assert isinstance(first, Found)
    assert isinstance(second, Found)
    assert first.fields["title"] == "The title"
    assert second.fields | {"content": ""} == {
        "document_id": "deep/a.txt",
        "title": "a",
        "content": "",
        "media_type": "text/plain",
    }


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text("secret")
    (folder / "link.md").symlink_to(secret)
    refused = read(folder)["link.md"]
    assert isinstance(refused, Refusal)
    assert "is a link out of the folder" in refused.reason


def test_unreadable_documents_are_refused_by_themselves(folder: Path) -> None:
    (folder / "big.md").write_text("x" * 2_000)
    (folder / "latin.md").write_bytes(b"caf\xe9")
    (folder / "gone.md").symlink_to(folder / "nothing.md")
    reasons = {name: item.reason for name, item in read(folder).items() if isinstance(item, Refusal)}
    assert reasons == {
        "big.md": "has 2000 bytes, 1000 are allowed; split the document",
        "latin.md": "is not UTF-8 (byte 3); save the file as UTF-8",
        "gone.md": "cannot be read: No such file or directory",
    }
