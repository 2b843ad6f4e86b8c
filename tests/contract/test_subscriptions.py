"""What services subscribe to is what the topics say, from which AsyncAPI documents and rights are made."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.generation.asyncapi import consumed_by
from tunewheel_contracts.topics import TOPICS
from tunewheel_runtime.service import Service

SERVICES = ("ingest", "curate", "train", "eval", "registry", "serve-gateway", "monitor", "index", "console")


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Service:
    package = f"tunewheel_{request.param.replace('-', '_')}"
    main: Any = importlib.import_module(f"{package}.main")
    settings: Any = importlib.import_module(f"{package}.settings").Settings
    places = {"store_url": (tmp_path / "store").as_uri(), "cache_dir": tmp_path, "work_dir": tmp_path}
    made = main.make_app(settings(**places))
    assert made.name == request.param
    return made


def test_the_topics_name_the_groups_of_a_service_and_no_others(service: Service) -> None:
    told = {(group, spec.name) for spec in TOPICS for group in spec.groups_of(service.name)}
    assert service.groups == told


def test_the_topics_name_what_a_service_replays_and_nothing_else(service: Service) -> None:
    read = service.replayed | {topic for _, topic in service.groups}
    if service.name == "console":
        read |= {"record.ingested", "inference.completed", "feedback.received"}  # the latest of them alone
    if service.name == "serve-gateway":
        read |= {"inference.completed"}  # one of them at a time, which feedback is about
    assert read == {spec.name for spec in consumed_by(service.name)}


def test_these_are_all_services_on_the_bus() -> None:
    named = {name for spec in TOPICS for name in (*spec.producers, *spec.consumers)}
    assert named - {"upstream", "cli"} == set(SERVICES)
