"""A folder of documents: each file is one, named by its path below the folder."""

from __future__ import annotations

import re
from pathlib import Path

from tunewheel_cli.publishing.items import Found, Refusal, Source
from tunewheel_cli.publishing.lines import OnBytes

MEDIA_TYPES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".txt": "text/plain",
    ".html": "text/html",
    ".htm": "text/html",
}
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)


def document_files(folder: Path) -> list[Path]:
    """Return the documents below ``folder`` in the order of their names, hidden ones left out."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in MEDIA_TYPES)
    shown = (
        path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    return sorted(path for path in shown if path.is_file() or path.is_symlink())


def read_documents(
    root: Path, files: list[Path], *, max_bytes: int, on_bytes: OnBytes | None = None
) -> Source:
    """Yield each file as a document; its id is its path below ``root``."""
    inside = root.resolve()
    for path in files:
        name = path.relative_to(root).as_posix()
        if not path.resolve().is_relative_to(inside):
            yield Refusal(name, None, "(file)", "is a link out of the folder; copy the file into it")
            continue
        yield _read(path, name, max_bytes, on_bytes)


def _read(path: Path, name: str, max_bytes: int, on_bytes: OnBytes | None) -> Found | Refusal:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            return Refusal(
                name, None, "content", f"has {size} bytes, {max_bytes} are allowed; split the document"
            )
        raw = path.read_bytes()
        content = raw.decode("utf-8-sig")
    except OSError as error:
        return Refusal(name, None, "(file)", f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        return Refusal(name, None, "content", f"is not UTF-8 (byte {error.start}); save the file as UTF-8")
    if on_bytes:
        on_bytes(len(raw))
    media_type = MEDIA_TYPES[path.suffix.lower()]
    heading = _HEADING.search(content) if media_type == "text/markdown" else None
    title = heading.group(1) if heading else path.stem
    fields = {"document_id": name, "title": title, "content": content, "media_type": media_type}
    return Found(name, None, fields)
