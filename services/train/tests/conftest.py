"""A tiny random model and a tiny dataset, and what runs on them.

The training process costs ten seconds of imports. Tests of the recipe call it here, once per session where
its result is all they want; tests of the processes around it run ``light_worker.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import pytest
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel
from tunewheel_contracts.event import Event
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.formats.run import AdapterRef, RunManifest
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import BASE
from tunewheel_testing.datasets import put_dataset, versioned
from tunewheel_train.data.datasets import Encoded, encode_examples
from tunewheel_train.errors import RunStopped
from tunewheel_train.execution import Trainings
from tunewheel_train.job import Job
from tunewheel_train.progress import Completed, Message, Progressed
from tunewheel_train.runs.controls import Controls
from tunewheel_train.runs.process import WORKER
from tunewheel_train.runs.runs import Run
from tunewheel_train.settings import Settings

Heard = TypeVar("Heard", bound=Message)
WORDS = (
    "red",
    "light",
    "battery",
    "charger",
    "parcel",
    "invoice",
    "bike",
    "helmet",
    "frame",
    "brake",
    "locker",
)
LIGHT_WORKER = Path(__file__).with_name("light_worker.py")


def make_conversation(number: int) -> dict[str, Any]:
    """An example whose length depends on its number and whose answer on its parity."""
    question = " ".join(WORDS[(number * 7 + at) % len(WORDS)] for at in range(3 + number % 5))
    return {
        "example_id": f"ex-{number:03}",
        "messages": [
            {"role": "system", "content": "You are the help desk. Answer with JSON."},
            {"role": "user", "content": f"Ticket {number}: {question}"},
            {"role": "assistant", "content": json.dumps({"category": ("billing", "battery")[number % 2]})},
        ],
    }


@pytest.fixture(scope="session")
def conversation_of() -> Callable[[int], dict[str, Any]]:
    return make_conversation


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Sums depend on the number of threads, and other tests in this process change it. A fixture would come
    too late: those of the session, which train, are made before those of a test."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def tiny(tiny_base: BaseModel):
    """(model, tokenizer) in fp32, fresh for every test."""
    return load_base(tiny_base, dtype="float32", device="cpu")


@pytest.fixture
def encoded(tiny) -> list[Encoded]:
    return encode_examples([make_conversation(number) for number in range(24)], tiny[1], max_tokens=512)[0]


@pytest.fixture(scope="session")
def train_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.parquet"
    pl.DataFrame([make_conversation(number) for number in range(24)]).write_parquet(path)
    return path


def make_pair(number: int, rejected: str = "I do not know") -> dict[str, Any]:
    """A prompt, a right answer and one to avoid."""
    prompt = [
        {"role": "system", "content": "You are the help desk. Answer with JSON."},
        {"role": "user", "content": f"Ticket {number}: red light"},
    ]
    return {
        "pair_id": f"pair-{number}", "prompt": prompt, "chosen": '{"category": "battery"}',
        "rejected": rejected, "record_id": f"rec-{number}",
    }  # fmt: skip


@pytest.fixture(scope="session")
def pair_of() -> Callable[..., dict[str, Any]]:
    return make_pair


@pytest.fixture(scope="session")
def pairs_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "preferences.parquet"
    pl.DataFrame([make_pair(number) for number in range(8)]).write_parquet(path)
    return path


@pytest.fixture(scope="session", autouse=True)
def checkpoints_at_every_chance() -> None:
    """A checkpoint is written every ``checkpoint_steps``, whatever it costs, so that tests know the steps."""
    forge = runpy.run_path(str(Path(__file__).with_name("forge.py")))
    forge["checkpoint_at_every_chance"]()


@dataclass
class Case:
    """One job, trained in this process."""

    job: Job
    messages: list[Message] = field(default_factory=list)

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> Completed:
        from tunewheel_train.recipe import train

        return train(self.job, report=self.messages.append, should_stop=should_stop)

    def stop_after(self, step: int) -> None:
        """Train until ``step`` steps are done, as SIGTERM would have it."""
        with pytest.raises(RunStopped) as caught:
            # The step that is running when the wish comes is still finished.
            self.train(lambda: len(self.heard(Progressed)) >= step - 1)
        assert caught.value.step == step

    def heard(self, kind: type[Heard]) -> list[Heard]:
        return [message for message in self.messages if isinstance(message, kind)]

    def weights(self) -> dict[str, Any]:
        from safetensors.torch import load_file

        (file,) = self.job.output_dir.glob("*.safetensors")
        return load_file(file)


Cases = Callable[..., Case]


@pytest.fixture(scope="session")
def cases(tiny_base: BaseModel, train_path: Path) -> Callable[[Path], Cases]:
    """Makes cases of six steps of four examples, each in a directory by its name in a folder."""
    given = {"base_model": str(tiny_base.path), "train_path": train_path}
    return lambda folder: functools.partial(_case, folder, given)


def _case(folder: Path, given: dict[str, Any], name: str = "run", **changes: Any) -> Case:
    """Keywords replace fields of the job or of its recipe."""
    paths = given | {
        "run_id": "run-tiny", "output_dir": folder / name / "adapter", "work_dir": folder / name / "work",
        "cache_dir": folder / "cache", "dtype": "float32",
    }  # fmt: skip
    steps = {
        "rank": 4, "alpha": 8, "learning_rate": 5e-3, "epochs": 1.0, "batch_size": 4, "micro_batch_size": 2,
        "checkpoint_steps": 2,
    }  # fmt: skip
    of_job = {key: value for key, value in changes.items() if key in Job.model_fields}
    of_recipe = {key: value for key, value in changes.items() if key not in Job.model_fields}
    return Case(Job.model_validate(paths | of_job | {"recipe": steps | of_recipe}))


@pytest.fixture
def case(cases: Callable[[Path], Cases], tmp_path: Path) -> Cases:
    """Make a case; keywords replace fields of the job or of its recipe."""
    return cases(tmp_path)


@pytest.fixture(scope="session")
def trained(
    cases: Callable[[Path], Cases], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Case, Completed]]:
    """The uninterrupted run of the default case by a method, with or without dropout; trained once, not to be
    changed."""
    make = cases(tmp_path_factory.mktemp("trained"))

    @functools.cache
    def once(method: str, dropout: float) -> tuple[Case, Completed]:
        made = make(f"{method}-{dropout}", method=method, dropout=dropout)
        return made, made.train()

    # Cached by what is meant: with and without the default named, a second run would find the first's files.
    return lambda method, dropout=0.0: once(method, dropout)


@pytest.fixture(scope="session")
def forge() -> Iterator[Callable[..., list[int]]]:
    """Train a job file, or one of every node, in processes of their own (``forge.py``); returns their exit
    codes."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("forge.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip

    def train(*job_files: Path, point: str | None = None, processes: int = 1, threads: int = 1) -> list[int]:
        assert process.stdin is not None
        assert process.stdout is not None
        request = {
            "jobs": [str(file) for file in job_files], "point": point, "processes": processes,
            "threads": threads,
        }  # fmt: skip
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield train
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


