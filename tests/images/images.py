"""The image of every service: built, started as its entry point says, and asked by the health check.

Not part of ``make test``, hence the file's name: it takes minutes, and a service with torch takes gigabytes
of disk. ``make test-images`` needs buildah, which works without a daemon. ``PYTHON_IMAGE`` names another base
image, ``STORAGE_DRIVER=vfs`` is for machines without overlay mounts, ``TESTS="-k ingest"`` takes one image.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port

from .containers import (
    LAUNCHER,
    SERVICES,
    VOLUME,
    WITH_TORCH,
    Image,
    container,
    environment,
    lay_out,
    signing,
)

GUARDED = {
    "console": ("POST", "/v1/projects/none/runs/none/pause"),
    "engine": ("GET", "/v1/models"),
    "ingest": ("GET", "/openapi.json"),
    "registry": ("GET", "/v1/projects/none/models"),
    "serve-gateway": ("GET", "/v1/models"),
}
"""A route of each service that has an API."""
ASKS_WHO = (*GUARDED, "curate", "eval", "train")
"""Services that start only where somebody can be told by name: by an API, or by events that people cause."""

Build = Callable[[str], Image]


@pytest.mark.parametrize("service", SERVICES)
def test_the_image_builds_and_its_entry_point_gets_ready(
    service: str, built: Build, kafka: str, tmp_path: Path
) -> None:
    """On all addresses, as the image is set, with a file of keys; it writes nowhere but in its volumes."""
    image = built(service)
    assert image.config["User"] == "10001:10001"
    assert image.config["Labels"]["org.opencontainers.image.title"] == f"tunewheel-{service}"
    guarded = GUARDED.get(service)
    volume = tmp_path / "volume"
    key = lay_out(volume)
    port, health_port = free_port(), free_port()
    told = environment(kafka, port=port, health_port=health_port)
    with container(image, volume) as made:
        if service != "engine":
            code, said = made.run({**told, "TUNEWHEEL_STORE_URL": ""}, image.config["Cmd"])
            assert code == 2, said[-4000:]
            assert "TUNEWHEEL_STORE_URL: is empty" in said
        if service in ASKS_WHO:
            code, said = made.run(told, image.config["Cmd"])
            assert code == 2, said[-4000:]
            assert "TUNEWHEEL_API_KEYS_FILE" in said
        told |= {"TUNEWHEEL_API_KEYS_FILE": f"{VOLUME}/keys.yaml"} | signing(volume, [service])[service]
        with made.started(told, tmp_path / "log"):
            if guarded is not None:
                assert _status(port, *guarded, key=None) == 401
                assert _status(port, *guarded, key=key) in (200, 404)
        assert made.written() == []


def test_images_with_torch_have_one_layer_of_it(built: Build) -> None:
    """A node that runs train, eval and engine keeps torch and CUDA once."""
    kept = [
        [layer for layer, step in built(name).layers if step.endswith(" in /app ")] for name in WITH_TORCH
    ]
    assert [len(layers) for layers in kept] == [2, 2, 2], "torch's, and the service's own"
    assert len({torch for torch, _ in kept}) == 1
    assert len({own for _, own in kept}) == 3


def test_where_runs_are_jobs_train_gets_ready_without_torch(built: Build, kafka: str, tmp_path: Path) -> None:
    image = built(LAUNCHER)
    volume = tmp_path / "volume"
    lay_out(volume)
    pod = {"spec": {"containers": [{"name": "train", "image": "train"}]}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": pod}}
    (volume / "job.yaml").write_text(json.dumps(job))
    told = environment(kafka, port=free_port(), health_port=free_port())
    told |= {"TUNEWHEEL_API_KEYS_FILE": f"{VOLUME}/keys.yaml"} | signing(volume, ["train"])["train"]
    with container(image, volume) as made:
        code, said = made.run(told, ["python", "-c", "import torch"])
        assert (code, "No module named 'torch'" in said) == (1, True), said[-4000:]
        code, said = made.run(told, image.config["Cmd"])
        assert code == 2, said[-4000:]
        assert "install tunewheel-train[worker]" in said
        told["TUNEWHEEL_TRAIN_JOB_TEMPLATE"] = f"{VOLUME}/job.yaml"
        with made.started(told, tmp_path / "log"):
            pass
        assert made.written() == []


def test_the_command_makes_the_topics_of_an_empty_kafka(built: Build, tmp_path: Path) -> None:
    """As compose.yaml's one-shot service does, and a second time, which changes nothing."""
    image = built("cli")
    (tmp_path / "volume").mkdir()
    broker = LocalKafka(tmp_path / "kafka", port=None).start()
    try:
        told = {"TUNEWHEEL_BOOTSTRAP_SERVERS": broker.bootstrap_servers}
        with container(image, tmp_path / "volume") as made:
            for _ in range(2):
                code, said = made.run(told, [*image.config["Cmd"], "admin", "topics", "--apply"])
                assert code == 0, said
                assert "topics are in order" in said
    finally:
        broker.stop()


def _status(port: int, method: str, path: str, *, key: str | None) -> int:
    request = Request(f"http://127.0.0.1:{port}{path}", method=method)
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
