"""Documents are named by their path below the folder, and never lie outside it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tunewheel_cli.publishing.folder import document_files, read_documents
from tunewheel_cli.publishing.items import Found, FoundFile, Kind, Refusal, SourceUnusable
from tunewheel_cli.publishing.sources import open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "sops"
    (root / "deep").mkdir(parents=True)
    (root / "b.md").write_text("intro\n\n# The title #\n\ntext")
    (root / "deep" / "a.txt").write_text("plain")
    (root / ".hidden.md").write_text("no")
    (root / "picture.png").write_bytes(b"\x89PNG")
    return root


def read(root: Path) -> dict[str, Found | FoundFile | Refusal]:
    return {item.where: item for item in read_documents(root, document_files(root), max_bytes=1_000)}


def test_documents_have_path_title_and_type(folder: Path) -> None:
    found = read(folder)
    assert list(found) == ["b.md", "deep/a.txt"]
    first, second = found["b.md"], found["deep/a.txt"]
    assert isinstance(first, Found)
    assert isinstance(second, Found)
    assert "title" not in first.fields, "ingest reads it out of the text"
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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_file_that_bears_the_mark_of_its_encoding_is_left_to_ingest(folder: Path, encoding: str) -> None:
    (folder / "marked.md").write_bytes("# caf\u00e9".encode(encoding))
    found = read(folder)["marked.md"]
    assert isinstance(found, FoundFile)
    assert (found.document_id, found.media_type) == ("marked.md", "text/markdown")


def test_a_file_of_any_ending_is_left_to_ingest_if_it_is_said_to_be_a_document(tmp_path: Path) -> None:
    (tmp_path / "mail.letter").write_text("Subject: bell")
    with pytest.raises(SourceUnusable):
        open_source(tmp_path / "mail.letter", kind=None, maps=(), max_bytes=1_000)
    (found,) = open_source(tmp_path / "mail.letter", kind=Kind.DOCUMENT, maps=(), max_bytes=1_000)
    assert isinstance(found, FoundFile)
    assert (found.document_id, found.media_type) == ("mail.letter", None)


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}")


def names_of(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in document_files(root)]


def test_a_repository_gives_its_own_source_and_no_other(tmp_path: Path) -> None:
    write(
        tmp_path, "src/app.py", "src/lib.rs", "README.md", "node_modules/x/index.js", "vendor/y.go",
        ".tox/z.py", "env/lib/w.py", "env/pyvenv.cfg", "logo.svg", "data.json", "src/__pycache__/app.py",
    )  # fmt: skip
    assert names_of(tmp_path) == ["README.md", "src/app.py", "src/lib.rs"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_what_git_ignores_is_left_out(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    write(tmp_path, "a.py", "build/b.py", "sub/c.py", "d e.md")
    (tmp_path / ".gitignore").write_text("build/\nsub/*.py\n")
    assert names_of(tmp_path) == ["a.py", "d e.md"]
    (tmp_path / "a.py").unlink()
    subprocess.run(["git", "-C", str(tmp_path), "add", "-A"], check=True)
    assert names_of(tmp_path) == ["d e.md"]


def test_a_broken_repository_is_read_as_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "a.py", ".git/HEAD")
    assert names_of(tmp_path) == ["a.py"]


def test_binary_documents_and_those_that_declare_an_encoding_go_to_ingest_as_files(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-")
    (tmp_path / "b.docx").write_bytes(b"PK")
    (tmp_path / "c.html").write_bytes(b'<meta charset="latin-1">caf\xe9')
    (tmp_path / "d.py").write_bytes(b"# coding: latin-1\nx = 'caf\xe9'")
    (tmp_path / "e.html").write_text("<title>T</title>")
    found = read(tmp_path)
    files = {name: item.media_type for name, item in found.items() if isinstance(item, FoundFile)}
    assert files["a.pdf"] == "application/pdf"
    assert list(files) == ["a.pdf", "b.docx", "c.html", "d.py"]
    page = found["e.html"]
    assert isinstance(page, Found)
    assert "title" not in page.fields, "ingest reads it out of the page"


def test_blank_source_is_no_document_but_a_blank_text_is_refused_further_on(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("\n")
    (tmp_path / "a.md").write_text("")
    assert list(read(tmp_path)) == ["a.md"]
