"""Training on real Kafka: one run, one result, whoever is killed or joins in the middle of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from safetensors.torch import load, save_file
from tunewheel_basemodel.tiny import write_tiny_model
from tunewheel_cli.run_controls import control, train_again, unheard_of
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import TrainAction
from tunewheel_contracts.formats.dataset import DatasetCounts, DatasetManifest
from tunewheel_contracts.formats.recipe import TrainMethod, TrainSpec
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef, RunManifest
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ObjectStore
from tunewheel_train.main import make_app
from tunewheel_train.runs.process import environment
from tunewheel_train.settings import Settings
from tunewheel_train.trainers import checkpoints

from .bus import Bus, running, until
from .fork_server import forked
from .held import FOLDER as HELD_IN
from .held import held_service
from .specs import small_spec

pytestmark = pytest.mark.integration

TRAIN = {
    "rank": 4, "alpha": 8, "learning_rate": 1e-3, "batch_size": 4, "micro_batch_size": 4,
    "checkpoint_steps": 10, "max_tokens": 256,
}  # fmt: skip
LONG = 20.0
"""Epochs of six steps: so many that a run can be held in its middle three times."""


@dataclass
class Ground:
    """A store with a tiny base model, and the settings of services that use both."""

    kafka: str
    folder: Path
    base_model: str

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(f"file://{self.folder}/store")

    def settings(self, name: str, *, session_timeout_ms: int = 30_000) -> Settings:
        """Of the service ``name``: its own disk, the common store."""
        return Settings(
            bootstrap_servers=self.kafka, store_url=f"file://{self.folder}/store", http_port=0,
            cache_dir=self.folder / name, train_threads=1, train_dtype="float32", progress_seconds=0.0,
            session_timeout_ms=session_timeout_ms,
        )  # fmt: skip

    async def dataset(self, project: str, words: int = 5, **train: Any) -> Envelope[DatasetVersioned]:
        """Store a version whose questions have up to so many words; returns the event that announces it."""
        rows = [
            {
                "example_id": f"ex-{n}",
                "record_ids": [f"rec-{n}"],
                "messages": [
                    {"role": "system", "content": "Answer as JSON."},
                    {"role": "user", "content": f"Ticket {n}: " + "ring " * (n % 5 + words - 5)},
                    {"role": "assistant", "content": f'{{"category": "{("bell", "horn")[n % 2]}"}}'},
                ],
            }
            for n in range(24)
        ]
        path = self.folder / f"{project}.parquet"
        await asyncio.to_thread(pl.DataFrame(rows).write_parquet, path)
        spec = small_spec(project, base_model=self.base_model, train=TRAIN | train)
        parquet = await self.store.put(f"datasets/ds-{project}/train.parquet", path.read_bytes())
        manifest = DatasetManifest(
            dataset_id=f"ds-{project}", project=project, spec=spec, spec_sha256=spec.sha256,
            criteria_sha256=spec.criteria_sha256, rows_sha256="0" * 64, train=parquet, holdout=parquet,
            counts=DatasetCounts(records=24, examples=24, train=24, holdout=0), funnel=(),
        )  # fmt: skip
        content = manifest.model_dump_json().encode()
        ref = await self.store.put(f"datasets/ds-{project}/manifest.json", content)
        data = DatasetVersioned(
            project=project, dataset_id=manifest.dataset_id, manifest=ref, spec_sha256=spec.sha256,
            criteria_sha256=spec.criteria_sha256, base_model=spec.base_model, counts=manifest.counts,
            funnel=(),
        )  # fmt: skip
        return new_event(data, source="/test")


@pytest.fixture
def ground(broker_factory: Callable[..., Any], tmp_path: Path) -> Ground:
    # A broker of its own: the group reads every dataset.versioned there is, those of other tests too.
    kafka = broker_factory().bootstrap_servers
    return Ground(kafka, tmp_path, str(write_tiny_model(tmp_path / "base")))


def service(ground: Ground, name: str, *, machine: str | None = None) -> Service:
    """A worker whose events say ``name``; all share the consumer group."""
    made = make_app(ground.settings(machine or name), worker=forked("tunewheel_train.worker"))
    made.name = name
    return made


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While this file is there, no run comes further than its middle."""
    monkeypatch.setenv(HELD_IN, str(tmp_path))
    (file := tmp_path / "training").touch()
    return file


