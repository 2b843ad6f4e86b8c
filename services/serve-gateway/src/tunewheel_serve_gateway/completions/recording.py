"""Turns an exchange into its Kafka record: checks the output's format, applies the project's log policy, and
makes the event.

Runs in the completion log's own threads, a batch at a time. Polars and presidio are imported there, and only
for projects with an output schema, output rules or redaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from tunewheel_contracts.binding import to_headers
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.event import OUR_SOURCES, KafkaRecord
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.fields import JsonObject
from tunewheel_contracts.formats.confidence import Confidence
from tunewheel_contracts.formats.serving import LogPolicy
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_contracts.identity import event_id
from tunewheel_contracts.pseudonyms import Pseudonyms

from tunewheel_serve_gateway.chat_request import Messages
from tunewheel_serve_gateway.completions.exchange import Exchange, source_id
from tunewheel_serve_gateway.completions.kept import Kept
from tunewheel_serve_gateway.completions.overrides import MAX_TOKENS
from tunewheel_serve_gateway.completions.redacting import clean

if TYPE_CHECKING:
    from tunewheel_outputs.form import AnswerForm

log = structlog.get_logger(__name__)
SpecOf = Callable[[str], ProjectSpec | None]
TOPIC = InferenceCompleted.type
SOURCE = f"{OUR_SOURCES}serve-gateway"
LONGEST_TEXT = 1_000_000
"""Characters; the limit of ``contracts.fields.Text``."""
MOST_VIOLATIONS = 60


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one exchange after ``policy`` was applied."""

    policy: LogPolicy
    messages: Messages
    output: str
    error: str | None


