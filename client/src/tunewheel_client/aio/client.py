"""The client: one object for one wheel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from tunewheel_client.aio.transport import Transport
from tunewheel_client.target import resolve

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    import httpx
    from tunewheel_contracts.api.identity import LoginLink, Me
    from tunewheel_contracts.api.paging import Page

    from tunewheel_client.aio.answers import Labels, ReviewsOfAnswers
    from tunewheel_client.aio.completions import Completions
    from tunewheel_client.aio.datasets import Datasets
    from tunewheel_client.aio.events import Events
    from tunewheel_client.aio.models import Models, Rollouts
    from tunewheel_client.aio.operations import Audit, Commands, DeadLetters, Keys, ServicesOfWheel
    from tunewheel_client.aio.projects import Projects
    from tunewheel_client.aio.quarantine import Quarantine
    from tunewheel_client.aio.runs import Evaluations, Runs, Sweeps
    from tunewheel_client.aio.takebacks import Documents, Erasures
    from tunewheel_client.aio.turns import Alarms, Detectors, Turns
    from tunewheel_client.batches import Item, Kind
    from tunewheel_client.values import Answer, FeedbackReceipt, Receipt

T = TypeVar("T")
TIMEOUT_SECONDS = 60.0
_MODULES = {
    "projects": "projects",
    "datasets": "datasets",
    "quarantine": "quarantine",
    "runs": "runs",
    "sweeps": "runs",
    "evaluations": "runs",
    "models": "models",
    "rollouts": "models",
    "turns": "turns",
    "completions": "completions",
    "alarms": "turns",
    "detectors": "turns",
    "labels": "answers",
    "reviews": "answers",
    "commands": "operations",
    "services": "operations",
    "dead_letters": "operations",
    "documents": "takebacks",
    "erasures": "takebacks",
    "keys": "operations",
    "audit": "operations",
    "events": "events",
}
"""By noun, the module of its resource."""


class AsyncClient:
    """Talks to one wheel, as one caller.

    Everything but ``ask``, ``feedback`` and ``publish`` is asked of the console. All methods raise the errors
    of ``tunewheel_client.errors``. A request is sent again by itself where this is harmless.
    """

    projects: Projects
    datasets: Datasets
    quarantine: Quarantine
    runs: Runs
    sweeps: Sweeps
    evaluations: Evaluations
    models: Models
    rollouts: Rollouts
    turns: Turns
    completions: Completions
    alarms: Alarms
    detectors: Detectors
    labels: Labels
    reviews: ReviewsOfAnswers
    commands: Commands
    services: ServicesOfWheel
    dead_letters: DeadLetters
    documents: Documents
    erasures: Erasures
    keys: Keys
    audit: Audit
    events: Events

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        context: str | None = None,
        project: str | None = None,
        folder: Path | None = None,
        gateway: str | None = None,
        ingest: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Choose the wheel; nothing is sent yet.

        Args:
            url: the address of the wheel's console. Default: ``TUNEWHEEL_URL``, else the context.
            key: an API key or a token. Default: ``TUNEWHEEL_API_KEY``, else the login of the context.
            context: the name of a context that ``login`` has kept. Default: the one in use.
            folder: the folder of a wheel on this machine, which is then meant.
            project: what ``client.project`` is. Default: ``TUNEWHEEL_PROJECT``, else the context's.
            gateway, ingest: their addresses. Default: those of the context, else the console is asked.
            http: the caller's own HTTP client, for example with a proxy. It is not closed here.

        Raises:
            NoAddress: nobody said which wheel is meant.
            InvalidContexts: the file of contexts cannot be used.
        """
        target = resolve(url, key, context=context, project=project, folder=folder)
        self._transport = Transport(target, timeout_seconds=timeout_seconds, http=http)
        self._transport.name_addresses(gateway=gateway, ingest=ingest)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    @property
    def url(self) -> str:
        """The address of the console."""
        return self._transport.target.context.url

    @property
    def project(self) -> str | None:
        """The project that is meant where none is named; None: there is no such project."""
        return self._transport.target.context.project

    async def me(self) -> Me:
        """Return who the caller is, what they may do, and the wheel's version and addresses."""
        from tunewheel_contracts.api.identity import Me

        return await self._transport.read(Me, "me")

    async def login_link(self) -> LoginLink:
        """Return a link that logs a browser in to the console, once, as the caller.

        Raises:
            Conflict: the console asks nobody to log in.
        """
        from tunewheel_contracts.api.identity import LoginLink

        link = await self._transport.request(LoginLink, "POST", "login-links", json={})
        return link.model_copy(update={"url": f"{self.url}{link.path}"})

    async def ask(
        self,
        project: str,
        question: str | Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        retrieval: Literal["on", "off"] | None = None,
        **parameters: Any,
    ) -> Answer:
        """Ask the model that serves ``project``.

        Args:
            question: the question, or a conversation in OpenAI's form (``role`` and ``content``).
            model: a model's id, or ``base`` for the bare base model. Default: the model in production.
            retrieval: whether passages of documents are added. Default: as the project's spec says.
            parameters: those of OpenAI's chat completions, such as ``temperature`` and ``max_tokens``.

        Raises:
            NotFound: no such model is served. Refused: a parameter is wrong. Away: no engine answers.
        """
        from tunewheel_client.aio import asking

        return await asking.ask(
            self._transport, project, question, model=model, retrieval=retrieval, **parameters
        )

    async def feedback(
        self,
        completion_id: str,
        rating: Literal["up", "down"],
        *,
        correction: str | dict[str, Any] | None = None,
        comment: str | None = None,
        submitted_by: str | None = None,
        **told: Any,
    ) -> FeedbackReceipt:
        """Say whether an answer of ``ask`` was right. A ``correction`` becomes an example. Sending the same
        feedback twice counts once.

        Args:
            correction: what the answer should have been, as text or as the JSON object itself.
            submitted_by: the person who says so. Default: the caller.
            told: further fields of ``POST /v1/feedback``, such as ``customer`` and ``messages``.
        """
        from tunewheel_client.aio import asking

        said = {"correction": correction, "comment": comment, "submitted_by": submitted_by, **told}
        return await asking.feedback(self._transport, completion_id, rating, **said)

    async def publish(
        self,
        project: str,
        items: Iterable[Item],
        *,
        kind: Kind | None = None,
    ) -> Receipt:
        """Publish tickets, examples and documents, in batches. Items that were published before count once.

        Items that are wrong are listed in the receipt's ``refused``; the others are published.

        Args:
            items: the fields of ``ticket.published``, ``example.published`` or ``document.published``.
            kind: what the items are. Default: ``ticket_id``, ``example_id`` or ``document_id`` tells. With a
                kind a ticket or an example may lack its id, and gets one from its content.
        """
        from tunewheel_client.aio import publishing

        return await publishing.publish(self._transport, project, items, kind)

    async def publish_file(
        self,
        project: str,
        content: Path | bytes,
        document_id: str,
        *,
        title: str | None = None,
        media_type: str | None = None,
        published_at: datetime | None = None,
        allowed_groups: Sequence[str] = (),
        attributes: Mapping[str, str] | None = None,
    ) -> Receipt:
        """Publish one document as a file, such as a PDF, which ingest reads.

        Args:
            content: the file, or its bytes.
            media_type: its format. Default: the ending of ``document_id`` tells.
            allowed_groups: the groups whose callers may see its passages. Default: every caller.

        Raises:
            Refused: ingest cannot read such a file, or it is too large.
        """
        from tunewheel_client.aio import publishing

        told = {"title": title, "media_type": media_type, "published_at": published_at}
        objects = {"allowed_groups": list(allowed_groups), "attributes": attributes}
        return await publishing.publish_file(
            self._transport, project, content, told | {"document_id": document_id}, objects
        )

    async def each(
        self, list_page: Callable[..., Awaitable[Page[T]]], *arguments: Any, **filters: Any
    ) -> AsyncIterator[T]:
        """Yield the items of all pages: ``client.each(client.runs.list, "desk", state="failed")``."""
        page = await list_page(*arguments, **filters)
        while True:
            for item in page.items:
                yield item
            if page.next is None:
                return
            page = await list_page(*arguments, **filters | {"after": page.next})

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *_MODULES]

    if not TYPE_CHECKING:

        def __getattr__(self, noun: str) -> Any:
            """Return the resource of ``noun``, whose module is imported when the noun is first used."""
            if noun not in _MODULES:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {noun!r}")
            module = import_module(f"{__package__}.{_MODULES[noun]}")
            found = getattr(module, type(self).__annotations__[noun])(self._transport)
            setattr(self, noun, found)
            return found
