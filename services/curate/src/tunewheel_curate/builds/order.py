"""What the service asks of a build worker, and what the worker answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_serializer
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.fields import ArtifactRef, Frozen
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset import DatasetCounts, DatasetManifest, FunnelStage, RecordsUpto
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.judgements import NOBODY_JUDGED, Judged
from tunewheel_contracts.withdrawals import Withdrawal


class BuildOrder(Frozen):
    """What to build, from what, and where to put it."""

    table_url: str
    spec: ProjectSpec
    records_upto: RecordsUpto
    folder: str
    regression_set: str | None = None
    """Path of eval's regression set; None: the set that comes with Tunewheel."""
    withdrawals: tuple[Withdrawal, ...] = ()
    judged: Judged = NOBODY_JUDGED
    erasures: tuple[Erasure, ...] = ()
    previous: str | None = None
    """The ``dataset_id`` of the project's previous version."""
    published: tuple[str, ...] = ()
    """The ``dataset_id`` of every earlier version of the project."""
    memory: str | None = None
    """Path of the file with the previous version's memory of what was held out."""
    pseudonym_secret: SecretStr = SecretStr("")
    """The key of pseudonyms. Empty: pseudonyms are plain hashes, which anybody can compute."""
    allowed: AllowedSources = AllowedSources()
    """The hosts and folders that the spec may name."""
    index: Annotated[ArtifactRef | None, Field(exclude_if=lambda ref: ref is None)] = None
    """The manifest of the index version that passages are taken from; None: the version gets no passages."""
    trace: dict[str, str] = {}
    """The trace headers of the request."""

    @field_serializer("pseudonym_secret", when_used="json")
    def _for_the_worker(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


class BuildOutcome(Frozen):
    """The result of a build. ``manifest`` is None for one of three reasons: the records make no dataset
    (``rejections``); the table lacks the last records or the store is away (``behind``); a source that the
    project names does not answer (``away``)."""

    manifest: DatasetManifest | None = None
    rows_sha256: str = ""
    counts: DatasetCounts | None = None
    funnel: tuple[FunnelStage, ...] = ()
    rejections: tuple[str, ...] = ()
    behind: str | None = None
    away: str | None = None
