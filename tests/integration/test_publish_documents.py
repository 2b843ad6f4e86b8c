"""Documents by the command line: files through ingest, a watched folder, an object store, withdrawals."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from obstore.store import S3Store
from tunewheel_cli.publishing.publish import publish_path
from tunewheel_cli.publishing.remote import publish_url
from tunewheel_cli.publishing.watching import FolderWatch, Step, Watched
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.topics import (
    DOCUMENT_PUBLISHED,
    DOCUMENT_WITHDRAWN,
    RECORD_INGESTED,
)
from tunewheel_ingest.main import make_app
from tunewheel_ingest.settings import Settings
from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.kafka_door import KafkaDoor
from tunewheel_testing.specs import declared

from .bus import PATIENCE_SECONDS, Bus, running, until

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = REPOSITORY / "services" / "ingest" / "tests" / "files"
NOWHERE = Endpoint("ingest", "http://127.0.0.1:9")


def mine(project: str) -> Any:
    return lambda event: event.project == project


def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    (root / "code").mkdir(parents=True)
    (root / "a.md").write_text("# A\n\ntext")
    (root / "code" / "refund.py").write_text('def due():\n    """What is due."""\n')
    (root / "manual.pdf").write_bytes((FILES / "trail-2.pdf").read_bytes())
    (root / "secret.pdf").write_bytes((FILES / "encrypted.pdf").read_bytes())
    return root


async def test_a_folder_goes_its_two_ways_and_all_of_it_becomes_records(
    kafka: str, tmp_path: Path, project: str
) -> None:
    service = make_app(Settings(bootstrap_servers=kafka, store_url=(tmp_path / "store").as_uri()))
    options = {"bootstrap_servers": kafka}
    async with Bus(kafka) as bus, running(service):
        await bus.publish(declared(project))
        ingest = Endpoint("ingest", f"http://127.0.0.1:{service.doors.http_port}")
        root = folder(tmp_path)
        (root / "blank.pdf").write_bytes(b"")
        summary = await publish_path(root, project=project, door=KafkaDoor(options, ingest))
        assert (summary.events, [str(r) for r in summary.refusals]) == (
            4,
            ["blank.pdf: (body) is empty; send the file's bytes"],
        )
        records = await bus.collect(RECORD_INGESTED, 3, where=mine(project))
        assert {e.data.source_id for e in records} == {"a.md", "code/refund.py", "manual.pdf"}
        (letter,) = await bus.dead_letters("document.published", 1, about=project)
        assert letter.reason.startswith("is encrypted")


async def test_a_pdf_of_200_mb_is_refused_at_the_door_in_little_memory(
    kafka: str, tmp_path: Path, project: str
) -> None:
    huge = tmp_path / "huge.pdf"
    with huge.open("wb") as file:
        file.write(b"%PDF-1.7\n")
        file.truncate(200 << 20)
    service = make_app(Settings(bootstrap_servers=kafka, store_url=(tmp_path / "store").as_uri()))
    async with Bus(kafka) as bus, running(service):
        await bus.publish(declared(project))
        ingest = f"http://127.0.0.1:{service.doors.http_port}"
        told = await published(str(huge), project, kafka, ingest, code=3)
    assert told["published"] == 0
    (refused,) = told["refusals"]
    assert (refused["where"], refused["field"]) == ("huge.pdf", "(body)")
    assert "has 209715200 bytes, 67108864 are allowed" in refused["reason"]
    assert told["peak_mib"] < 150
    stored = [file for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert {file.parent.name for file in stored} <= {"deletes-from"}


async def test_an_object_store_is_published_by_its_url(kafka: str, tmp_path: Path, project: str) -> None:
    root = tmp_path / "bucket"
    (root / "sops").mkdir(parents=True)
    (root / "sops" / "a.md").write_text("# A")
    lines = [json.dumps({"document_id": f"{n}.md", "content": "x"}) for n in range(3)]
    (root / "more.jsonl").write_text("\n".join([*lines, "nonsense"]))
    async with Bus(kafka) as bus:
        summary = await publish_url(
            root.as_uri(), project=project, door=KafkaDoor({"bootstrap_servers": kafka})
        )
        assert (summary.events, [r.line for r in summary.refusals]) == (4, [4])
        events = await bus.collect(DOCUMENT_PUBLISHED, 4, where=mine(project))
    assert {e.data.document_id for e in events} == {"sops/a.md", "0.md", "1.md", "2.md"}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    """An empty bucket of S3's protocol on this machine, which lists three objects a page."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "MOTO_S3_DEFAULT_MAX_KEYS": "3",
    }.items():
        monkeypatch.setenv(name, value)
    httpx.put(f"{url}/papers", timeout=PATIENCE_SECONDS).raise_for_status()
    yield S3Store("papers", endpoint=url, client_options={"allow_http": True})
    server.stop()