async def everything(kafka: str, topic: TopicSpec) -> list[Envelope[Any]]:
    """Every event that is on ``topic`` now; within a partition in order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, n) for n in range(topic.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[Envelope[Any]] = []
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found.extend(Envelope.from_kafka(topic.event, r.value, r.headers) for r in records)
        return found
    finally:
        await consumer.stop()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The adapter of ``LONG`` epochs on what every ``Ground`` trains on, trained in one go."""
    folder = tmp_path_factory.mktemp("alone")
    alone = Ground("", folder, str(write_tiny_model(folder / "base")))
    asyncio.run(alone.dataset("alone", epochs=LONG))
    script = (
        "import json, sys; from pathlib import Path; from tunewheel_train.recipe import train\n"
        "from tunewheel_train.job import Job; base, out = sys.argv[1], Path(sys.argv[2])\n"
        "train(Job(base_model=base, train_path=out / 'alone.parquet', output_dir=out / 'adapter',\n"
        "          dtype='float32', run_id='run-alone', work_dir=out / 'work', cache_dir=out / 'cache',\n"
        "          recipe=json.loads(sys.argv[3])), report=lambda message: None)\n"
    )
    recipe = json.dumps(TRAIN | {"epochs": LONG})
    command = [sys.executable, "-c", script, alone.base_model, str(folder), recipe]
    subprocess.run(command, env=environment(1), check=True)
    return load((folder / "adapter" / "adapter_model.safetensors").read_bytes())


async def published_weights(ground: Ground, completed: Envelope[Any]) -> dict[str, Any]:
    (ref,) = [ref for ref in completed.data.adapter.files if ref.path.endswith(".safetensors")]
    return load(await ground.store.get(ref))


def assert_same(expected: dict[str, Any], found: dict[str, Any]) -> None:
    assert len(expected) == len(found) > 0
    assert all(expected[name].equal(found[name]) for name in expected)


async def test_a_run_stops_when_its_partition_moves_and_only_the_new_owner_completes_it(
    ground: Ground, uninterrupted: dict[str, Any], held: Path
) -> None:
    # Whoever joins a worker that has all four partitions is given the last two: this project is in one.
    event = await ground.dataset("moving", epochs=LONG)
    async with Bus(ground.kafka) as bus, running(service(ground, "first")):
        await bus.publish(event)
        await bus.collect(topics.TRAIN_PROGRESSED, 1, where=lambda e: e.data.step >= 12)
        async with running(service(ground, "second")):
            (started,) = await bus.collect(
                topics.TRAIN_STARTED, 1, where=lambda e: e.source == "/tunewheel/second"
            )
            held.unlink()
            (completed,) = await bus.collect(topics.TRAIN_COMPLETED, 1)
            progress = await everything(ground.kafka, topics.TRAIN_PROGRESSED)
            results = await everything(ground.kafka, topics.TRAIN_COMPLETED)
    assert completed.source == "/tunewheel/second"
    assert started.data.resumed_from_step >= 10
    assert [e.id for e in results] == [completed.id]
    sources = [e.source for e in progress]
    last_of_first = max(at for at, source in enumerate(sources) if source == "/tunewheel/first")
    assert progress[last_of_first].data.step <= started.data.resumed_from_step + 10
    assert set(sources[last_of_first + 1 :]) == {"/tunewheel/second"}
    assert_same(uninterrupted, await published_weights(ground, completed))


@contextlib.asynccontextmanager
async def process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """The train service as a process of its own."""
    told = {
        f"TUNEWHEEL_{name.upper()}": str(value)
        for name, value in settings.model_dump().items()
        if value is not None and name in settings.model_fields_set
    }
    made = await asyncio.create_subprocess_exec(*held_service("tunewheel_train"), env=os.environ | told)
    try:
        yield made
    finally:
        if made.returncode is None:
            made.kill()
            await made.wait()