@pytest.fixture(scope="session")
def a_run() -> Run:
    """A run that nothing is trained of."""
    ref = ArtifactRef(path="x", sha256="0" * 64, size_bytes=1)
    return Run(
        run_id="run-1", superseded_id="run-0", model_id="m", project="p", dataset_id="ds-1", dataset=ref,
        criteria_sha256="0" * 64, train=ref, base=BASE, recipe=TrainSpec(),
    )  # fmt: skip


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A control group of 512 MiB; a process that writes its id to ``cgroup.procs`` is in it."""
    root = Path("/sys/fs/cgroup")
    group = (root / "memory" if (root / "memory").is_dir() else root) / f"tunewheel-{os.getpid()}"
    limit = "memory.limit_in_bytes" if group.parent.name == "memory" else "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text(str(512 << 20))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip("a control group can be made by root alone, where the machine has them for memory")
    yield group
    group.rmdir()


IMPATIENT = (
    "import types, huggingface_hub.utils._http as http; "
    "http.time = types.SimpleNamespace(sleep=lambda _: None)"
)
"""Where a commit is named, the hub's client asks again and again, for 23 s in all: not here."""


class StubLease:
    """A lease outside of Kafka."""

    class Lost(Exception):
        pass

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def check(self) -> None:
        if self.lost.is_set():
            raise self.Lost


@functools.cache
def light_worker() -> Sequence[str]:
    """The command of a light worker, forked from a process that has imported what it needs."""
    server = runpy.run_path(str(Path(__file__).parents[3] / "tests/integration/fork_server.py"))
    return server["forked"]("light_worker")


