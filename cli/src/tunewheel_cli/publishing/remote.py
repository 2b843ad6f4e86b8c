"""Publishes the objects below a URL of an object store: ``s3://``, ``gs://``, ``az://``, ``file://``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES

from tunewheel_cli.publishing.door import IngestDoor
from tunewheel_cli.publishing.folder import read_document
from tunewheel_cli.publishing.items import (
    Item,
    Kind,
    OnProgress,
    Refusal,
    Source,
    SourceUnusable,
    Summary,
)
from tunewheel_cli.publishing.publish import Pump
from tunewheel_cli.publishing.records import JSON_LINES
from tunewheel_cli.publishing.sources import is_publishable, open_source

SCHEMES = ("s3", "gs", "az", "abfs", "file")
PART_BYTES = 5 << 20


def is_url(path: str) -> bool:
    """Whether ``path`` names an object store rather than a file."""
    return "://" in path


async def publish_url(
    url: str,
    *,
    project: str,
    door: IngestDoor,
    kind: Kind | None = None,
    on_progress: OnProgress | None = None,
    validated_by: str | None = None,
) -> Summary:
    """Publish the documents and JSON Lines below ``url``. A document's id is its path below ``url``.

    Credentials and region come from the environment, in the variables of the cloud's own tools. The other
    arguments are those of ``publish_path``.

    Raises:
        SourceUnusable: ``url`` is invalid, or nothing below it can be published.
        TransientError: the store or the door cannot be reached.
        NotAllowed: the door does not know the caller, or the caller lacks a right.
    """
    prefix = Prefix(url)
    objects = await prefix.objects()
    if not objects:
        raise SourceUnusable(f"{url}: holds no documents and no JSON Lines; check the prefix")
    summary, began = Summary(url, total_bytes=sum(objects.values())), time.monotonic()
    async with door:
        pump = Pump(door, summary, project, kind, on_progress, validated_by)
        with tempfile.TemporaryDirectory(prefix="publish-") as scratch:
            for name in objects:
                file = Path(scratch) / f"object{Path(name).suffix}"
                await prefix.download(name, file)
                await pump.run(Source(_items(file, name, kind, summary)))
                file.unlink(missing_ok=True)
    summary.lower(door.lowered)
    summary.seconds = time.monotonic() - began
    if on_progress:
        on_progress(summary)
    return summary


class Prefix:
    """The objects below one URL."""

    def __init__(self, url: str) -> None:
        from obstore.exceptions import BaseError
        from obstore.store import LocalStore, from_url

        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise SourceUnusable(f"{url}: is no URL of an object store; use one of {', '.join(SCHEMES)}")
        self._url = url
        try:
            if parts.scheme == "file":
                self._store: Any = LocalStore(Path(unquote(parts.path)))
            else:
                self._store = from_url(url)
        except (BaseError, ValueError, OSError) as error:
            raise SourceUnusable(f"{url}: cannot be opened: {_said(error)}") from error

    async def objects(self) -> dict[str, int]:
        """Return the size by path of the objects that can be published, sorted, without hidden ones."""
        import obstore
        from obstore.exceptions import BaseError

        found: dict[str, int] = {}
        try:
            async for chunk in obstore.list(self._store):
                for meta in chunk:
                    name = meta["path"]
                    if is_publishable(name) and not any(part.startswith(".") for part in name.split("/")):
                        found[name] = meta["size"]
        except (BaseError, OSError) as error:
            raise TransientError(f"{self._url}: cannot be listed: {_said(error)}") from error
        return dict(sorted(found.items()))

    async def download(self, name: str, target: Path) -> None:
        """Write an object to ``target``, a part at a time."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            result = await obstore.get_async(self._store, name)
            with target.open("wb") as file:
                async for part in result.stream(min_chunk_size=PART_BYTES):
                    file.write(part)
        except (BaseError, OSError) as error:
            raise TransientError(f"{self._url}: {name} cannot be read: {_said(error)}") from error


def _said(error: Exception) -> str:
    """Return an error's message without obstore's dump of its data structures."""
    return str(error).partition("\n\nDebug source")[0]


def _items(file: Path, name: str, kind: Kind | None, summary: Summary) -> Iterator[Item]:
    if name.lower().endswith(JSON_LINES):
        try:
            yield from open_source(
                file, kind=kind, maps=(), max_bytes=MAX_MESSAGE_BYTES, on_bytes=summary.count
            )
        except SourceUnusable as error:
            yield Refusal(name, None, "(file)", str(error).removeprefix(f"{file}: "))
        return
    found = read_document(file, name, max_bytes=MAX_MESSAGE_BYTES, on_bytes=summary.count)
    if found is not None:
        yield found