class Recorder:
    """Makes records. ``spec_of`` returns a project's present spec, ``secret`` the key for hashed texts. May
    be used by several threads."""

    def __init__(self, spec_of: SpecOf, secret: Callable[[], str]) -> None:
        self._spec_of = spec_of
        self._secret = secret
        self._forms: dict[tuple[str, str], tuple[ProjectSpec, JsonObject | None, AnswerForm]] = {}

    def is_slow(self, exchange: Exchange) -> bool:
        """Return whether recording ``exchange`` takes milliseconds, because its texts are redacted."""
        return self._policy(exchange) == "redacted"

    def record(self, exchanges: Sequence[Exchange]) -> list[Kept | None]:
        """Return a record of each exchange; None for an exchange that is no valid event."""
        texts = self._texts(exchanges)
        return [self._kept(one, said) for one, said in zip(exchanges, texts, strict=True)]

    def prepare(self, projects: Sequence[str]) -> None:
        """Build the output checks of ``projects``, so that the first answer need not wait for them."""
        for project in projects:
            spec = self._spec_of(project)
            with contextlib.suppress(Exception):  # The first answer's check fails again and logs the error.
                if spec is not None:
                    self._form(spec)

    def prepare_redaction(self, projects: Sequence[str]) -> None:
        """Redact a text for each of ``projects`` that logs redacted texts, so that the first answer need not
        wait for the libraries."""
        for spec in filter(None, map(self._spec_of, projects)):
            if policy_of(spec) == "redacted":
                with contextlib.suppress(BaseException):  # The first answer's redaction logs the error.
                    clean(spec, ["warm"], ["{}"])

    def _policy(self, exchange: Exchange) -> LogPolicy:
        return policy_of(self._spec_of(exchange.project))

    def _kept(self, exchange: Exchange, texts: Texts) -> Kept | None:
        try:
            customer = exchange.customer
            value = _value(exchange, texts, customer, *self._verdict(exchange), self._confidence(exchange))
        except (ValueError, TypeError) as error:  # orjson's error is a TypeError
            log.error("completion_refused", completion_id=exchange.completion_id, error=str(error))
            return None
        return Kept(
            project=exchange.project,
            customer=customer,
            completion_id=exchange.completion_id,
            about=exchange.shadow_of or exchange.answered_by or exchange.completion_id,
            completed_at=exchange.completed_at,
            record=KafkaRecord(TOPIC, exchange.completion_id.encode(), value, _headers(exchange)),
        )

    def _verdict(self, exchange: Exchange) -> tuple[bool | None, tuple[str, ...]]:
        spec = self._spec_of(exchange.project)
        if spec is None or exchange.error is not None or exchange.cancelled or exchange.abstained:
            return None, ()
        try:
            form = self._form(spec, exchange)
            if form is None:
                violations = () if exchange.output.strip() else ("empty",)
            else:
                sources = [content for role, content in exchange.messages if role != "system"]
                if exchange.retrieved is not None:
                    sources.append(exchange.retrieved.context)  # The answer may quote the passages.
                violations = form.violations(exchange.output, "\n\n".join(sources))
        except Exception:  # The completion must be logged, whatever a schema or a rule raises.
            log.exception("format_not_judged", project=spec.project, completion_id=exchange.completion_id)
            return None, ()
        return not violations, violations

    def _confidence(self, exchange: Exchange) -> Confidence | None:
        if exchange.error is not None or exchange.cancelled:
            return None
        spec = self._spec_of(exchange.project)
        return exchange.confidence or measured(exchange, spec.task if spec else None)

    def _form(self, spec: ProjectSpec, exchange: Exchange | None = None) -> AnswerForm | None:
        """Return the project's output check, with the schema that the answer of ``exchange`` was held to;
        None where there is neither schema nor rules."""
        held = exchange.schema if exchange is not None else None
        schema = spec.task.output_schema if held is None else held
        if schema is None and not spec.task.output_rules:
            return None
        name = (spec.project, exchange.model_id if exchange is not None and held is not None else "")
        known = self._forms.get(name)
        if known is None or known[0] is not spec or known[1] is not schema:
            from tunewheel_outputs.form import AnswerForm

            form = AnswerForm(spec.task.model_copy(update={"output_schema": schema}))
            self._forms[name] = known = (spec, schema, form)
        return known[2]

    def _texts(self, exchanges: Sequence[Exchange]) -> list[Texts]:
        found = {n: self._quick(one) for n, one in enumerate(exchanges) if not self.is_slow(one)}
        slow: dict[str, list[int]] = {}
        for n, one in enumerate(exchanges):
            if n not in found:
                slow.setdefault(one.project, []).append(n)
        for project, places in slow.items():
            spec, some = self._spec_of(project), [exchanges[n] for n in places]
            cleaned = redacted(spec, some) if spec is not None else [without_texts(one) for one in some]
            found |= dict(zip(places, cleaned, strict=True))
        return [found[n] for n in range(len(exchanges))]

    def _quick(self, exchange: Exchange) -> Texts:
        policy = self._policy(exchange)
        if policy == "full":
            return Texts("full", exchange.messages, exchange.output, exchange.error)
        if policy == "hashed":
            try:
                return hashed(exchange, self._secret())
            except Exception as error:  # for example a text that cannot be encoded as UTF-8
                _log_missing_texts(exchange.project, error)
        return without_texts(exchange)


def measured(exchange: Exchange, task: TaskSpec | None) -> Confidence | None:
    """Return the confidence in the answer of ``exchange``; None: it was not measured. Safe in any thread."""
    if not exchange.scored:
        return None
    try:
        from tunewheel_outputs.confidence import confidence_of

        tokens = [
            (bytes(text) if isinstance(text, list) else str(text or "").encode(), value)
            for text, value in exchange.scored
        ]
        return confidence_of(exchange.said, tokens, task)
    except Exception:  # no answer may fail, or stay unlogged, for what an engine writes as a token
        log.exception("confidence_not_read", completion_id=exchange.completion_id)
        return None


def policy_of(spec: ProjectSpec | None) -> LogPolicy:
    """Return the project's log policy. Without a spec no text is logged."""
    return spec.serving.log if spec is not None else "off"


def hashed(exchange: Exchange, secret: str) -> Texts:
    names = Pseudonyms(exchange.project, secret)
    messages = tuple((role, names.of("text", content)) for role, content in exchange.messages)
    output = names.of("text", exchange.output) if exchange.output else ""
    return Texts("hashed", messages, output, _bare_error(exchange))


def without_texts(exchange: Exchange) -> Texts:
    return Texts("off", (), "", _bare_error(exchange))


def _bare_error(exchange: Exchange) -> str | None:
    """Return the error to log where texts are not logged. The engine's message may quote the request, so only
    the gateway's own message is kept."""
    if exchange.error is None or exchange.error_is_ours:
        return exchange.error
    return f"failed by fault of the {exchange.fault}; the engine's message is left out, as serving.log asks"


