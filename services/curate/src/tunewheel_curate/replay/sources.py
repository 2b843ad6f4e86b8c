"""Reads general instruction data: the bundled file, a file or URL with JSON Lines or one JSON list, or a
Hugging Face dataset.

Every source gives distinct conversations, ordered by their hash, and a hash of all of them. Two machines that
read the same content get the same result. The hash in the spec refuses any other content.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.allowed_sources import REPLAY_FIELD as _FIELD
from tunewheel_contracts.formats.allowed_sources import AllowedSources, local_path
from tunewheel_contracts.formats.dataset_spec import BUNDLED, ReplaySpec
from tunewheel_contracts.identity import canonical_json

from tunewheel_curate.cleaning.normalization import normalize_text
from tunewheel_curate.errors import SourceAway
from tunewheel_curate.replay.mixing import ReplayPool, Turns

MAX_BYTES = 256 << 20
MAX_LISTED_BYTES = 64 << 20
"""The largest file that is one JSON list: such a file is parsed at once."""
MAX_ROWS = 200_000
TIMEOUT_SECONDS = 60
_ALPACA = re.compile(
    r"\ABelow is an instruction.*?### Instruction:\n(?P<instruction>.*?)"
    r"(?:\n\n### Input:\n(?P<input>.*?))?\n\n### Response:\s*\Z",
    re.DOTALL,
)
_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
_QUESTIONS = ("instruction", "prompt", "question")
_CONTEXTS = ("context", "input")
_ANSWERS = ("response", "output", "completion", "answer")
_LISTS = ("messages", "conversations")
_COLUMNS = frozenset((*_LISTS, *_QUESTIONS, *_CONTEXTS, *_ANSWERS))


def read_replay(spec: ReplaySpec, allowed: AllowedSources) -> ReplayPool:
    """Read the source that ``spec`` names.

    Raises:
        InvalidSpec: ``allowed`` does not list it, or it does not exist, is too large, holds no conversation,
            or hashes to something else.
        SourceAway: a server did not answer.
    """
    if spec.source == BUNDLED:
        rows = _jsonl_rows((resources.files("tunewheel_curate.replay") / "general.jsonl").read_bytes())
    elif spec.is_file:
        rows = _jsonl_rows(_read_bytes(spec.source, allowed))
    else:
        rows = _dataset_rows(spec, allowed)
    pool = pool_of(rows)
    if not pool.conversations:
        names = ", ".join(_QUESTIONS), ", ".join(_ANSWERS)
        reason = f"{spec.source} holds no conversation; rows need messages, or one of {names[0]} with one of "
        raise InvalidSpec(field=_FIELD, reason=reason + names[1])
    if spec.sha256 not in (None, pool.sha256):
        reason = f"is {spec.sha256}, but {spec.source} hashes to {pool.sha256}; bring back the old content, "
        raise InvalidSpec(field="dataset.replay.sha256", reason=reason + "or accept the new by its hash")
    return pool


def pool_of(rows: Iterable[Mapping[str, Any]]) -> ReplayPool:
    """Return the conversations in ``rows``; other rows are left out."""
    lines = {canonical_json(turns) for row in rows if (turns := conversation(row)) is not None}
    ordered = sorted(lines, key=lambda line: hashlib.sha256(line).digest())
    digest = hashlib.sha256()
    for line in ordered:
        digest.update(line + b"\n")
    return ReplayPool(tuple(json.loads(line) for line in ordered), digest.hexdigest())


def conversation(row: Mapping[str, Any]) -> Turns | None:
    """Return a row as turns that end with an answer; None: it is no conversation.

    Known forms: OpenAI's ``messages``; ShareGPT's ``conversations``; instruction, context and response under
    the usual names; prompts in Alpaca's frame, which is removed.
    """
    listed = next((row[name] for name in _LISTS if row.get(name)), None)
    turns = _listed_turns(listed) if isinstance(listed, list) else _asked_and_answered(row)
    if turns is None or any(not turn["content"] for turn in turns):
        return None
    roles = [turn["role"] for turn in turns if turn["role"] != "system"]
    alternate = roles == ["user", "assistant"] * (len(roles) // 2)
    first_only = all(turn["role"] != "system" for turn in turns[1:])
    return turns if roles and alternate and first_only else None


def _listed_turns(listed: list[Any]) -> Turns | None:
    turns: Turns = []
    for item in listed:
        if not isinstance(item, dict):
            return None
        role = _ROLES.get(str(item.get("role") or item.get("from")))
        content = item.get("content") or item.get("value")
        if role is None or not isinstance(content, str):
            return None
        turns.append({"role": role, "content": normalize_text(content)})
    return turns


def _asked_and_answered(row: Mapping[str, Any]) -> Turns | None:
    question, answer, context = (_first_text(row, names) for names in (_QUESTIONS, _ANSWERS, _CONTEXTS))
    if question is None or answer is None:
        return None
    if framed := _ALPACA.match(question):
        question, context = framed["instruction"], framed["input"] or context
    asked = f"{question}\n\n{context}" if context else question
    return [
        {"role": "user", "content": normalize_text(asked)},
        {"role": "assistant", "content": normalize_text(answer)},
    ]


def _first_text(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), None)


def _read_bytes(source: str, allowed: AllowedSources) -> bytes:
    if "://" in source and (scheme := source.partition("://")[0]) not in ("http", "https", "file"):
        reason = f"{source} cannot be read by {scheme}://; give a path, or a file:// or https:// URL"
        raise InvalidSpec(field=_FIELD, reason=reason)
    allowed.check_source(source)
    if source.startswith(("http://", "https://")):
        return _download(source, allowed)
    path = Path(local_path(source))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidSpec(field=_FIELD, reason=f"{path} is over {MAX_BYTES >> 20} MiB; take a part of it")
        return path.read_bytes()
    except OSError as error:
        reason = f"{path} cannot be read where curate runs ({error.strerror}); put it there, or give a URL"
        raise InvalidSpec(field=_FIELD, reason=reason) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to allowed hosts."""

    def __init__(self, allowed: AllowedSources) -> None:
        self._allowed = allowed

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        self._allowed.check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, allowed: AllowedSources) -> bytes:
    try:
        opener = urllib.request.build_opener(_Redirects(allowed))
        with opener.open(url, timeout=TIMEOUT_SECONDS) as answer:
            data = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        if error.code >= 500 or error.code == 429:
            raise SourceAway(f"{url} answers {error.code}") from error
        raise InvalidSpec(field=_FIELD, reason=f"{url} answers {error.code}; correct it") from error
    except (OSError, ValueError) as error:
        raise SourceAway(f"{url} cannot be read: {error}") from error
    if len(data) > MAX_BYTES:
        raise InvalidSpec(field=_FIELD, reason=f"{url} is over {MAX_BYTES >> 20} MiB; take a part of it")
    return data


