"""What an orchestrator asks a process: whether it lives, and whether it does what it is there for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from tunewheel_contracts import topics
from tunewheel_runtime.health import LIVE, READY, Health, health_routes
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.telemetry import make_telemetry

HERE = "http://127.0.0.1"


class World:
    """A process whose broker and leadership are as a test says."""

    def __init__(self) -> None:
        self.broker: Any = SimpleNamespace(lost=False, silent_seconds=0.0, lag={})
        self.now = 0.0
        self.health = Health("registry", self.broker, clock=lambda: self.now)
        self.client = TestClient(Starlette(routes=health_routes(self.health.state)))

    def ready(self) -> tuple[int, dict[str, Any]]:
        answer = self.client.get(READY)
        assert self.client.get(LIVE).status_code == 200, "nothing restarts a process for what is away"
        return answer.status_code, answer.json()


def leading(**state: Any) -> Any:
    said = {"held": False, "stands_by": False, "group": ("registry.active", "x")}
    return SimpleNamespace(**said | state)


def test_a_process_is_ready_once_it_is_up() -> None:
    world = World()
    assert world.ready() == (503, {"service": "registry", "ready": False})
    world.health.started = True
    assert world.ready() == (200, {"service": "registry", "ready": True})


def test_a_warning_with_a_time_ends_so_long_after_it_was_given_last() -> None:
    world = World()
    world.health.warn("for ever", "a")
    for world.now in (0.0, 50.0):
        world.health.warn("lowered", "b", seconds=60)
    world.now = 109.0
    assert world.ready()[1]["warnings"] == ["a", "b"]
    world.now = 110.0
    assert world.ready()[1]["warnings"] == world.health.warnings == ["a"]
    world.health.warn("lowered", "b", seconds=60)
    world.health.warn("lowered", "c")  # now it stands until it is taken back
    world.now = 1e9
    assert world.health.warnings == ["a", "c"]


def test_a_standby_process_is_ready_and_says_so() -> None:
    """Else a Deployment of two would never become available."""
    world = World()
    world.health.leadership = leading()
    assert world.ready()[0] == 503, "nobody has said yet who is active"
    world.health.leadership = leading(stands_by=True)
    assert world.ready() == (200, {"service": "registry", "ready": True, "role": "standby"})
    world.health.leadership = leading(held=True)
    assert world.ready() == (503, {"service": "registry", "ready": False, "role": "active"}), "still reading"
    world.health.started = True
    assert world.ready() == (200, {"service": "registry", "ready": True, "role": "active"})


@pytest.mark.parametrize("role", [None, leading(stands_by=True)])
def test_without_its_broker_no_process_is_ready_until_it_answers_again(role: Any) -> None:
    world = World()
    world.health.started, world.health.leadership = role is None, role
    world.broker.silent_seconds = 59.04
    assert world.ready()[0] == 200
    assert world.ready()[1]["broker_silent_seconds"] == 59.0
    world.broker.lost = True
    assert world.ready()[0] == 503
    world.broker.lost, world.broker.silent_seconds = False, 0.0
    assert world.ready()[0] == 200


def test_one_whose_work_goes_on_without_the_broker_is_ready_and_says_for_how_long_it_was_silent() -> None:
    world = World()
    world.health.started, world.health.needs_broker = True, False
    world.broker.lost, world.broker.silent_seconds = True, 3600.0
    assert world.ready() == (
        200, {"service": "registry", "ready": True, "broker_silent_seconds": 3600.0},
    )  # fmt: skip


def test_the_same_is_told_as_metrics() -> None:
    world, telemetry = World(), make_telemetry("registry", None)
    world.health.measure(telemetry.meter)
    assert "leadership" not in telemetry.metrics_text()
    world.health.leadership = leading(stands_by=True)
    world.health.warn("keys", "cannot be read")
    world.broker.lag = {("registry.eval-passed", "eval.passed", "2"): 3}
    text = telemetry.metrics_text()
    for line in (
        'tunewheel_ready{service="registry"} 1',
        'tunewheel_warnings{service="registry"} 1',
        'tunewheel_leadership_active{service="registry",group="registry.active"} 0',
        'tunewheel_broker_silent_seconds{service="registry"} 0.0',
        'tunewheel_consumer_lag{service="registry",group="registry.eval-passed",topic="eval.passed",'
        'partition="2"} 3',
    ):
        assert line in text.splitlines()


def test_every_service_tells_metrics_of_its_subscriptions_before_the_first_event() -> None:
    service = Service("desk", ServiceSettings(store_url="memory://"))

    @service.job(topics.DATASET_REQUESTED)
    async def on_dataset_requested(*_: Any) -> None: ...

    text = TestClient(service.doors.health_asgi(), base_url=HERE).get("/metrics").text
    for line in (
        'tunewheel_events_consumed_total{service="desk",topic="dataset.requested"} 0',
        'tunewheel_events_dead_lettered_total{service="desk",topic="dataset.requested",kind="crashed"} 0',
        'tunewheel_jobs_running{service="desk",topic="dataset.requested"} 0',
    ):
        assert line in text.splitlines()


def test_a_process_that_has_not_read_the_log_answers_503_instead_of_an_empty_list() -> None:
    service = Service("desk", ServiceSettings(store_url="memory://", identity="open"))
    service.one_at_a_time(topics.PROJECT_DECLARED)

    @needs(Role.VIEWER)
    async def models(_: Any) -> PlainTextResponse:
        return PlainTextResponse("none")

    service.doors.mount(Starlette(routes=[Route("/models", models)]))
    client = TestClient(service.doors.asgi(), base_url=HERE)
    service.health.is_reading = True
    refusal = client.get("/models")
    assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "1")
    assert "has not read the log" in refusal.json()["error"]["message"]
    assert refusal.headers["connection"] == "close", "the next one may lead to a process that has read it"
    service.health.is_reading = False
    service.health.leadership = leading(stands_by=True)
    assert client.get("/models").text == "none"


def test_the_grace_of_a_process_is_as_long_as_its_settings_allow_it_to_take() -> None:
    settings = ServiceSettings(store_url="memory://", shutdown_seconds=20, publish_seconds=5)
    assert settings.grace_seconds == 20 + 20 + 5 + 30