def redacted(spec: ProjectSpec, exchanges: Sequence[Exchange]) -> list[Texts]:
    """Return the texts without personal data; see ``redacting.clean``. If redaction fails, all texts are left
    out."""
    said = [content for one in exchanges for _, content in one.messages]
    said += [one.error or "" for one in exchanges]
    try:
        texts, answers = clean(spec, said, [one.output for one in exchanges])
    # BaseException: a panic of polars is no Exception. KeyboardInterrupt cannot occur in this thread.
    except BaseException as error:
        _log_missing_texts(spec.project, error)
        return [without_texts(one) for one in exchanges]
    cleaned = iter(texts)
    messages = [tuple((role, next(cleaned)) for role, _ in one.messages) for one in exchanges]
    errors = [next(cleaned) or None for _ in exchanges]
    return [Texts("redacted", *one) for one in zip(messages, answers, errors, strict=True)]


def _log_missing_texts(project: str, error: BaseException) -> None:
    """Log that texts were left out. A library's error may quote the text, so only its type is logged."""
    reason = str(error) if isinstance(error, TunewheelError) else type(error).__name__
    log.error("completions_without_texts", project=project, error=reason)


def _value(
    exchange: Exchange,
    texts: Texts,
    customer: str | None,
    valid: bool | None,
    violations: tuple[str, ...],
    confidence: Confidence | None,
) -> bytes:
    """Return the JSON of an ``InferenceCompleted``. Written here field by field, because the model takes two
    to eight times as long, the more the longer the texts; a test holds both equal. Raises ValueError,
    TypeError: it would be no valid event."""
    if max(map(len, (texts.output, *(content for _, content in texts.messages)))) > LONGEST_TEXT:
        raise ValueError(f"a text is over {LONGEST_TEXT} characters")
    data: dict[str, Any] = {
        "project": exchange.project,
        "completion_id": exchange.completion_id,
        "model_id": exchange.model_id,
        "role": exchange.role.value,
        "pinned": exchange.pinned,
        "shadow_of": exchange.shadow_of,
        "messages": [{"role": role, "content": content} for role, content in texts.messages],
        "output": texts.output,
        "finish_reason": exchange.finish_reason,
        "error": texts.error,
        "prompt_tokens": exchange.prompt_tokens,
        "completion_tokens": exchange.completion_tokens,
        "latency_seconds": exchange.latency_seconds,
        "first_token_seconds": exchange.first_token_seconds,
        "queue_seconds": exchange.queue_seconds,
        "streamed": exchange.streamed,
        "client": source_id(exchange.client),
        "customer": customer,
        "completed_at": datetime.fromtimestamp(exchange.completed_at, UTC),
        "format_valid": valid,
        "violations": violations[:MOST_VIOLATIONS],
        "cancelled": exchange.cancelled,
        "fault": exchange.fault,
        "texts": texts.policy,
    }
    if overrides := _told_overrides(exchange):
        data["overrides"] = overrides
    if exchange.retrieved is not None and exchange.retrieved.use is not None:
        data["retrieval"] = exchange.retrieved.use.model_dump(mode="json")
    if confidence is not None:
        data["confidence"] = confidence.model_dump(mode="json")
    if exchange.certainty is not None:
        data["certainty"] = exchange.certainty
    if exchange.answered_by is not None:
        data["answered_by"] = exchange.answered_by
    return orjson.dumps(data, option=orjson.OPT_UTC_Z)


def _headers(exchange: Exchange) -> dict[str, bytes]:
    """Return the headers of the event's record, and the request's trace."""
    named = event_id(TOPIC, f"{exchange.project}\n{exchange.completion_id}", {})
    attributes = to_headers(
        id=named,
        type=TOPIC,
        source=SOURCE,
        subject=exchange.completion_id,
        time=datetime.now(UTC),
        extensions={"project": exchange.project, "correlationid": named},
    )
    return {**attributes, **exchange.trace}


def _told_overrides(exchange: Exchange) -> tuple[str, ...]:
    """Return the settings that the client replaced. ``max_tokens`` is included only where the answer ended at
    the client's limit; otherwise the limit did not change the answer."""
    if exchange.finish_reason == "length":
        return exchange.overrides
    return tuple(name for name in exchange.overrides if name != MAX_TOKENS)
