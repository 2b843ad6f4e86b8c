"""Which of a teacher's answers were made of which document, so that an erasure finds them.

``teacher-sources/<hash of project and document>/<key>`` is there before ``teacher/<key>.json`` is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from tunewheel_contracts.identity import content_sha256
from tunewheel_retrieval.sections import Section
from tunewheel_runtime.store import ObjectStore

from tunewheel_curate.documents.teaching import lesson_path


async def note_sources(store: ObjectStore, project: str, sections: Mapping[str, Section]) -> None:
    """Note of ``sections``, by key, which documents they are of: a document is its own group.

    Raises:
        TransientError: the store is away.
    """
    paths = [f"{_folder(project, section.group)}/{key}" for key, section in sections.items()]
    await asyncio.gather(*(store.put(path, b"") for path in paths))


async def taught_of(store: ObjectStore, project: str, document_id: str) -> tuple[str, ...]:
    """Return the keys of what a teacher was asked about a document, sorted."""
    return tuple(path.rpartition("/")[2] for path in await store.list(_folder(project, document_id)))


async def forget_taught(store: ObjectStore, project: str, document_id: str, keys: Sequence[str]) -> None:
    """Delete answers about a document, and the note that they are about it. Repeating it is harmless."""
    await store.delete([lesson_path(key) for key in keys])
    await store.delete([f"{_folder(project, document_id)}/{key}" for key in keys])


def _folder(project: str, document_id: str) -> str:
    return f"teacher-sources/{content_sha256([project, document_id])[:32]}"