@pytest.mark.nightly("matrices")
async def test_an_s3_prefix_is_published_page_by_page(
    kafka: str, tmp_path: Path, project: str, bucket: S3Store
) -> None:
    names = [f"docs/sops/{n}.md" for n in range(7)]
    await asyncio.gather(*(bucket.put_async(name, f"# {name}".encode()) for name in names))
    await bucket.put_async("docs/ä +%.md", b"# odd")
    await bucket.put_async("docs/more.jsonl", b'{"document_id": "in-lines.md", "content": "x"}\nnonsense')
    await bucket.put_async("docs/trail.pdf", (FILES / "trail-2.pdf").read_bytes())
    await bucket.put_async("other/not.md", b"# not asked for")
    service = make_app(Settings(bootstrap_servers=kafka, store_url=(tmp_path / "store").as_uri()))
    async with Bus(kafka) as bus, running(service):
        await bus.publish(declared(project))
        ingest = f"http://127.0.0.1:{service.doors.http_port}"
        told = await published("s3://papers/docs", project, kafka, ingest, code=3)
        again = await publish_url(
            "s3://papers/docs",
            project=project,
            door=KafkaDoor({"bootstrap_servers": kafka}, Endpoint("ingest", ingest)),
        )
        events = await bus.collect(DOCUMENT_PUBLISHED, 20, where=mine(project))
    assert told["by_topic"] == again.published == {"document.published": 10}
    assert [(one["line"], one["field"]) for one in told["refusals"]] == [(2, "(line)")]
    assert {e.data.document_id for e in events} == {
        *(name.removeprefix("docs/") for name in names), "ä +%.md", "in-lines.md", "trail.pdf",
    }  # fmt: skip
    assert len({event.id for event in events}) == 10, "published again, nothing doubled"
    with pytest.raises(TransientError, match=r"(?s)s3://nowhere/: cannot be listed.*NoSuchBucket") as raised:
        await publish_url("s3://nowhere/", project=project, door=KafkaDoor({"bootstrap_servers": kafka}))
    assert "Debug source" not in str(raised.value)


@pytest.mark.parametrize("withdraw", [True, False])
async def test_a_watched_folder_is_kept_in_step(
    kafka: str, tmp_path: Path, project: str, withdraw: bool
) -> None:
    root = tmp_path / "docs"
    root.mkdir()
    (root / "a.md").write_text("one")
    (root / "b.md").write_text("two")
    steps: list[Step] = []
    stop = asyncio.Event()
    watch = FolderWatch(root, project, lambda: KafkaDoor({"bootstrap_servers": kafka}, NOWHERE), withdraw)
    async with Bus(kafka) as bus:
        task = asyncio.create_task(watch.run(steps.append, stop=stop))
        await until(lambda: len(steps) >= 1)
        assert steps[0].summary.published == {"document.published": 2}
        for name, text in (("a.md", "one, changed"), ("c.md", "three")):
            # At once: a watch that meets a file while it is being written publishes it twice.
            (tmp_path / name).write_text(text)
            (tmp_path / name).replace(root / name)
        await until(lambda: sum(step.summary.events for step in steps) >= 4)
        (root / "b.md").unlink()
        await until(lambda: any(step.gone for step in steps))
        stop.set()
        await asyncio.wait_for(task, PATIENCE_SECONDS)
        events = await bus.collect(DOCUMENT_PUBLISHED, 4, where=mine(project))
        assert [e.data.content for e in events if e.data.document_id == "a.md"] == ["one", "one, changed"]
        assert [(step.gone, step.withdrawn) for step in steps if step.gone] == [(("b.md",), withdraw)]
        assert sum(step.summary.published["document.withdrawn"] for step in steps) == withdraw
        if withdraw:
            (gone,) = await bus.collect(DOCUMENT_WITHDRAWN, 1, where=mine(project))
            assert (gone.data.document_id, gone.data.reason) == ("b.md", "its file was deleted")
            assert gone.data.withdrawn_at is None, "up to the event's own time"


