"""Notes which of a teacher's answers were made from which document, so that an erasure finds them.

The note ``teacher-sources/<hash of project and document>/<key>`` is written before ``teacher/<key>.json``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from tunewheel_contracts.identity import content_sha256
from tunewheel_retrieval.sections import Section
from tunewheel_runtime.store import ObjectStore

from tunewheel_curate.documents.teaching import lesson_path


async def note_sources(store: ObjectStore, project: str, sections: Mapping[str, Section]) -> None:
    """Note, for each of ``sections`` (by key), which document it belongs to. A section's group is its
    document.

    Raises:
        TransientError: the store is away.
    """
    paths = [f"{_folder(project, section.group)}/{key}" for key, section in sections.items()]
    await asyncio.gather(*(store.put(path, b"") for path in paths))


async def taught_of(store: ObjectStore, project: str, document_id: str) -> tuple[str, ...]:
    """Return the sorted keys of a teacher's answers about a document."""
    return tuple(path.rpartition("/")[2] for path in await store.list(_folder(project, document_id)))


async def forget_taught(store: ObjectStore, project: str, document_id: str, keys: Sequence[str]) -> None:
    """Delete answers about a document, and their notes. Repeating it is harmless."""
    await store.delete([lesson_path(key) for key in keys])
    await store.delete([f"{_folder(project, document_id)}/{key}" for key in keys])


def _folder(project: str, document_id: str) -> str:
    return f"teacher-sources/{content_sha256([project, document_id])[:32]}"
