"""Index versions in a store, without the service that makes them from the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_embedding.embedders import Embedder
from tunewheel_embedding.static import StaticEmbedder
from tunewheel_retrieval.building import Document, build
from tunewheel_retrieval.files import config_sha256_of
from tunewheel_retrieval.sections import Section
from tunewheel_runtime.store import ObjectStore

STATIC = StaticEmbedder()
PUBLISHED_AT = datetime(2026, 5, 1, tzinfo=UTC)


async def put_index(
    store: ObjectStore,
    project: str,
    texts: Mapping[str, str],
    spec: RetrievalSpec,
    embedder: Embedder = STATIC,
    groups: Mapping[str, tuple[str, ...]] = {},
    searches: bool = True,
) -> IndexVersioned:
    """Put the version into ``store`` that ``texts`` make, by document; a first line ``# …`` is the
    heading. ``groups``: by document, the groups that may see it. ``searches``: hold back what addresses the
    model."""
    config = config_sha256_of(spec, PiiPolicy(), embedder.name)
    documents = [
        replace(_document(name, text), allowed_groups=groups.get(name)) for name, text in texts.items()
    ]
    files = build(documents, embedder, spec, project=project, config_sha256=config, searches=searches)
    folder = f"indexes/{project}/{files.index_id}"
    refs = {name: await store.put(f"{folder}/{name}", data) for name, data in files.by_name().items()}
    manifest = files.manifest(refs)
    return IndexVersioned(
        project=project,
        index_id=files.index_id,
        manifest=await store.put(f"{folder}/manifest.json", manifest.model_dump_json().encode()),
        retrieval_sha256=spec.sha256,
        counts=files.counts,
        versions=ArtifactRef(path=f"{folder}/versions.parquet", sha256="0" * 64, size_bytes=1),
        records_upto={},
        withdrawals_upto={},
        erasures_upto={},
    )


async def without_files(store: ObjectStore, version: IndexVersioned, *, fewest: int = 5) -> dict[str, bytes]:
    """Delete the files of ``version``; return them by their paths."""
    folder = f"indexes/{version.project}/{version.index_id}"
    files = {f"{folder}/{name}": data for name, data in (await store.read_folder(folder)).items()}
    await store.delete(list(files))
    assert len(files) >= fewest
    return files


def _document(name: str, text: str) -> Document:
    first, _, rest = text.partition("\n")
    headed = first.startswith("# ")
    path = (first.removeprefix("# "),) if headed else ()
    record = f"rec-{content_sha256(text)[:20]}"
    pieces = (DocumentSection(text=rest.strip() if headed else text.strip()),)
    section = Section(record, name, name, path, pieces)
    return Document(
        document_id=name, record_id=record, published_at=PUBLISHED_AT, title=name, sections=[section]
    )
