"""From an exchange to its record for the log: the format's verdict, the project's policy, the event.

Runs in the completion log's own threads, a batch at a time. Polars and presidio are imported there, and only
where a project has a schema, rules, or asks for redaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.serving import LogPolicy
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.pseudonyms import Pseudonyms

from tunewheel_serve_gateway.chat_request import Messages
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.kept import Kept, kept_as
from tunewheel_serve_gateway.completions.overrides import MAX_TOKENS
from tunewheel_serve_gateway.completions.redacting import clean

if TYPE_CHECKING:
    from tunewheel_outputs.form import AnswerForm

log = structlog.get_logger(__name__)
Wrap = Callable[[InferenceCompleted], Envelope[InferenceCompleted]]
SpecOf = Callable[[str], ProjectSpec | None]


@dataclass(frozen=True, slots=True)
class Texts:
    """What of one exchange's texts goes on the log, and by which policy."""

    policy: LogPolicy
    messages: Messages
    output: str
    error: str | None


class Recorder:
    """Makes records. ``spec_of`` is asked for each project's present spec, ``secret`` for the key of hashed
    texts. May be used by several threads."""

    def __init__(self, wrap: Wrap, spec_of: SpecOf, secret: Callable[[], str]) -> None:
        self._wrap = wrap
        self._spec_of = spec_of
        self._secret = secret
        self._forms: dict[str, tuple[ProjectSpec, AnswerForm]] = {}

    def is_slow(self, exchange: Exchange) -> bool:
        """Tell whether recording takes milliseconds, so that others should not wait for it."""
        return self._policy(exchange) == "redacted"

    def record(self, exchanges: Sequence[Exchange]) -> list[Kept | None]:
        """Return a record of each exchange; None of one that no event can hold."""
        texts = self._texts(exchanges)
        return [self._kept(one, said) for one, said in zip(exchanges, texts, strict=True)]

    def prepare(self, projects: Sequence[str]) -> None:
        """Import, and build, what the verdicts of ``projects`` need, before the first answer waits for it."""
        for project in projects:
            spec = self._spec_of(project)
            with contextlib.suppress(Exception):  # told with the first answer
                if spec is not None:
                    self._form(spec)

    def _policy(self, exchange: Exchange) -> LogPolicy:
        return policy_of(self._spec_of(exchange.project))

    def _kept(self, exchange: Exchange, texts: Texts) -> Kept | None:
        try:
            valid, violations = self._verdict(exchange)
            data = _event_data(exchange, texts, valid, violations)
            return kept_as(self._wrap(data), exchange.trace)
        except ValueError as error:  # pydantic's, and that of text that no UTF-8 holds
            log.error("completion_refused", completion_id=exchange.completion_id, error=str(error))
            return None

    def _verdict(self, exchange: Exchange) -> tuple[bool | None, tuple[str, ...]]:
        spec = self._spec_of(exchange.project)
        if spec is None or exchange.error is not None or exchange.cancelled:
            return None, ()
        try:
            form = self._form(spec)
            if form is None:
                violations = () if exchange.output.strip() else ("empty",)
            else:
                told = [content for role, content in exchange.messages if role != "system"]
                if exchange.retrieved is not None:
                    told.append(exchange.retrieved.context)  # what is cited may stand there
                asked = "\n\n".join(told)
                violations = form.violations(exchange.output, asked)
        except Exception:  # whatever a schema or a rule does, the completion is logged
            log.exception("format_not_judged", project=spec.project, completion_id=exchange.completion_id)
            return None, ()
        return not violations, violations

    def _form(self, spec: ProjectSpec) -> AnswerForm | None:
        """Return what checks answers; None where any answer does that says something."""
        if spec.task.output_schema is None and not spec.task.output_rules:
            return None
        known = self._forms.get(spec.project)
        if known is None or known[0] is not spec:
            from tunewheel_outputs.form import AnswerForm

            self._forms[spec.project] = known = (spec, AnswerForm(spec.task))
        return known[1]

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
            except Exception as error:  # such as text that no UTF-8 holds
                _tell_of_texts_left_out(exchange.project, error)
        return without_texts(exchange)


