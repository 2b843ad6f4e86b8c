from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.formats.index import IndexManifest
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_embedding.static import StaticEmbedder, Vectors
from tunewheel_retrieval.building import Document, build
from tunewheel_retrieval.files import IndexFiles
from tunewheel_retrieval.index import Index
from tunewheel_retrieval.sections import Section


class Counting:
    """The real static embedder, and how many texts it was asked for."""

    def __init__(self, inner: StaticEmbedder) -> None:
        self._inner = inner
        self.texts: list[str] = []
        self.name, self.dimensions = inner.name, inner.dimensions

    def units(self, texts: Sequence[str]) -> Vectors:
        self.texts += texts
        return self._inner.units(texts)


@pytest.fixture(scope="session")
def static() -> StaticEmbedder:
    return StaticEmbedder()


@pytest.fixture
def embedder(static: StaticEmbedder) -> Counting:
    return Counting(static)


def document(
    document_id: str, text: str, *, record_id: str | None = None, heading: str = "Reset"
) -> Document:
    record = record_id or f"rec-{content_sha256(text)[:8]}"
    pieces = tuple(DocumentSection(text=part) for part in text.split("\n\n"))
    return Document(
        document_id, record, "Handbook", [Section(record, document_id, "Handbook", (heading,), pieces)]
    )


def stored(files: IndexFiles) -> tuple[IndexManifest, dict[str, bytes]]:
    """Return the manifest and the files by path, as an object store would have them."""
    by_path = {f"indexes/{name}": data for name, data in files.by_name().items()}
    refs = {
        path.removeprefix("indexes/"): ArtifactRef(
            path=path, sha256=content_sha256(data), size_bytes=len(data)
        )
        for path, data in by_path.items()
    }
    return files.manifest(refs), by_path


Make = Callable[..., Index]


@pytest.fixture
def make(embedder: Counting) -> Make:
    def made(
        *documents: Document, previous: Index | None = None, floor: str = "none", **options: Any
    ) -> Index:
        spec = RetrievalSpec.model_validate({"passage_tokens": 32, "floor": floor})
        files = build(documents, embedder, spec, previous, project="shop", config_sha256="0" * 64, **options)
        return Index.open(*stored(files))

    return made


def same(one: Index, other: Index) -> bool:
    return (
        one.manifest == other.manifest
        and one.rows == other.rows
        and np.array_equal(one.vectors, other.vectors)
        and one.postings.to_bytes() == other.postings.to_bytes()
    )
