"""Versions from documents: what is built anew, what is taken over, and what names a version."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web
from structlog.testing import capture_logs
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.events.data import RecordKind
from tunewheel_contracts.events.upstream import DocumentWithdrawn
from tunewheel_contracts.identity import content_id
from tunewheel_embedding.errors import EmbeddingRefused
from tunewheel_runtime.leadership import LeadershipLost
from tunewheel_testing.waiting import until

from .world import Process, World, texts


async def test_a_change_reads_nothing_again_and_the_same_again_is_no_version(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "The bell rings twice.")
    world.publish_record("b.md", "Lockers jam.")
    world.publish_record("t-1", "A ticket.", kind=RecordKind.TICKET)
    process = await Process(world).start()
    assert texts(await process.settle()) == {"a.md": "The bell rings twice.", "b.md": "Lockers jam."}
    assert world.read_whole == 1
    world.publish_record("a.md", "The bell rings thrice.", 1)
    assert texts(await process.settle())["a.md"] == "The bell rings thrice."
    world.publish_record("a.md", "The bell rings thrice.", 1)
    await process.settle()
    assert [one.changed for one in world.named] == [2, 1]
    assert world.named[1].previous == world.named[0].index_id
    assert world.named[1].records_upto == {"0": 4}
    assert world.read_whole == 1


async def test_what_could_not_be_named_is_built_again_under_the_same_name(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    world.refuses = 1
    with pytest.raises(TransientError):
        await (await Process(world).start()).settle()
    stored = set(await world.store.list("indexes"))
    index = await (await Process(world).start()).settle()
    assert texts(index) == {"a.md": "One."}
    assert {path for path in stored if not path.endswith("/unnamed")} == set(
        await world.store.list("indexes")
    )


async def test_another_configuration_and_a_lost_version_read_the_log_again(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One. " * 40)
    process = await Process(world).start()
    first = await process.settle()
    process.declared.tell(world.declare(passage_tokens=16))
    second = await process.settle()
    assert first is not None
    assert second is not None
    assert len(second.rows) > len(first.rows)
    assert world.read_whole == 2
    folder = f"indexes/shop/{second.manifest.index_id}"
    await world.store.delete([second.manifest.vectors.path])
    assert texts(await (await Process(world).start()).settle()) == texts(second)
    assert world.read_whole == 3
    await world.store.delete(await world.store.list(folder))
    assert texts(await (await Process(world).start()).settle()) == texts(second)


async def test_withdrawn_documents_are_in_no_newer_version_and_old_versions_go(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    process = await Process(world).start()
    for minute in range(1, 6):
        world.publish_record("b.md", f"Version {minute}.", minute)
        await process.settle()
    await process.take_back(DocumentWithdrawn(project="shop", document_id="b.md"), 9)
    assert texts(await process.settle()) == {"a.md": "One."}
    assert len(await world.store.folders("indexes/shop")) == 3 + 1, "three versions, and the table"
    assert len(await world.store.list("indexes/shop/versions")) == 1
    world.publish_record("b.md", "Back.", 10)
    assert texts(await process.settle()) == {"a.md": "One.", "b.md": "Back."}


async def test_a_process_that_is_not_the_active_one_any_more_names_nothing(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    process = await Process(world).start()
    world.is_active = False
    with pytest.raises(LeadershipLost):
        await process.settle()
    assert world.named == []


class Endpoint:
    """Embeddings over HTTP, which refuses requests with a certain text, or any."""

    def __init__(self) -> None:
        self.refuses = ""
        self.status = 400
        self.asked: list[list[str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        self.asked.append(texts)
        if any(self.refuses in text for text in texts):
            return web.json_response({"error": {"message": "too long"}}, status=self.status)
        data = [{"index": at, "embedding": [1.0, len(text)]} for at, text in enumerate(texts)]
        return web.json_response({"data": data})


@pytest.fixture
async def endpoint(world: World) -> AsyncIterator[Endpoint]:
    served, app = Endpoint(), web.Application()
    app.router.add_post("/v1/embeddings", served.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    world.declare(embedding={"kind": "endpoint", "base_url": url, "model": "m", "dimensions": 2})
    yield served
    await runner.cleanup()


async def test_a_document_that_the_endpoint_refuses_is_left_out_and_the_others_are_indexed(
    world: World, endpoint: Endpoint
) -> None:
    endpoint.refuses = "Endless"
    for number in range(150):
        world.publish_record(f"{number:03}.md", "Endless." if number in (7, 140) else f"Text {number}.")
    process = await Process(world, hosts="127.0.0.1").start()
    index = await process.settle()
    assert sorted(texts(index)) == [f"{n:03}.md" for n in range(150) if n not in (7, 140)]
    assert world.named[-1].counts.left_out == {"refused_by_embedder": 2}
    assert world.metrics.value("documents.left_out", of="refused_by_embedder") == 2
    assert len(endpoint.asked) <= 40, "two texts are found by halving, not one by one"
    endpoint.asked.clear()
    world.publish_record("150.md", "One more.")
    await process.settle()
    assert [len(texts) for texts in endpoint.asked] == [1], (
        "what was refused is asked for again once it changes"
    )
    world.publish_record("007.md", "Shorter.", 1)
    assert "007.md" in texts(await process.settle())
    assert world.named[-1].counts.left_out == {"refused_by_embedder": 1}
    await process.indexer.builder.embedders.close()


async def test_what_was_refused_is_tried_again_by_the_next_process(world: World, endpoint: Endpoint) -> None:
    endpoint.refuses = "Long"
    for name in ("a.md", "b.md"):
        world.publish_record(name, f"Long {name}.")
    world.publish_record("c.md", "Short.")
    processes = [Process(world, hosts="127.0.0.1") for _ in range(3)]
    await (await processes[0].start()).settle()
    assert world.named[-1].counts.left_out == {"refused_by_embedder": 2}
    await (await processes[1].start()).settle()
    assert len(world.named) == 1, "they are refused again"
    endpoint.refuses = "Nothing"
    assert sorted(texts(await (await processes[2].start()).settle())) == ["a.md", "b.md", "c.md"]
    first, second = world.named
    assert (second.counts.left_out, second.previous) == ({}, first.index_id)
    assert second.index_id != first.index_id
    for process in processes:
        await process.indexer.builder.embedders.close()


async def test_what_changed_is_built_first_and_only_texts_of_what_was_left_out_are_read_again(
    world: World, endpoint: Endpoint
) -> None:
    endpoint.refuses = "Long"
    for name, text in (("a.md", "Long."), ("b.md", "Short."), ("c.md", "Short too.")):
        world.publish_record(name, text)
    processes = [Process(world, hosts="127.0.0.1") for _ in range(2)]
    await (await processes[0].start()).settle()
    assert (world.read_whole, world.in_memory) == (1, {"a.md", "b.md", "c.md"})
    endpoint.refuses = "Nothing"
    process = await processes[1].start()
    world.publish_record("b.md", "Changed.", 1)
    assert texts(await process.settle()) == {"b.md": "Changed.", "c.md": "Short too."}
    assert world.read_whole == 1, "the log is not read for what changed"
    project = process.indexer.projects["shop"]
    assert project.due_at(0.0, 86_400.0) == -math.inf, "now it is the turn of what was left out"
    assert sorted(texts(await process.settle())) == ["a.md", "b.md", "c.md"]
    assert (world.read_whole, world.in_memory) == (2, {"a.md"})
    assert project.due_at(0.0, 86_400.0) is None
    for one in processes:
        await one.indexer.builder.embedders.close()


def named_by_a_former_release(config: str, records: Mapping[str, str], *_: object) -> str:
    return content_id("ix", {"config": config, "documents": sorted(records.items())})


@pytest.mark.parametrize("turned_away", [False, True])
async def test_what_a_former_release_left_out_comes_in_though_its_name_tells_nothing_of_it(
    world: World, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, turned_away: bool
) -> None:
    """Also where the configuration was another one meanwhile, so that nothing is taken over."""
    endpoint.refuses = "Long"
    world.publish_record("a.md", "Long.")
    world.publish_record("b.md", "Short.")
    processes = [Process(world, hosts="127.0.0.1") for _ in range(2)]
    with monkeypatch.context() as former:
        former.setattr("tunewheel_retrieval.files.index_id_of", named_by_a_former_release)
        await (await processes[0].start()).settle()
    (old,) = world.named
    endpoint.refuses = "Nothing"
    process = await processes[1].start()
    if turned_away:
        then = world.specs[-1]
        endpoint.refuses = "Long"
        process.declared.tell(world.declare(**then.data.spec.retrieval.model_dump() | {"passage_tokens": 16}))
        await process.settle()
        endpoint.refuses = "Nothing"
        process.declared.tell(then)
    assert sorted(texts(await process.settle())) == ["a.md", "b.md"]
    assert world.named[-1].index_id != old.index_id
    assert world.named[-1].counts.left_out == {}
    assert world.named[-1].changed == 1, "its record is the same, and it has passages now"
    for one in processes:
        await one.indexer.builder.embedders.close()


async def test_a_process_tries_again_by_itself_what_was_refused(world: World, endpoint: Endpoint) -> None:
    endpoint.refuses = "Long"
    world.publish_record("a.md", "Long.")
    world.publish_record("b.md", "Short.")
    process = await Process(world, hosts="127.0.0.1", retry_seconds=0.01).start()
    await process.settle()
    endpoint.refuses = "Nothing"
    process.indexer.start({})
    await until(lambda: len(world.named) >= 2)
    await process.indexer.stop()
    assert world.named[-1].counts.left_out == {}
    await process.indexer.builder.embedders.close()


async def test_a_document_that_the_log_lost_is_indexed_when_it_is_published_again(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    world.publish_record("b.md", "Two.")
    process = await Process(world).start()
    await process.settle()
    lost = world.records.pop()
    process.declared.tell(world.declare(passage_tokens=16))
    process._read = 1
    with capture_logs() as logs:
        assert texts(await process.settle()) == {"a.md": "One."}
    told = [one for one in logs if one["event"] == "documents_not_on_the_log"]
    assert [(one["log_level"], one["documents"]) for one in told] == [("warning", 1)]
    assert world.named[-1].counts.left_out == {"not_on_the_log": 1}
    world.publish_record("b.md", lost.data.input, 1)
    assert texts(await process.settle()) == {"a.md": "One.", "b.md": "Two."}
    assert world.read_whole == 2


@pytest.mark.parametrize("status", [400, 401])
async def test_an_endpoint_that_refuses_everything_leaves_no_document_out(
    world: World, endpoint: Endpoint, status: int
) -> None:
    endpoint.status = status
    world.publish_record("a.md", "One.")
    process = await Process(world, hosts="127.0.0.1").start()
    with pytest.raises(EmbeddingRefused, match=str(status)):
        await process.settle()
    assert world.named == []
    assert len(endpoint.asked) == (2 if status == 400 else 1)
    await process.indexer.builder.embedders.close()