@pytest.mark.parametrize("withdraw", [True, False])
async def test_what_is_deleted_while_nothing_watches_is_gone_for_the_next_watch(
    kafka: str, tmp_path: Path, project: str, withdraw: bool
) -> None:
    root = tmp_path / "docs"
    root.mkdir()
    for name in ("a.md", "b.md", "c.md"):
        (root / name).write_text(f"the text of {name}")

    async def watch_once() -> Step:
        steps: list[Step] = []
        stop = asyncio.Event()
        watched = Watched.of(tmp_path / "var", root, project)
        watch = FolderWatch(
            root, project, lambda: KafkaDoor({"bootstrap_servers": kafka}, NOWHERE), withdraw, watched
        )
        task = asyncio.create_task(watch.run(steps.append, stop=stop))
        await until(lambda: bool(steps) or task.done())
        stop.set()
        await asyncio.wait_for(task, PATIENCE_SECONDS)
        return steps[0]

    async with Bus(kafka) as bus:
        assert (await watch_once()).gone == ()
        (root / "b.md").unlink()
        second = await watch_once()
        assert (second.gone, second.withdrawn) == (("b.md",), withdraw)
        assert (await watch_once()).gone == ()
        if withdraw:
            (root / "c.md").unlink()
            await watch_once()
            gone = await bus.collect(DOCUMENT_WITHDRAWN, 2, where=mine(project))
            assert {event.data.document_id for event in gone} == {"b.md", "c.md"}


async def test_a_watch_that_cannot_publish_forgets_nothing(tmp_path: Path, project: str) -> None:
    (tmp_path / "new.md").write_text("one")
    watched = Watched(tmp_path / "seen.json")
    watched.write({"gone.md"})
    steps: list[Step] = []
    stop = asyncio.Event()
    away = {"bootstrap_servers": "127.0.0.1:9"}
    watch = FolderWatch(
        tmp_path, project, lambda: KafkaDoor(away, NOWHERE), withdraw_deleted=True, watched=watched
    )
    task = asyncio.create_task(watch.run(steps.append, stop=stop))
    await until(lambda: bool(steps))
    (tmp_path / "new.md").unlink()
    await until(lambda: len(steps) > 1)
    stop.set()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    assert all(step.error is not None for step in steps)
    assert watched.read() == {"gone.md", "new.md"}, "new.md may have been published before Kafka went away"


async def test_a_watch_outlives_a_kafka_that_is_away(tmp_path: Path, project: str) -> None:
    (tmp_path / "a.md").write_text("one")
    steps: list[Step] = []
    stop = asyncio.Event()
    watch = FolderWatch(tmp_path, project, lambda: KafkaDoor({"bootstrap_servers": "127.0.0.1:9"}, NOWHERE))
    task = asyncio.create_task(watch.run(steps.append, stop=stop))
    await until(lambda: len(steps) >= 2)
    stop.set()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    assert all(step.error is not None and step.summary.events == 0 for step in steps)


MEASURED = """
import json, pathlib, re, runpy, sys
try:
    runpy.run_module("tunewheel_testing.publish_on_kafka", run_name="__main__")
finally:
    (peak,) = re.findall(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
    print(json.dumps({"peak_mib": int(peak) >> 10}))
"""


async def published(*arguments: str, code: int = 0) -> dict[str, Any]:
    """Publish in a process; returned is its summary, and the most memory it had, in MiB."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MEASURED, *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=env)
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode == code, out
    said, peak = out.splitlines()
    return json.loads(said) | json.loads(peak)
