"""A whole turn of the wheel from images: tickets at ingest's door, until the gateway's answer comes from the
adapter. Once with all services, and once with the smaller images alone: without the gigabytes of torch.

``make test-images`` runs it after the images were tried one by one; see ``images.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr
from tunewheel_local.kafka.ports import free_port
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.feed import EventFeed
from tunewheel_testing.gateway import GatewayClient

from ..chaos import small_loop
from ..integration.bus import Bus, process
from .containers import SERVICES, VOLUME, WITH_TORCH, Image, container, environment, lay_out, signing

PATIENCE_SECONDS = 300.0


@pytest.mark.parametrize(
    ("images", "processes"),
    [(SERVICES, ()), (("curate", "ingest", "registry", "serve-gateway"), WITH_TORCH)],
    ids=["every service from its image", "those with torch from the checkout"],
)
async def test_tickets_become_an_adapter_that_answers(
    images: Sequence[str],
    processes: Sequence[str],
    built: Callable[[str], Image],
    fresh_kafka: str,
    tmp_path: Path,
) -> None:
    volume = tmp_path / "volume"
    key = lay_out(volume)
    for cache in (volume / "cache", volume / "cache/adapters"):  # the engine reads what the gateway writes
        cache.mkdir()
        cache.chmod(0o777)
    signed = signing(volume, SERVICES)
    ports = {service: free_port() for service in (*images, *processes)}
    more = {
        "TUNEWHEEL_API_KEYS_FILE": f"{VOLUME}/keys.yaml",
        "TUNEWHEEL_CACHE_DIR": f"{VOLUME}/cache",
        "TUNEWHEEL_ENGINE_API_KEY": key,
        "TUNEWHEEL_ENGINE_URL": f"http://127.0.0.1:{ports['engine']}",
    }
    with contextlib.ExitStack() as running:
        for service, port in ports.items():
            told = environment(fresh_kafka, port=port, health_port=free_port())
            told |= more | small_loop.ENVIRONMENT | signed[service]
            # Events name the model by its path, so all services must find it at the same place.
            told = {name: value.replace(VOLUME, str(volume)) for name, value in told.items()}
            log = tmp_path / f"{service}.log"
            if service in images:
                made = running.enter_context(container(built(service), volume, volume))
                running.enter_context(made.started(told, log))
            else:
                told["TUNEWHEEL_WORK_DIR"] = str(tmp_path / "work")
                module = f"tunewheel_{service}.main"
                running.enter_context(process(module, fresh_kafka, volume / "store", log, **told))
        async with EventFeed(KafkaSettings(bootstrap_servers=fresh_kafka)) as feed:
            async with Bus(fresh_kafka) as bus:
                await bus.publish(small_loop.spec_event(str(volume / "model")))
            doors = {
                service: Endpoint(service, f"http://127.0.0.1:{ports[service]}", SecretStr(key))
                for service in ("ingest", "serve-gateway")
            }
            await small_loop.publish_file(doors["ingest"])
            desired = await small_loop.served(feed)
        (route,) = [route for route in desired.data.desired.routes if route.adapter]
        async with GatewayClient(doors["serve-gateway"]) as gateway:
            await gateway.until_served(route.adapter.model_id, patience=PATIENCE_SECONDS)
            answer = await gateway.ask(small_loop.PROJECT, "my bell is broken", max_tokens=4)
        assert answer["model"] == route.adapter.model_id
    lies = [volume / "store" / file.path for file in route.adapter.files]
    assert lies
    assert all(path.is_file() for path in lies)


@pytest.fixture(autouse=True)
def _logs_of_what_failed(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    yield
    for log in sorted(tmp_path.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}")