@pytest.mark.chaos
async def test_a_service_killed_in_the_middle_ends_with_the_same_adapter(
    ground: Ground, uninterrupted: dict[str, Any], held: Path
) -> None:
    event = await ground.dataset("killed", epochs=LONG)
    async with Bus(ground.kafka) as bus:
        async with process(ground.settings("one", session_timeout_ms=6_000)) as first:
            await bus.publish(event)
            await bus.collect(topics.TRAIN_PROGRESSED, 1, where=lambda e: e.data.step >= 12)
            # Uploads come after the steps they hold: a kill before the second leaves one to resume from.
            await until(lambda: len(uploaded(ground)) > 1)
            workers = psutil.Process(first.pid).children(recursive=True)
            assert len(workers) == 1
            first.send_signal(signal.SIGKILL)
            await first.wait()
            await until(lambda: not any(is_alive(worker) for worker in workers))
        held.unlink()
        damaged, whole = uploaded(ground)[-1:-3:-1]
        (damaged / checkpoints.WEIGHTS).write_bytes(b"other weights")
        # Another machine: it has the common store only.
        async with process(ground.settings("two")):
            (completed,) = await bus.collect(topics.TRAIN_COMPLETED, 1)
            starts = await bus.collect(topics.TRAIN_STARTED, 2)
        results = await everything(ground.kafka, topics.TRAIN_COMPLETED)
    assert starts[1].data.resumed_from_step == step_of(whole) < step_of(damaged)
    assert [e.id for e in results] == [completed.id]
    assert_same(uninterrupted, await published_weights(ground, completed))


def uploaded(ground: Ground) -> list[Path]:
    """Whole checkpoints in the store, oldest first."""
    found = (ground.folder / "store" / "runs").glob(f"*/checkpoints/*/{checkpoints.MANIFEST}")
    return sorted(manifest.parent for manifest in found)


def step_of(checkpoint: Path) -> int:
    return checkpoints.step_of(Path(checkpoint.name.partition(".")[0]))


def is_alive(worker: psutil.Process) -> bool:
    try:
        return worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_what_cannot_be_trained_on_is_told_and_the_next_run_still_flows(ground: Ground) -> None:
    missing = Ground(ground.kafka, ground.folder, str(ground.folder / "nowhere"))
    small = Ground(ground.kafka, ground.folder, without_embeddings(Path(ground.base_model)))
    broken = Ground(ground.kafka, ground.folder, with_no_number(Path(ground.base_model)))
    changed = await ground.dataset("changed")
    bad = [
        await missing.dataset("missing"),
        await ground.dataset("long", words=600, max_tokens=4_096),  # the context is 512
        await small.dataset("unwritable"),
        await ground.dataset("foreign", continue_from=await foreign_adapter(ground)),
        await broken.dataset("wild"),
        replace(changed, data=changed.data.model_copy(update={"criteria_sha256": "f" * 64})),
    ]
    async with Bus(ground.kafka) as bus, running(service(ground, "train")):
        await bus.publish(*bad, await ground.dataset("good", epochs=1.0))
        failures = await bus.collect(topics.TRAIN_FAILED, 5)
        (completed,) = await bus.collect(topics.TRAIN_COMPLETED, 1)
        (letter,) = await bus.dead_letters(topics.DATASET_VERSIONED.name, 1)
        progress = await bus.collect(topics.TRAIN_PROGRESSED, 6, where=lambda e: e.project == "good")
    failed = {event.project: event.data for event in failures}
    assert {project: data.field for project, data in failed.items()} == {
        "missing": "base_model", "long": "base_model", "unwritable": "base_model",
        "foreign": "train.continue_from", "wild": "train.learning_rate",
    }  # fmt: skip
    assert "more than the base model's context of 512" in failed["long"].reason
    assert "has 80 embeddings, but its tokenizer writes token" in failed["unwritable"].reason
    assert "was trained on some/other at abc" in failed["foreign"].reason
    assert "no number" in failed["wild"].reason
    assert failed["wild"].step == 1
    assert set(failed["wild"].record_ids) < {f"rec-{n}" for n in range(24)}
    assert len(failed["wild"].record_ids) == 4
    assert (letter.field, b"ds-changed" in letter.value) == ("criteria_sha256", True)
    assert completed.project == "good"
    assert completed.causation_id is not None
    published = {path.split("/")[1] for path in await ground.store.list("adapters")}
    assert published == {FOREIGN, completed.data.adapter.model_id}
    for told in progress:
        assert 0 < told.data.grad_norm < math.inf
        assert told.data.memory_bytes > 64 << 20
        assert (told.data.eta_seconds > 0) == (told.data.step < 6)


