"""The commit of a base model that a dataset version is trained on, resolved once.

A hub id names whatever its main branch holds. Without a pin a version whose training is taken up again would
be trained on another base than before, under the name of another run.
"""

from __future__ import annotations

from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_runtime.store import ObjectStore


async def pinned(store: ObjectStore, manifest: DatasetManifest) -> str | None:
    """Return the commit that an earlier look at the hub found for this version; None before the first.

    Raises:
        TransientError: the store is away.
    """
    data = await store.read(_path(manifest))
    return BaseModelRef.model_validate_json(data).revision if data is not None else None


async def pin(store: ObjectStore, manifest: DatasetManifest, base: BaseModelRef) -> None:
    """Remember the commit of a base that came from the hub. One that lies on this machine may be mended and
    tried again: its revision is the hash of its files, and names another run.

    Raises:
        TransientError: the store is away.
    """
    if not base.revision.startswith("sha256:"):
        await store.first(_path(manifest), base.model_dump_json().encode())


def _path(manifest: DatasetManifest) -> str:
    return f"bases/{manifest.dataset_id}.json"
