"""Stores the texts that show an alarm, or that people compare. They are read from the log when the alarm
opens or the pairs are drawn, redacted, and stored in an object that an erasure can empty. No event contains
them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from tunewheel_contracts import topics
from tunewheel_contracts.erasures import Erasure, Erasures
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, decode_data
from tunewheel_contracts.events.evaluation import ComparisonsRequested
from tunewheel_contracts.formats.label_prompts import LabelPrompt, LabelPrompts, request_of
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import canonical_json, content_sha256
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.store import ObjectStore

from tunewheel_monitor.reference import asked, words_in

if TYPE_CHECKING:
    from tunewheel_monitor.alarms import Said

log = structlog.get_logger(__name__)
TOPICS = {"completion": topics.INFERENCE_COMPLETED, "rating": topics.FEEDBACK_RECEIVED}
LEGIBLE = ("full", "redacted")
LONGEST_TEXT = 4_000
MOST_KEYWORDS = 8
KEYWORD_SHARE = 0.1
"""A keyword must occur in at least so many of a cluster's texts. A rarer word says little, and may be a
person's name."""
KEYWORD_TEXTS = 3
Place = tuple[int, int]
"""Partition and offset."""
ReadAt = Callable[[TopicSpec, Sequence[Place]], Awaitable[dict[Place, Envelope[Any]]]]
"""Returns the events at places of a topic, without those that the log no longer has."""