def _jsonl_rows(data: bytes) -> Iterator[Mapping[str, Any]]:
    if data[:2] == b"\x1f\x8b":
        data = _unzipped(data)
    if data.lstrip()[:1] == b"[":
        yield from _listed_rows(data)
        return
    for number, line in enumerate(io.BytesIO(data), start=1):
        if number > MAX_ROWS:
            raise InvalidSpec(field=_FIELD, reason=f"has over {MAX_ROWS:,} lines; take a part of it")
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f"line {number} is not JSON ({error}); it must be JSON Lines in UTF-8"
            raise InvalidSpec(field=_FIELD, reason=reason) from error
        if isinstance(row, dict):
            yield row


def _listed_rows(data: bytes) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a file that is one JSON list, as Alpaca's is."""
    if len(data) > MAX_LISTED_BYTES:
        raise InvalidSpec(
            field=_FIELD, reason=f"is a list of over {MAX_LISTED_BYTES >> 20} MiB; write it as JSON Lines"
        )
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidSpec(
            field=_FIELD, reason=f"is no whole list in JSON ({error}); mend it, or write it as JSON Lines"
        ) from error
    if len(rows) > MAX_ROWS:
        raise InvalidSpec(field=_FIELD, reason=f"has over {MAX_ROWS:,} rows; take a part of it")
    yield from (row for row in rows if isinstance(row, dict))


def _unzipped(data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            plain = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidSpec(
            field=_FIELD, reason=f"is no whole gzip file ({error}); compress it anew"
        ) from error
    if len(plain) > MAX_BYTES:
        raise InvalidSpec(field=_FIELD, reason=f"is over {MAX_BYTES >> 20} MiB unpacked; take a part of it")
    return plain


def _dataset_rows(spec: ReplaySpec, allowed: AllowedSources) -> Iterator[Mapping[str, Any]]:
    is_local = Path(spec.source).is_absolute() or Path(spec.source).exists()
    if is_local:
        allowed.check_source(spec.source)
    else:
        allowed.check_hub()
    with tempfile.TemporaryDirectory(prefix="replay-") as scratch:
        # datasets caches a folder by its card, and would not see that the files changed: use no shared cache
        cache = scratch if is_local else None
        rows = load_split(spec.source, spec.split, revision=spec.revision, allowed=allowed, cache=cache)
        if len(rows) > MAX_ROWS:
            reason = f"{spec.source} has over {MAX_ROWS:,} rows; name a smaller split"
            raise InvalidSpec(field=_FIELD, reason=reason)
        # leave out the other columns: some, such as pictures, would be decoded row by row
        columns = [name for name in rows.column_names if name in _COLUMNS]
        for row in rows.select_columns(columns) if columns else ():
            yield dict(row)


def load_split(
    source: str,
    split: str,
    *,
    revision: str | None,
    allowed: AllowedSources,
    name: str | None = None,
    cache: str | None = None,
) -> Any:
    """Return a split of a data set from the hub or from a folder. ``name`` selects a configuration.

    Raises:
        InvalidSpec: it does not exist, or its card names files that ``allowed`` does not list.
        SourceAway: the hub did not answer.
    """
    import datasets
    from datasets.exceptions import DatasetsError
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    if source in _PACKAGED_DATASETS_MODULES:  # "json" and the like would read files of the working directory
        raise InvalidSpec(field=_FIELD, reason=f"{source} is no data set; name one, as owner/name")
    try:
        builder = datasets.load_dataset_builder(source, name=name, revision=revision, cache_dir=cache)
        _check_files(builder.config.data_files or {}, allowed)
        builder.download_and_prepare()
        return builder.as_dataset(split=split)
    except (DatasetsError, FileNotFoundError, ValueError) as error:
        cause = error.__cause__  # the error itself does not say why reading failed
        if isinstance(cause, ConnectionError):
            raise SourceAway(f"{source} cannot be fetched: {cause}") from error
        named = ", ".join(filter(None, (name, split, revision)))
        reason = f"{source} ({named}) is no data set that can be read: {cause or error}; correct it"
        raise InvalidSpec(field=_FIELD, reason=reason) from error
    except OSError as error:
        raise SourceAway(f"{source} cannot be fetched: {error}") from error


def _check_files(data_files: Mapping[Any, Iterable[str]], allowed: AllowedSources) -> None:
    """Refuse a data set whose card names files that are neither on the hub nor where specs may read."""
    for name in (name for files in data_files.values() for name in files):
        if not name.startswith("hf://datasets/"):
            allowed.check_source(name)
