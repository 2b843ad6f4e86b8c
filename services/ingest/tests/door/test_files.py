from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator

import httpx
import pytest
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.store import ObjectStore

from .conftest import MAX_DOCUMENT_BYTES, Log

PDF = b"%PDF-1.7 and so on"
URL = "/v1/documents/files"


async def test_a_body_becomes_an_artifact_named_by_its_content(
    client: httpx.AsyncClient, log: Log, store: ObjectStore
) -> None:
    query = {
        "project": "p",
        "document_id": "manuals/a b.pdf",
        "title": "T",
        "attributes": '{"license": "MIT"}',
    }
    answer = await client.post(URL, params=query, content=PDF, headers={"content-type": "application/pdf"})
    assert answer.status_code == 202
    document = log.events[0].data
    assert answer.json()["event_ids"] == [log.events[0].id]
    assert (document.document_id, document.title, document.media_type, document.attributes) == (
        "manuals/a b.pdf",
        "T",
        "application/pdf",
        {"license": "MIT"},
    )
    assert document.file.sha256 == content_sha256(PDF)
    assert document.file.path.endswith(document.file.sha256)
    assert await store.get(document.file) == PDF


async def test_the_same_file_again_is_the_same_event(client: httpx.AsyncClient, log: Log) -> None:
    query = {"project": "p", "document_id": "a.pdf"}
    for content in (PDF, PDF, PDF + b"2"):
        await client.post(URL, params=query, content=content)
    ids = [event.id for event in log.events]
    assert ids[0] == ids[1] != ids[2]


async def test_a_form_does_too(client: httpx.AsyncClient, log: Log, store: ObjectStore) -> None:
    answer = await client.post(
        URL, files={"file": ("guide.docx", b"PK")}, data={"project": "p", "title": "Guide"}
    )
    assert answer.status_code == 202, answer.text
    document = log.events[0].data
    assert (document.document_id, document.title) == ("guide.docx", "Guide")
    assert document.media_type.endswith("wordprocessingml.document")
    assert await store.get(document.file) == b"PK"


async def test_a_file_may_be_for_groups(client: httpx.AsyncClient, log: Log) -> None:
    query = {"project": "p", "document_id": "a.pdf", "allowed_groups": '["legal"]'}
    assert (await client.post(URL, params=query, content=PDF)).status_code == 202
    assert log.events[0].data.allowed_groups == ("legal",)


@pytest.mark.parametrize(
    ("query", "content", "field"),
    [
        ({"document_id": "a.pdf"}, PDF, "project"),
        ({"project": "nobody", "document_id": "a.pdf"}, PDF, "project"),
        ({"project": "p"}, PDF, "media_type"),
        ({"project": "p", "media_type": "application/pdf"}, PDF, "document_id"),
        ({"project": "p", "document_id": "../a.pdf"}, PDF, "document_id"),
        ({"project": "p", "document_id": "a.exe"}, PDF, "media_type"),
        ({"project": "p", "document_id": "a.pdf", "media_type": "image/png"}, PDF, "media_type"),
        ({"project": "p", "document_id": "a.pdf", "attributes": "{"}, PDF, "attributes"),
        ({"project": "p", "document_id": "a.pdf", "allowed_groups": "legal"}, PDF, "allowed_groups"),
        ({"project": "p", "document_id": "a.pdf", "allowed_groups": "{}"}, PDF, "allowed_groups"),
        ({"project": "p", "document_id": "a.pdf", "attributes": '{"a": 1}'}, PDF, "attributes.a"),
        ({"project": "p", "document_id": "a.pdf", "published_at": "soon"}, PDF, "published_at"),
        ({"project": "p", "document_id": "a.pdf"}, b"", "(body)"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_stored(
    client: httpx.AsyncClient, log: Log, store: ObjectStore, query: dict[str, str], content: bytes, field: str
) -> None:
    answer = await client.post(URL, params=query, content=content)
    assert answer.status_code == 422
    assert [refusal["field"] for refusal in answer.json()["refused"]] == [field]
    assert log.events == []
    assert await store.list("") == []


async def test_a_form_without_a_file_or_no_form_at_all_says_so(client: httpx.AsyncClient) -> None:
    kind = {"content-type": "multipart/form-data; boundary=x"}
    for content, words in ((b"--x--\r\n", "holds no file"), (b"nonsense", "is no multipart form")):
        answer = await client.post(URL, content=content, headers=kind)
        assert answer.status_code == 422
        assert words in answer.json()["refused"][0]["reason"]
    form = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.md"\r\n\r\nhello\r\n--x--\r\n'
    for charset in ("undefined", "punycode"):  # Python's, which decode nothing of it
        coded = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
        answer = await client.post(URL, content=form, headers=coded)
        assert "is no multipart form" in answer.json()["refused"][0]["reason"]
    bare = await client.post(URL, content=b"x", headers={"content-type": "multipart/form-data"})
    assert "is no multipart form" in bare.json()["refused"][0]["reason"]


@pytest.mark.parametrize("form", [False, True], ids=["body", "form"])
async def test_200_mb_are_refused_at_the_limit_and_the_rest_is_not_read(
    client: httpx.AsyncClient, log: Log, store: ObjectStore, form: bool
) -> None:
    chunk, sent = bytes(1 << 20), 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        if form:
            yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n'
        for _ in range(200):
            sent += len(chunk)
            yield chunk

    headers = {"content-type": "multipart/form-data; boundary=x"} if form else {}
    tracemalloc.start()
    try:
        answer = await client.post(
            URL, params={"project": "p", "document_id": "a.pdf"}, content=body(), headers=headers
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 413
    assert "max_document_bytes" in answer.json()["refused"][0]["reason"]
    assert sent <= MAX_DOCUMENT_BYTES + (2 << 20)
    assert peak < 8 << 20
    assert (log.events, await store.list("")) == ([], [])


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
async def test_a_file_is_taken_up_to_the_limit(
    client: httpx.AsyncClient, log: Log, form: bool, beyond: int
) -> None:
    data = "\u9234".encode() * (MAX_DOCUMENT_BYTES // 3 + 1)
    data, params = data[: MAX_DOCUMENT_BYTES + beyond], {"project": "p", "document_id": "a.txt"}
    sent = {"files": {"file": ("a.txt", data)}} if form else {"content": data}
    answer = await client.post(URL, params=params, **sent)
    assert answer.status_code == (202 if beyond <= 0 else 413)
    assert [event.data.file.size_bytes for event in log.events] == [len(data)] * (beyond <= 0)


async def test_an_announced_size_over_the_limit_is_refused_unread(client: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    headers = {"content-length": str(200 << 20)}
    query = {"project": "p", "document_id": "a.pdf"}
    answer = await client.post(URL, params=query, content=body(), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["refused"][0]["reason"].startswith("has 209715200 bytes, 8388608 are allowed")