FOREIGN = "foreign-0123456789ab"


async def foreign_adapter(ground: Ground) -> str:
    """An adapter of the project ``foreign`` that was made on another base."""
    file = await ground.store.put(f"adapters/{FOREIGN}/adapter_config.json", b"{}")
    adapter = AdapterRef(
        model_id=FOREIGN, path=f"adapters/{FOREIGN}", files=(file,), method=TrainMethod.LORA,
        base=BaseModelRef(name="some/other", revision="abc"),
    )  # fmt: skip
    manifest = RunManifest(
        run_id="run-0123456789ab01234567", project="foreign", dataset_id="ds-before", dataset=file,
        criteria_sha256="0" * 64, recipe=TrainSpec(), adapter=adapter, dtype="float32", seed=1, versions={},
        steps=1, tokens=1, wall_seconds=1.0, metrics={},
    )  # fmt: skip
    await ground.store.put(f"runs/{manifest.run_id}/manifest.json", manifest.model_dump_json().encode())
    return FOREIGN


def without_embeddings(model: Path) -> str:
    """A copy of ``model`` that lacks the embeddings of its tokenizer's last tokens."""
    copy = Path(shutil.copytree(model, model.with_name("small")))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": 80}))
    return str(copy)


def with_no_number(model: Path) -> str:
    """A copy of ``model`` one of whose weights is NaN."""
    copy = Path(shutil.copytree(model, model.with_name("broken")))
    weights = load((copy / "model.safetensors").read_bytes())
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return str(copy)


@pytest.mark.usefixtures("held")
async def test_commands_on_the_log_pause_resume_and_cancel_a_run_and_another_takes_it_up_again(
    ground: Ground,
) -> None:
    options = {"bootstrap_servers": ground.kafka}
    async with Bus(ground.kafka) as bus, running(service(ground, "train")):

        async def command(action: TrainAction, request: str) -> None:
            await control("unwanted", run_id, action, request, options, principal=None)

        await bus.publish(await ground.dataset("unwanted", epochs=LONG))
        (started,) = await bus.collect(topics.TRAIN_STARTED, 1)
        run_id = started.data.run_id
        assert not await unheard_of(run_id, options)
        assert await unheard_of(f"{run_id}0", options)
        await bus.collect(topics.TRAIN_PROGRESSED, 1)
        await command(TrainAction.PAUSE, "one")
        await until(lambda: not training_processes())
        await command(TrainAction.RESUME, "two")
        starts = await bus.collect(topics.TRAIN_STARTED, 2)
        assert starts[1].data.resumed_from_step > 0
        await command(TrainAction.CANCEL, "three")
        (failed,) = await bus.collect(topics.TRAIN_FAILED, 1)
        await command(TrainAction.RESUME, "four")
        assert await train_again(run_id, options)
        starts = await bus.collect(topics.TRAIN_STARTED, 3)
        assert not await train_again(run_id, options)
    assert failed.data.field == "(run)"
    assert failed.data.reason.startswith("was cancelled")
    assert {event.data.run_id for event in starts} == {run_id}
    assert starts[2].data.resumed_from_step >= starts[1].data.resumed_from_step


def training_processes() -> list[psutil.Process]:
    """Those of the services in this process."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if is_alive(child) and "tunewheel_train.worker" in command_line(child)
    ]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
