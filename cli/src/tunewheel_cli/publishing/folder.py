"""Reads a folder of documents or a repository of source code. Each file is a document with its path as id."""

from __future__ import annotations

import codecs
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tunewheel_contracts.formats.document import LANGUAGES, PROSE_TYPES, is_text, media_type_of

from tunewheel_cli.publishing.items import Found, FoundFile, Item, Refusal
from tunewheel_cli.publishing.lines import OnBytes

VENDORED = frozenset(
    {"node_modules", "bower_components", "vendor", "third_party", "site-packages", "__pycache__"}
)
"""Folders of third-party code, which is not published."""
DECLARING_TYPES = frozenset({"text/html", "text/x-python"})
"""Media types whose files may declare their encoding, which ingest reads."""
CODE_TYPES = frozenset({"text/x-python", "text/x-source"})
TITLED_TYPES = frozenset({"text/markdown", "text/html"})
"""Media types whose title ingest reads from the text."""
GIT_SECONDS = 60


def known_endings() -> str:
    """Return the endings of documents, for a message."""
    return ", ".join((*PROSE_TYPES, *LANGUAGES))


def document_files(folder: Path) -> list[Path]:
    """Return the documents below ``folder`` in the order of their names.

    Left out are hidden files, vendored code, virtual environments, and in a git repository what git ignores.
    """
    files = _git_files(folder) if (folder / ".git").exists() else None
    if files is None:
        files = [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]
    environments = {path.parent for path in folder.rglob("pyvenv.cfg")}
    return sorted(
        path
        for path in files
        if media_type_of(path.name)
        and _is_shown(path.relative_to(folder))
        and not environments.intersection(path.parents)
    )


def read_documents(
    root: Path, files: list[Path], *, max_bytes: int, on_bytes: OnBytes | None = None
) -> Iterator[Item]:
    """Yield each file as a document; its id is its path below ``root``. Blank source code is left out."""
    inside = root.resolve()
    for path in files:
        name = path.relative_to(root).as_posix()
        if not path.resolve().is_relative_to(inside):
            yield Refusal(name, None, "(file)", "is a link out of the folder; copy the file into it")
            continue
        found = read_document(path, name, max_bytes=max_bytes, on_bytes=on_bytes)
        if found is not None:
            yield found


def read_document(
    path: Path, name: str, *, max_bytes: int, on_bytes: OnBytes | None = None
) -> Found | FoundFile | Refusal | None:
    """Return the file at ``path`` as the document ``name``; None for blank source code."""
    media_type = media_type_of(name)
    size = 0
    try:
        size = path.stat().st_size
        if media_type is None or not is_text(media_type):
            return _counted(FoundFile(name, path, name, media_type, size), on_bytes)
        if size > max_bytes:
            return Refusal(
                name, None, "content", f"has {size} bytes, {max_bytes} are allowed; split the document"
            )
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        return Refusal(name, None, "(file)", f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        if media_type in DECLARING_TYPES or _is_marked(path):
            return _counted(FoundFile(name, path, name, media_type, size), on_bytes)
        return Refusal(name, None, "content", f"is not UTF-8 (byte {error.start}); save the file as UTF-8")
    if on_bytes:
        on_bytes(size)
    if media_type in CODE_TYPES and not content.strip():
        return None
    fields = {"document_id": name, "content": content, "media_type": media_type}
    if media_type not in TITLED_TYPES:
        fields["title"] = path.name if media_type in CODE_TYPES else path.stem
    return Found(name, None, fields)


def _is_marked(path: Path) -> bool:
    """Return whether a file begins with a byte-order mark of UTF-16 or UTF-32, which tells its encoding."""
    with path.open("rb") as file:
        return file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def _counted(file: FoundFile, on_bytes: OnBytes | None) -> FoundFile:
    if on_bytes:
        on_bytes(file.size)
    return file


def _is_shown(path: Path) -> bool:
    return not any(part.startswith(".") or part in VENDORED for part in path.parts)


def _git_files(folder: Path) -> list[Path] | None:
    """Return the files that git tracks or would track; None if git cannot tell."""
    # fsmonitor off: a repository's own settings must not run a program
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), "ls-files", "-z", "-co"]
    try:
        listed = subprocess.run(
            [*command, "--exclude-standard"], capture_output=True, timeout=GIT_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    paths = (folder / name.decode("utf-8", "surrogateescape") for name in listed.split(b"\0") if name)
    return [path for path in paths if path.is_file() or path.is_symlink()]
