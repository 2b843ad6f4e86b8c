"""Training on real Kafka: what cannot be trained on, and commands to a run.

That a run stops when its partition moves is shown for any job in ``test_runtime``; that it goes on elsewhere,
and ends with the same weights, beside the service and by ``chaos/test_loop``, which kills it.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load, save_file
from structlog.testing import capture_logs
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import TrainAction
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef, RunManifest
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.datasets import put_dataset, versioned
from tunewheel_testing.log import wrap
from tunewheel_testing.run_controls import control, train_again, unheard_of
from tunewheel_testing.specs import small_spec
from tunewheel_testing.tiny import write_tiny_model
from tunewheel_train.main import make_app
from tunewheel_train.settings import Settings

from .bus import Bus, running, until
from .fork_server import forked
from .held import FOLDER as HELD_IN

pytestmark = pytest.mark.integration

TRAIN = {
    "rank": 4, "alpha": 8, "learning_rate": 1e-3, "batch_size": 4, "micro_batch_size": 4,
    "checkpoint_steps": 10, "max_tokens": 256,
}  # fmt: skip
HELD = 6.0
"""Epochs of six steps: just so many that a run can be held."""
LONG = 20.0
"""Epochs of six steps: so many that a run can be held in its middle twice."""


@dataclass
class Ground:
    """A store with a tiny base model, and the settings of services that use both."""

    kafka: str
    folder: Path
    base_model: str

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(f"file://{self.folder}/store")

    @property
    def settings(self) -> Settings:
        return Settings(
            bootstrap_servers=self.kafka, store_url=f"file://{self.folder}/store", http_port=0,
            cache_dir=self.folder / "cache", train_threads=1, train_dtype="float32", progress_seconds=0.0,
            session_timeout_ms=30_000,
        )  # fmt: skip

    async def dataset(
        self, project: str, words: int = 5, *, version: str = "", **train: Any
    ) -> Envelope[DatasetVersioned]:
        """Store a version whose questions have up to so many words; returns the event that announces it.
        ``version`` tells a project's versions apart."""
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
        spec = small_spec(project, base_model=self.base_model, train=TRAIN | train)
        version = await put_dataset(self.store, spec, dataset_id=f"ds-{project}{version}", train=rows)
        return wrap(versioned(*version))


@pytest.fixture
def ground(module_kafka: str, tmp_path: Path) -> Ground:
    # A broker of their own: the group reads every dataset.versioned there is, those of other tests too.
    return Ground(module_kafka, tmp_path, str(write_tiny_model(tmp_path / "base")))


def service(ground: Ground) -> Service:
    return make_app(ground.settings, worker=forked("tunewheel_train.worker"))


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run comes further than its middle."""
    monkeypatch.setenv(HELD_IN, str(tmp_path))
    (tmp_path / "training").touch()


@pytest.mark.nightly("matrices")
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
    async with Bus(ground.kafka) as bus, running(service(ground)):
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
    assert "not finite" in failed["wild"].reason
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


@pytest.mark.nightly("matrices")
@pytest.mark.usefixtures("held")
async def test_commands_on_the_log_pause_resume_and_cancel_a_run_and_another_takes_it_up_again(
    ground: Ground,
) -> None:
    options = {"bootstrap_servers": ground.kafka}
    async with Bus(ground.kafka) as bus, running(service(ground)):

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


@pytest.mark.nightly("matrices")
@pytest.mark.usefixtures("held")
async def test_projects_take_turns_on_one_slot_whichever_asked_first(ground: Ground, tmp_path: Path) -> None:
    """Each asks while the first run holds the slot. A version that waits is superseded by the next one."""
    with capture_logs() as logs:

        def waiting() -> list[str]:
            return [one["project"] for one in logs if one["event"] == "job_waits"]

        async with Bus(ground.kafka) as bus, running(service(ground)):
            await bus.publish(await ground.dataset("many", version="-1", epochs=HELD))
            await bus.collect(topics.TRAIN_STARTED, 1)
            asked = [("many", "-2"), ("many", "-3"), ("second", ""), ("third", "")]
            for place, (project, version) in enumerate(asked, 1):
                await bus.publish(await ground.dataset(project, version=version, epochs=0.5))
                await until(lambda count=place: len(waiting()) == count)
            (tmp_path / "training").unlink()
            completed = await bus.collect(topics.TRAIN_COMPLETED, 4)
            (superseded,) = await bus.collect(topics.TRAIN_FAILED, 1)
            started = await bus.collect(topics.TRAIN_STARTED, 4)
    assert waiting() == [project for project, _ in asked]
    assert (superseded.data.dataset_id, superseded.data.superseded_by) == ("ds-many-2", "ds-many-3")
    trained = ["ds-many-1", "ds-second", "ds-third", "ds-many-3"]
    assert in_order(started) == in_order(completed) == trained


def in_order(events: list[Envelope[Any]]) -> list[str]:
    """Return the versions of ``events`` in the order of their times; the log has one by partition."""
    return [event.data.dataset_id for event in sorted(events, key=lambda event: event.time)]


def training_processes() -> list[psutil.Process]:
    """Those of the services in this process."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if is_alive(child) and "tunewheel_train.worker" in command_line(child)
    ]


def is_alive(worker: psutil.Process) -> bool:
    try:
        return worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