@dataclass
class Bench:
    """A store with one dataset version in it, and what is needed to train on it; see LIGHT_WORKER."""

    store: ObjectStore
    settings: Settings
    event: DatasetVersioned
    manifest: DatasetManifest
    controls: Controls = field(default_factory=Controls)
    lease: StubLease = field(default_factory=StubLease)
    told: list[Event] = field(default_factory=list)
    worker: Sequence[str] = field(default_factory=light_worker)

    @property
    def trainings(self) -> Trainings:
        return Trainings(self.store, self.settings, self.controls, worker=self.worker)

    def with_the_real_worker(self) -> Bench:
        self.worker = WORKER
        return self

    def whose_worker_first_runs(self, script: str) -> Bench:
        """The light worker, in processes that run ``script``, a line of Python, before it."""
        self.worker = (
            sys.executable, "-c",
            f"import runpy, sys; {script}; runpy.run_path({str(LIGHT_WORKER)!r}, run_name='__main__')",
        )  # fmt: skip
        return self

    async def tell(self, news: Event) -> None:
        self.told.append(news)

    async def train(self) -> Event:
        return await self.trainings.train(self.event, lease=self.lease, tell=self.tell)

    def on_another_machine(self, cache_dir: Path) -> Bench:
        settings = self.settings.model_copy(update={"cache_dir": cache_dir})
        return Bench(self.store, settings, self.event, self.manifest)


@pytest.fixture
async def bench(tiny_base: BaseModel, train_path: Path, tmp_path: Path) -> Callable[..., Awaitable[Bench]]:
    """Make a bench; keywords replace fields of the train spec or, with ``base_model``, the base."""

    async def make(
        base_model: str = str(tiny_base.path),
        dataset_id: str = "ds-tiny",
        project: str = "helpdesk",
        **train: Any,
    ) -> Bench:
        store = ObjectStore(f"file://{tmp_path}/store")
        version = await store_dataset(store, dataset_id, train_path.read_bytes(), base_model, train, project)
        settings = Settings(cache_dir=tmp_path / "cache", train_threads=1, progress_seconds=0.0)
        return Bench(store, settings, versioned(*version), version[0])

    return make


async def store_dataset(
    store: ObjectStore,
    dataset_id: str,
    parquet: bytes,
    base_model: str,
    train: dict[str, Any],
    project: str = "helpdesk",
) -> tuple[DatasetManifest, ArtifactRef]:
    spec = ProjectSpec.model_validate(
        {
            "project": project,
            "base_model": base_model,
            "task": {"system_prompt": "Answer."},
            "criteria": [{"metric": "perplexity", "maximum": 100}],
            "train": {
                "rank": 4, "alpha": 8, "learning_rate": 5e-3, "epochs": 1, "batch_size": 4,
                "micro_batch_size": 4, "checkpoint_steps": 2, **train,
            },
        }
    )  # fmt: skip
    return await put_dataset(store, spec, dataset_id=dataset_id, train=parquet)


@pytest.fixture
def store_run() -> Callable[..., Awaitable[None]]:
    """Store a completed run of another dataset: its manifest and the adapter ``model_id``, whose fields
    keywords replace. ``beside``: the adapter lies where a second worker put it. ``of`` replaces fields of the
    manifest."""

    async def put(
        store: ObjectStore,
        model_id: str,
        *,
        beside: str = "",
        of: dict[str, Any] | None = None,
        **adapter: Any,
    ) -> None:
        path = f"adapters/{model_id}{beside}"
        files = [
            await store.put(f"{path}/{name}", content)
            for name, content in (
                ("adapter_config.json", b"{}"),
                ("adapter_model.safetensors", b"weights"),
                ("tunewheel.json", b"{}"),
                ("README.md", b"of no use here"),
            )
        ]
        told = {"base": BASE, "method": "lora"} | adapter
        run_id = f"run-{model_id.rpartition('-')[2]}01234567"
        manifest = RunManifest(
            run_id=run_id, project=model_id.rpartition("-")[0], dataset_id="ds-before", dataset=files[0],
            criteria_sha256="0" * 64, recipe=TrainSpec(), dtype="float32", seed=1, versions={}, steps=1,
            tokens=1, wall_seconds=1.0, metrics={},
            adapter=AdapterRef.model_validate({"model_id": model_id, "path": path, "files": files} | told),
        )  # fmt: skip
        manifest = manifest.model_copy(update=of or {})
        await store.put(f"runs/{run_id}/manifest.json", manifest.model_dump_json().encode())

    return put