def policy_of(spec: ProjectSpec | None) -> LogPolicy:
    """Return what of texts goes on the log; none of a project whose declaration is gone, or unknown yet."""
    return spec.serving.log if spec is not None else "off"


def hashed(exchange: Exchange, secret: str) -> Texts:
    names = Pseudonyms(exchange.project, secret)
    messages = tuple((role, names.of("text", content)) for role, content in exchange.messages)
    output = names.of("text", exchange.output) if exchange.output else ""
    return Texts("hashed", messages, output, _bare_error(exchange))


def without_texts(exchange: Exchange) -> Texts:
    return Texts("off", (), "", _bare_error(exchange))


def _bare_error(exchange: Exchange) -> str | None:
    """Return what is said of a failure where texts are not: the engine's own words may quote the request."""
    if exchange.error is None or exchange.error_is_ours:
        return exchange.error
    return f"failed by fault of the {exchange.fault}; serving.log leaves the engine's words out"


def redacted(spec: ProjectSpec, exchanges: Sequence[Exchange]) -> list[Texts]:
    """Return the texts without personal data, see ``redacting.clean``. Where that is not possible, no text is
    left."""
    said = [content for one in exchanges for _, content in one.messages]
    said += [one.error or "" for one in exchanges]
    try:
        texts, answers = clean(spec, said, [one.output for one in exchanges])
    except BaseException as error:  # a panic of polars is no Exception; no interrupt comes to this thread
        _tell_of_texts_left_out(spec.project, error)
        return [without_texts(one) for one in exchanges]
    told = iter(texts)
    messages = [tuple((role, next(told)) for role, _ in one.messages) for one in exchanges]
    errors = [next(told) or None for _ in exchanges]
    return [Texts("redacted", *one) for one in zip(messages, answers, errors, strict=True)]


def _tell_of_texts_left_out(project: str, error: BaseException) -> None:
    """Only what is ours to say is said: an error of a library may quote the text that it failed at."""
    reason = str(error) if isinstance(error, TunewheelError) else type(error).__name__
    log.error("completions_without_texts", project=project, error=reason)


def _event_data(
    exchange: Exchange, texts: Texts, valid: bool | None, violations: tuple[str, ...]
) -> InferenceCompleted:
    return InferenceCompleted(
        project=exchange.project,
        completion_id=exchange.completion_id,
        model_id=exchange.model_id,
        role=exchange.role,
        pinned=exchange.pinned,
        shadow_of=exchange.shadow_of,
        messages=tuple(ChatMessage.model_validate({"role": r, "content": c}) for r, c in texts.messages),
        output=texts.output,
        finish_reason=exchange.finish_reason,
        error=texts.error,
        prompt_tokens=exchange.prompt_tokens,
        completion_tokens=exchange.completion_tokens,
        latency_seconds=exchange.latency_seconds,
        first_token_seconds=exchange.first_token_seconds,
        queue_seconds=exchange.queue_seconds,
        streamed=exchange.streamed,
        client=exchange.client,
        customer=exchange.customer,
        completed_at=datetime.fromtimestamp(exchange.completed_at, UTC),
        format_valid=valid,
        violations=violations[:MOST_VIOLATIONS],
        cancelled=exchange.cancelled,
        fault=exchange.fault,
        texts=texts.policy,
        overrides=_told_overrides(exchange),
        retrieval=exchange.retrieved.use if exchange.retrieved is not None else None,
    )


def _told_overrides(exchange: Exchange) -> tuple[str, ...]:
    """Return what the client replaced. Its own limit counts where the answer ended there: one that ended
    before is what it would have been without."""
    if exchange.finish_reason == "length":
        return exchange.overrides
    return tuple(name for name in exchange.overrides if name != MAX_TOKENS)


MOST_VIOLATIONS = 60
