"""The console's process."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TOPICS
from tunewheel_runtime import lag
from tunewheel_runtime.deadletter import Undecoded
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.log import records_at
from tunewheel_runtime.metrics import gauge
from tunewheel_runtime.process import run_service
from tunewheel_runtime.service import Service

from tunewheel_console.actions import Actions
from tunewheel_console.archive import Archive
from tunewheel_console.authentication import add_authentication
from tunewheel_console.checkpoint import Checkpoint
from tunewheel_console.completion_copy import CompletionCopy
from tunewheel_console.completions import Completions
from tunewheel_console.control.completions import add_choosing
from tunewheel_console.control.events import Feed
from tunewheel_console.control.files import add_scorecard_page
from tunewheel_console.control.identity import add_identity, add_login_links
from tunewheel_console.control.log import Documents, Log
from tunewheel_console.control.neighbours import Neighbour, client_at
from tunewheel_console.control.routes import (
    Sources,
    add_control,
    add_steering,
    make_api,
    sort_by_noun,
)
from tunewheel_console.control.services import add_dead_letters
from tunewheel_console.label_api import add_label_routes
from tunewheel_console.labelling import Labelling
from tunewheel_console.letters import Letters, Traffic
from tunewheel_console.logins import LoginLinks
from tunewheel_console.pages.addresses import add_pages
from tunewheel_console.review_api import add_review_routes
from tunewheel_console.reviewing import Reviewing
from tunewheel_console.sessions import Sessions
from tunewheel_console.settings import Settings
from tunewheel_console.state import ConsoleState

TRAFFIC = (topics.RECORD_INGESTED, topics.INFERENCE_COMPLETED, topics.FEEDBACK_RECEIVED)
"""Topics of which only the latest events are read."""
REFRESH_SECONDS = 5.0
"""The longest time to read the log to its end, for example before a review is submitted."""


def make_app(settings: Settings) -> Service:
    service = Service("console", settings)
    state, feed = ConsoleState(), Feed(service.stopping.is_set)
    letters = Letters(partial(records_at, client_options(settings)))

    def take(event: Envelope[Any]) -> None:
        state.apply(event)
        feed.add(event)

    def told(letter: Undecoded, event: Envelope[Any] | None) -> None:
        letters.add(letter)
        if event is not None:
            state.refuse_command(letter, event)

    def judged(event: Envelope[Any]) -> None:
        state.judge(event)
        feed.add(event)

    service.replay([topics.WINDOW_JUDGED], judged)
    service.replay([topics.REDELIVERY_REQUESTED], letters.ask_again)
    traffic = Traffic(
        settings,
        TRAFFIC,
        take,
        refuse=state.refuse,
        told=told,
        check=service.signatures.check,
        latest=settings.recent_events,
    )
    archive = Archive(
        state, Checkpoint(service.store), rules=f"{version('tunewheel-console')} {settings.identity}",
        told=feed.add, then=traffic.start, failed=service.fail,
    )  # fmt: skip
    archive.reader = reader = service.replay_at(
        [topic for topic in TOPICS if topic not in (*TRAFFIC, *topics.NOT_SHOWN, topics.WINDOW_JUDGED)],
        lambda event, _: take(event),
        forget=state.forget,
        begins=archive.begins,
        keep=archive.keep,
    )
    completions = Completions(settings.work_for("console"))
    copy = CompletionCopy(settings, completions, warn=service.health.warn, failed=service.fail)
    service.replay([topics.ERASURE_REQUESTED], copy.on_erasure)
    service.on_startup(archive.start)
    service.on_startup(copy.start)
    service.on_shutdown(traffic.stop)
    service.on_shutdown(archive.stop)
    service.on_shutdown(copy.stop)
    actions = Actions(service, applied=state.apply, sign=service.publisher.sign)

    async def refresh() -> None:
        await reader.refresh(timeout_seconds=REFRESH_SECONDS)

    reviewing = Reviewing(state, actions, service.store, refresh)
    labelling = Labelling(state, actions, service.store, refresh)
    told_waits = "Seconds for which a project has stood at a step of its turn; of a trial, since its deadline"
    labels = ("project", "step")
    gauge(service.telemetry.meter, "tunewheel.console.waits_seconds", told_waits, lambda: state.waits, labels)
    lags = partial(lag.read_lag, client_options(settings))
    registry, gateway = neighbours(service, settings)
    sources = Sources(service.store, feed, letters, lags, registry, gateway, completions)
    documents = Documents(settings, service.store)
    service.on_shutdown(documents.close)
    log = Log.of(settings, refresh, documents)
    web = make_web(state, actions, reviewing, labelling, service.access, settings, sources, log)
    service.doors.mount(web, any_content=["/login", "/logout"])
    return service


def neighbours(service: Service, settings: Settings) -> tuple[Neighbour, Neighbour]:
    """Return the registry and the gateway, as the console asks them for its callers."""
    addresses = {
        "registry": (settings.registry_url, settings.registry_cafile),
        "serve-gateway": (settings.gateway_url, settings.gateway_cafile),
    }
    found: list[Neighbour] = []
    for name, (url, cafile) in addresses.items():
        prefix = f"TUNEWHEEL_{name.removeprefix('serve-').upper()}"
        client = client_at(url, cafile, setting=f"{prefix}_CAFILE")
        if client is not None:
            service.on_shutdown(client.aclose)
        found.append(Neighbour(name, client, service.passes.authorization, setting=f"{prefix}_URL"))
    registry, gateway = found
    return registry, gateway


def make_web(
    state: ConsoleState,
    actions: Actions,
    reviewing: Reviewing,
    labelling: Labelling,
    access: Access,
    settings: Settings,
    sources: Sources,
    log: Log,
) -> FastAPI:
    """Return the app that serves the pages and the API; all assets come from the installed package."""
    web = make_api(state)
    secret = settings.session_secret.get_secret_value() if settings.session_secret else None
    sessions = Sessions(access, secret=secret, seconds=settings.session_seconds)
    links = LoginLinks()
    add_control(web, state, sources, sessions.identify)
    add_steering(web, state, actions, reviewing.store, log, settings)
    add_choosing(web, state, actions, sources.completions)
    add_dead_letters(web, state, sources.letters, actions)
    add_review_routes(web, state, reviewing)
    add_label_routes(web, state, labelling)
    add_scorecard_page(web, reviewing.store)
    add_login_links(web, links, access)
    add_identity(web, settings)
    sort_by_noun(web)
    add_pages(web)

    add_authentication(web, access, sessions, links, proxies=settings.trusted_proxies)
    return web


def main() -> None:
    run_service("console", Settings, make_app)


if __name__ == "__main__":
    main()