def evidence_path(project: str, alarm_id: str, revision: int = 1) -> str:
    """Return the path of an alarm's texts in the object store. Revision 1 has the texts from when it opened;
    a later ``revision`` of its request for labels has the texts that it added."""
    name = alarm_id if revision == 1 else f"{alarm_id}.{revision}"
    return f"monitor/{project}/alarms/{name}.json"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The stored texts of an alarm. ``path`` None: no text could be read."""

    path: str | None
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exhibits:
    """Reads and writes ``monitor/<project>/alarms/<alarm_id>.json``, in the form of ``LabelPrompts``. The
    file with ``.2`` before ``.json`` has the texts that the second revision of a request for labels added,
    and so on. ``<request_id>.<revision>.json`` has the pairs of answers that people
    compare: an erasure by any release finds them there."""

    store: ObjectStore
    read_at: ReadAt
    erasures: Erasures

    async def keep(
        self,
        spec: ProjectSpec,
        alarm_id: str,
        places: Sequence[tuple[str, tuple[Any, ...]]],
        *,
        words: Mapping[str, float],
        refresh: Callable[[], Awaitable[None]],
        revision: int = 1,
    ) -> Evidence:
        """Store the texts of an alarm. A repetition after an error keeps the first ones.

        ``words``: the share of the reference's questions with each word. ``refresh`` reads the erasures to
        the current end of the log. ``revision`` above 1: these texts are added to those of earlier revisions.

        Raises:
            TransientError: the broker or the store cannot be reached.
        """
        await refresh()  # do not store texts that were erased a moment ago
        found = await self._found(places)
        shown = [self._shown(event) for event in found.values()]
        path, *earlier = [evidence_path(spec.project, alarm_id, number) for number in range(revision, 0, -1)]
        request_id = request_of(alarm_id)
        newest = await self._stored(spec, path, request_id, shown, found, refresh)
        if newest is None:
            return Evidence(None)
        files = [newest, *[await self._read(one) for one in earlier]]
        texts = [asked(item.messages) for file in files if file is not None for item in file.items]
        return Evidence(path, keywords(texts, words))

    async def keep_pairs(
        self,
        spec: ProjectSpec,
        request: ComparisonsRequested,
        said: Said,
        *,
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        """Store the pairs that the newest revision of a request added, as ``keep`` does.

        Raises:
            TransientError: the broker or the store cannot be reached.
        """
        await refresh()
        found, copies = await self._found(said.places), await self._found(said.copies)
        shown = [self._paired(event, copies.get(name)) for name, event in found.items()]
        await self._stored(spec, request.pairs[-1], request.request_id, shown, found, refresh)

    async def _stored(
        self,
        spec: ProjectSpec,
        path: str,
        request_id: str,
        shown: Sequence[LabelPrompt],
        found: Mapping[str, Envelope[Any]],
        refresh: Callable[[], Awaitable[None]],
    ) -> LabelPrompts | None:
        """Store ``shown``, redacted, and return the content of the file; None: there is no text to store."""
        prompts = await asyncio.to_thread(redacted, spec, shown)
        if not any(prompt.messages for prompt in prompts) and not await self.store.exists(path):
            return None
        kept = LabelPrompts(project=spec.project, request_id=request_id, items=tuple(prompts))
        await self.store.first(path, canonical_json(kept.model_dump(mode="json")))
        await refresh()  # an erasure in another process meanwhile did not find this file
        erased = frozenset(name for name, event in found.items() if self._is_erased(event))
        return await self.empty(path, erased) or kept

    async def _found(self, places: Sequence[tuple[str, tuple[Any, ...]]]) -> dict[str, Envelope[Any]]:
        """Return the events at ``places`` that the log still has, in order."""
        found: dict[str, Envelope[Any]] = {}
        for kind, topic in TOPICS.items():
            wanted = {(part, offset): name for name, (of, part, offset) in places if of == kind}
            read = await self.read_at(topic, list(wanted)) if wanted else {}
            found |= {wanted[place]: event for place, event in read.items()}
        return {name: found[name] for name, _ in places if name in found}

    def _shown(self, event: Envelope[Any]) -> LabelPrompt:
        data = event.data
        prompt = LabelPrompt(completion_id=data.completion_id)
        if self._is_erased(event) or getattr(data, "texts", "full") not in LEGIBLE:
            return prompt
        messages = tuple(
            message.model_copy(update={"content": message.content[:LONGEST_TEXT]})
            for message in data.messages
        )
        output = (data.output or "")[:LONGEST_TEXT]
        return prompt.model_copy(update={"customer": data.customer, "messages": messages, "output": output})

    def _paired(self, event: Envelope[Any], copy: Envelope[Any] | None) -> LabelPrompt:
        item, other = self._shown(event), None if copy is None else self._shown(copy)
        if other is None or other.is_erased:
            return item.emptied()
        return item if item.is_erased else item.model_copy(update={"candidate": other.output})

    def _is_erased(self, event: Envelope[Any]) -> bool:
        data = event.data
        return self.erasures.take(
            project=data.project,
            customer=data.customer,
            source_id=data.completion_id,
            at=getattr(data, "completed_at", event.time),
        )

    async def taken(self, project: str, erasure: Erasure) -> dict[str, frozenset[str]]:
        """Return, by path of their file, the completions that ``erasure`` concerns and that have texts.

        Files that an earlier erasure emptied are included, without completions. A process may have written
        the emptied texts back and died before it noticed (see ``empty``), so these files must be checked
        again.

        Raises:
            TransientError: the store cannot be reached.
        """
        found: dict[str, frozenset[str]] = {}
        paths = await self.store.list(f"monitor/{project}/alarms")
        marked = {path.rpartition("/")[0] for path in paths}
        for path in paths:
            kept = await self._read(path) if path.endswith(".json") else None
            items = kept.items if kept else ()
            names = frozenset(item.completion_id for item in items if _is_taken(item, erasure))
            if names or _marks(path) in marked:
                found[path] = names
        return found

    async def empty(self, path: str, names: frozenset[str]) -> LabelPrompts | None:
        """Empty the texts of these completions, and return the new content of the file; None: it is damaged.

        Each completion is first marked by an object of its own. If two processes rewrite a file at the same
        time, the later one brings back texts that the other emptied. It then finds the other's marks, and
        writes again.

        Raises:
            TransientError: the store cannot be reached.
        """
        marks = _marks(path)
        for name in sorted(names):
            await self.store.put(f"{marks}/{_mark(name)}", b"")
        kept = await self._read(path)
        while kept is not None:
            marked = {mark.rpartition("/")[2] for mark in await self.store.list(marks)}
            items = [item.emptied() if _mark(item.completion_id) in marked else item for item in kept.items]
            if tuple(items) == kept.items:
                break
            kept = kept.model_copy(update={"items": tuple(items)})
            await self.store.replace(path, canonical_json(kept.model_dump(mode="json")))
        return kept

    async def _read(self, path: str) -> LabelPrompts | None:
        data = await self.store.read(path)
        if data is None:
            return None
        try:
            return decode_data(LabelPrompts, data)
        except InvalidEvent as error:
            log.error("evidence_damaged", path=path, reason=str(error), mend="remove the file")
            return None


def _marks(path: str) -> str:
    """Return the folder with the marks of a file's emptied completions."""
    return f"{path.removesuffix('.json')}.emptied"


