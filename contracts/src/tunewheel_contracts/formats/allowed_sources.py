"""The hosts and folders that a project's spec may make services access. The services' operator lists them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Self
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator

from tunewheel_contracts.errors import InvalidSpec, check_all
from tunewheel_contracts.fields import Frozen
from tunewheel_contracts.formats.confidence import FallbackSpec
from tunewheel_contracts.formats.dataset_spec import ReplaySpec
from tunewheel_contracts.formats.example_formats import TeacherSpec
from tunewheel_contracts.formats.judge import JudgeSpec
from tunewheel_contracts.formats.retrieval_spec import Embedding, EndpointEmbedding
from tunewheel_contracts.formats.spec import ProjectSpec

HUB = "huggingface.co"
DEFAULT_HOSTS = f"{HUB},hf.co"
TEACHER_FIELD = "dataset.formats.documents.questions.teacher"
EMBEDDING_FIELD = "retrieval.embedding"
JUDGE_FIELD = "evaluation.judge"
FALLBACK_FIELD = "serving.abstain.endpoint"
REPLAY_FIELD = "dataset.replay.source"

_NAME, _IPV6 = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", r"[0-9a-f]*:[0-9a-f:.]*"
_HOST = re.compile(rf"{_NAME}|{_IPV6}")
_ENTRY = re.compile(
    rf"(?P<host>{_NAME}|\[{_IPV6}\])(?::(?P<port>\d{{1,5}}))?"
    r"(?:=(?P<key>TUNEWHEEL_(?:TEACHER|EMBEDDING|JUDGE|FALLBACK)_[A-Z0-9_]{1,64}))?"
)


def listed(value: str) -> tuple[str, ...]:
    """Return the entries of a list whose entries are separated by commas."""
    return tuple(entry.strip() for entry in value.split(",") if entry.strip())


def _are_hosts(value: str) -> str:
    for entry in listed(value):
        if not _ENTRY.fullmatch(entry):
            raise ValueError(
                f"{entry!r} is not a host: write host, host:port, or either with =TUNEWHEEL_TEACHER_…, "
                "=TUNEWHEEL_EMBEDDING_…, =TUNEWHEEL_JUDGE_… or =TUNEWHEEL_FALLBACK_…, the variable whose key "
                "that host may get; separate several by commas"
            )
    return value


def _are_folders(value: str) -> str:
    for folder in listed(value):
        if not os.path.isabs(folder):
            raise ValueError(f"{folder!r} is not an absolute path; write one, and separate several by commas")
    return value


Hosts = Annotated[str, AfterValidator(_are_hosts)]
"""``host`` or ``host:port``, separated by commas. ``=VARIABLE`` after one allows sending it the key in that
environment variable. A host includes its subdomains (``hf.co`` includes ``cdn.hf.co``)."""
Folders = Annotated[str, AfterValidator(_are_folders)]
"""Absolute paths, separated by commas."""


class AllowedSources(Frozen):
    """The hosts and folders that a spec's teacher, replay, embedding, judge and fallback may name."""

    hosts: Hosts = DEFAULT_HOSTS
    folders: tuple[str, ...] = ()
    """Folders whose content may be read."""

    @classmethod
    def configured(cls, *, hosts: str, folders: str, store_url: str) -> Self:
        """Return the sources that curate's settings allow. If the store is a folder, its ``general/`` is
        allowed too."""
        in_store = (f"{local_path(store_url)}/general",) if store_url.startswith("file://") else ()
        return cls(hosts=hosts, folders=(*listed(folders), *in_store))

    def check(self, spec: ProjectSpec) -> None:
        """Refuse a spec that names a host, key or folder that is not allowed. Relative paths are not checked
        here, because they depend on where curate runs.

        Raises:
            InvalidSpec: ``field`` is the path of the host, the key or the folder in the spec.
        """
        questions = spec.dataset.formats.documents.questions
        checks: list[Callable[[], object]] = []
        if questions.enabled and questions.method == "teacher" and questions.teacher is not None:
            checks.append(partial(self.check_teacher, questions.teacher))
        if spec.retrieval is not None:
            checks.append(partial(self.check_embedding, spec.retrieval.embedding))
        if spec.evaluation.judge is not None:
            checks.append(partial(self.check_judge, spec.evaluation.judge))
        if (abstain := spec.serving.abstain) is not None and abstain.endpoint is not None:
            checks.append(partial(self.check_fallback, abstain.endpoint))
        if spec.dataset.replay is not None:
            checks.append(partial(self._check_replay, spec.dataset.replay))
        check_all(*checks)

    def _check_replay(self, replay: ReplaySpec) -> None:
        if "://" in replay.source or os.path.isabs(replay.source):
            self.check_source(replay.source)
        elif not replay.is_file:
            self.check_hub()

    def check_teacher(self, teacher: TeacherSpec) -> None:
        """Refuse a teacher whose host is not listed, or whose key is not listed for the host.

        Raises:
            InvalidSpec
        """
        self._check_endpoint(teacher.base_url, teacher.api_key_env, TEACHER_FIELD)

    def check_embedding(self, embedding: Embedding) -> None:
        """Refuse an embedding endpoint whose host is not listed, or whose key is not listed for the host.

        Raises:
            InvalidSpec
        """
        if isinstance(embedding, EndpointEmbedding):
            self._check_endpoint(embedding.base_url, embedding.api_key_env, EMBEDDING_FIELD)

    def check_judge(self, judge: JudgeSpec) -> None:
        """Refuse a judge whose host is not listed, or whose key is not listed for the host.

        Raises:
            InvalidSpec
        """
        self._check_endpoint(judge.base_url, judge.api_key_env, JUDGE_FIELD)

    def check_fallback(self, fallback: FallbackSpec) -> None:
        """Refuse a fallback whose host is not listed, or whose key is not listed for the host.

        Raises:
            InvalidSpec
        """
        self._check_endpoint(fallback.base_url, fallback.api_key_env, FALLBACK_FIELD)

    def _check_endpoint(self, url: str, key: str | None, field: str) -> None:
        self.check_url(url, f"{field}.base_url")
        if key is not None and key not in self._keys(urlsplit(url)):
            host = urlsplit(url).hostname
            reason = (
                f"{key} must not go to {host}; have the operator add {host}={key} to TUNEWHEEL_SPEC_HOSTS"
            )
            raise InvalidSpec(field=f"{field}.api_key_env", reason=reason)

    def check_url(self, url: str, field: str = REPLAY_FIELD) -> None:
        """Refuse a URL whose host is not listed.

        Raises:
            InvalidSpec
        """
        try:
            parts = urlsplit(url)
            is_allowed = any(True for _ in self._keys(parts))
        except ValueError:
            raise InvalidSpec(field=field, reason=f"{url} is not a URL; correct it") from None
        if not is_allowed:
            host = parts.hostname or url
            reason = f"{host} is not a host that specs may name here; have the operator add it to "
            raise InvalidSpec(field=field, reason=reason + "TUNEWHEEL_SPEC_HOSTS, or choose another")

    def check_hub(self) -> None:
        """Refuse a data set on the Hugging Face hub if the hub's host is not listed.

        Raises:
            InvalidSpec
        """
        self.check_url(f"https://{HUB}/")

    def check_source(self, source: str) -> None:
        """Refuse a URL whose host is not listed, or a path whose folder is not listed.

        Raises:
            InvalidSpec
        """
        if "://" in source and not source.startswith("file://"):
            return self.check_url(source)
        try:
            path = os.path.realpath(local_path(source))
        except ValueError:  # The path has a null byte.
            raise InvalidSpec(field=REPLAY_FIELD, reason=f"{source!r} is not a path; correct it") from None
        folders = [os.path.realpath(folder) for folder in self.folders]
        if not any(os.path.commonpath([path, folder]) == folder for folder in folders):
            reason = f"{source} is in no folder that specs may read; have the operator of curate add its "
            raise InvalidSpec(field=REPLAY_FIELD, reason=reason + "folder to TUNEWHEEL_SPEC_FOLDERS")

    def _keys(self, parts: SplitResult) -> Iterator[str | None]:
        """Yield the key's variable (or None) of every entry that matches the host of ``parts``."""
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host):
            return
        port = parts.port or (443 if parts.scheme == "https" else 80)
        for entry in listed(self.hosts):
            found = _ENTRY.fullmatch(entry)
            assert found is not None
            name = found["host"].strip("[]")
            same_port = found["port"] is None or int(found["port"]) == port
            if same_port and (host == name or host.endswith(f".{name}")):
                yield found["key"]


def local_path(source: str) -> str:
    """Return the path of a ``file://`` URL, or a plain path unchanged."""
    if not source.startswith("file://"):
        return source
    parts = urlsplit(source)
    return unquote(parts.netloc + parts.path)