def _mark(completion_id: str) -> str:
    return content_sha256(completion_id.encode())[:32]


def _is_taken(item: LabelPrompt, erasure: Erasure) -> bool:
    if item.is_erased:
        return False
    if erasure.customer is not None:
        return item.customer == erasure.customer
    return item.completion_id == erasure.source_id


def redacted(spec: ProjectSpec, prompts: Sequence[LabelPrompt]) -> list[LabelPrompt]:
    """Return ``prompts`` without the personal data that ``dataset.pii`` finds by patterns; unchanged if it
    keeps personal data. If redaction fails, the texts are emptied. Imports presidio, so do not call it on the
    event loop."""
    if spec.dataset.pii.action == "keep":
        return list(prompts)
    try:
        return _clean(spec, prompts)
    except Exception as error:  # such as text that UTF-8 cannot encode, or an unknown pattern
        log.error("evidence_left_out", project=spec.project, reason=repr(error))
        return [prompt.emptied() for prompt in prompts]


def _clean(spec: ProjectSpec, prompts: Sequence[LabelPrompt]) -> list[LabelPrompt]:
    import polars as pl
    from tunewheel_redaction.redaction import Redactor

    policy = spec.dataset.pii.model_copy(update={"action": "redact", "named_entities": None})
    redactor = Redactor(policy, project=spec.project)

    def series(texts: Sequence[str]) -> tuple[pl.Series, pl.Series]:
        return pl.Series(texts, dtype=pl.String), pl.Series([""] * len(texts), dtype=pl.String)

    contents = [message.content for prompt in prompts for message in prompt.messages]
    cleaned = iter(redactor.clean(*series(contents)).to_list())
    answers = [text or "" for prompt in prompts for text in (prompt.output, prompt.candidate)]
    outputs = iter(redactor.clean_answers(*series(answers)).to_list())
    return [
        prompt.model_copy(
            update={
                "messages": tuple(
                    message.model_copy(update={"content": next(cleaned)}) for message in prompt.messages
                ),
                "output": output,
                "candidate": None if prompt.candidate is None else candidate,
            }
        )
        for prompt, output, candidate in zip(prompts, outputs, outputs, strict=True)
    ]


def keywords(texts: Sequence[str], words: Mapping[str, float]) -> tuple[str, ...]:
    """Return the words that are typical of ``texts`` and rare in the reference, most telling first."""
    said = [text for text in texts if text]
    counts = Counter(word for text in said for word in words_in(text))
    fewest = max(KEYWORD_TEXTS, KEYWORD_SHARE * len(said))
    apart = {
        word: count / len(said) - words.get(word, 0.0) for word, count in counts.items() if count >= fewest
    }
    telling = sorted((word for word in apart if apart[word] > 0), key=lambda word: (-apart[word], word))
    return tuple(telling[:MOST_KEYWORDS])
