"""For every route of every service: requests that it takes, and what they answer to whoever may send them.

All are about the project ``desk``, where they are about any. ``running`` gives each service what it needs to
answer them without a broker: what it would publish is kept, and what it would read is told it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from starlette.applications import Starlette
from starlette.types import ASGIApp
from tunewheel_console.pages.addresses import ADDRESSES
from tunewheel_contracts.event import Event, new_event
from tunewheel_contracts.events.lifecycle import ModelRegistered
from tunewheel_contracts.events.training import TrainStarted
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_runtime import lag
from tunewheel_runtime.deadletter import Position
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.record_search import RecordSearch
from tunewheel_runtime.service import Service
from tunewheel_testing.adapters import BASE
from tunewheel_testing.log import MemoryLog

PROJECT = "desk"
MODEL = "base-0123456789ab"
RUN = "run-1"
SPEC = ProjectSpec(
    project=PROJECT,
    base_model=BASE.name,
    task=TaskSpec(system_prompt="Answer."),
    criteria=(Criterion(metric="rouge_l", minimum=0.1),),
)
COMPLETION_SECRET = "shared by gateways"
LINES = "application/x-ndjson"


@dataclass(frozen=True)
class Sample:
    """A request, and what it is answered with."""

    target: str
    body: Any = None
    status: int = 200
    """Of the answer to a caller who may."""
    refused: int | None = None
    """Of the answer to a caller who has the role in another project only. None: the request is about no
    project, so that the role in any is enough; then nothing of ``desk`` may be in the answer."""
    tells: bool | Literal["held"] = False
    """Whether the answer names the project ``desk`` to callers who may read the project. ``held``: only
    to callers whose grant names the project."""
    kind: str = "application/json"

    @property
    def headers(self) -> dict[str, str]:
        raw = self.raw
        return {"content-type": self.kind, "content-length": str(len(raw))} if raw else {}

    @property
    def raw(self) -> bytes:
        if self.body is None:
            return b""
        if isinstance(self.body, list):
            return b"\n".join(json.dumps(line).encode() for line in self.body)
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def _published(path: str, **fields: Any) -> list[Sample]:
    named = {"project": PROJECT, **fields}
    return [
        Sample(path, named, 202, 403),
        Sample(f"{path}?project={PROJECT}", fields, 202, 403),
        Sample(path, [named, named], 202, 403, kind=LINES),
    ]


def _answered() -> str:
    """Return the id of an answer that a gateway with this secret gave for the project."""
    from tunewheel_serve_gateway.completions.ids import CompletionIds

    return CompletionIds(COMPLETION_SECRET, Path()).new(PROJECT)


def _form() -> Sample:
    parts = [("project", "", PROJECT), ("file", '; filename="a.md"', "x")]
    body = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'
        for name, more, value in parts
    )
    kind = "multipart/form-data; boundary=x"
    return Sample("/v1/documents/files", f"{body}--x--\r\n".encode(), 202, 403, kind=kind)


DESCRIPTIONS = {f"GET {path}": [Sample(path)] for path in ("/openapi.json", "/docs", "/docs/oauth2-redirect")}


def _read(noun: str, name: str, item: str | None) -> dict[str, list[Sample]]:
    """Return the requests for a list of the project's and for one item of it; None: there is none."""
    path, own = f"/v1/projects/{{project}}/{noun}", f"/v1/projects/{PROJECT}/{noun}"
    return {
        f"GET {path}": [Sample(own, refused=403)],
        f"GET {path}/{{{name}}}": [Sample(f"{own}/{item or 'none'}", None, 200 if item else 404, 403)],
    }


def _pages() -> dict[str, list[Sample]]:
    """Return a request for each page of the console."""
    ids = {"project": PROJECT, "run_id": RUN, "model_id": MODEL, "name": "none", "other": "none"}
    status = {
        "run": 200,
        "model": 200,
        "lineage": 503,
        "completions": 503,
        "completion": 503,
        "document": 404,
    }
    samples = {
        "GET /": [Sample("/", None, 307)],
        "GET /projects/{rest:path}": [Sample("/projects/desk/none/none", None, 404)],
        "GET /static": [Sample("/static/pages.css")],
        "POST /projects/{project}/playground": [
            Sample("/projects/desk/playground", {"prompt": "hello"}, 503, 403)
        ],
    }
    for one in ADDRESSES:
        names = defaultdict(lambda: "none", ids)
        found = status.get(one.template, 404 if "_id}" in one.path or "{other}" in one.path else 200)
        of_project = "{project}" in one.path
        tells = one.template in ("projects", "audit", "keys")
        samples[f"GET {one.path}"] = [
            Sample(
                one.path.replace(":path}", "}").format_map(names),
                None,
                found,
                403 if of_project else None,
                tells,
            )
        ]
    return samples


_ASKED = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
_GENERATED = {"inputs": "hello", "parameters": {"max_new_tokens": 1}}
_LORA = {"lora_name": "none", "lora_path": "none"}
ENGINE: Mapping[str, list[Sample]] = {
    "POST /v1/chat/completions": [Sample("/v1/chat/completions", {**_ASKED, "model": "none"}, 404)],
    "POST /v1/completions": [Sample("/v1/completions", {"model": "none", "prompt": "hello"}, 404)],
    "GET /v1/models": [Sample("/v1/models")],
    "POST /v1/load_lora_adapter": [Sample("/v1/load_lora_adapter", _LORA, 404)],
    "POST /v1/unload_lora_adapter": [Sample("/v1/unload_lora_adapter", _LORA, 404)],
    "POST /": [Sample("/", _GENERATED)],
    "POST /generate": [Sample("/generate", _GENERATED)],
    "POST /generate_stream": [Sample("/generate_stream", _GENERATED)],
    "GET /info": [Sample("/info")],
}
REVIEWS = "/v1/projects/{project}/reviews"
_REVIEWS = f"/v1/projects/{PROJECT}/reviews"
LABELS = "/v1/projects/{project}/labels"
_LABELS = f"/v1/projects/{PROJECT}/labels"
CONTROL = "/v1/projects/{project}/runs/{run_id}/{action}"
ENGINE_AWAY = 503
SAMPLES: Mapping[str, Mapping[str, list[Sample]]] = {
    "ingest": {
        **DESCRIPTIONS,
        "POST /v1/tickets": _published("/v1/tickets", ticket_id="T", body="b"),
        "POST /v1/documents": _published("/v1/documents", document_id="a.md", content="x"),
        "POST /v1/examples": _published("/v1/examples", example_id="E", input="q", output="a"),
        "POST /v1/erasures": _published("/v1/erasures", erasure_id="L", customer="C", requested_by="m"),
        "POST /v1/documents/files": [
            Sample(
                f"/v1/documents/files?project={PROJECT}&document_id=a.md", b"x", 202, 403, kind="text/plain"
            ),
            _form(),
        ],
        "DELETE /v1/documents/{document_id:path}": [
            Sample(f"/v1/documents/a.md?project={PROJECT}", None, 202, 403)
        ],
        "POST /v1/projects/{project}/sources/{name}": [
            Sample(f"/v1/projects/{PROJECT}/sources/own", b"{}", 401)  # no key counts, a signature does
        ],
        "GET /v1/schemas/{name}.json": [Sample("/v1/schemas/ticket.published.json")],
        "GET /v1/asyncapi.yaml": [Sample("/v1/asyncapi.yaml")],
    },
    "registry": {
        **DESCRIPTIONS,
        "GET /v1/projects/{project}/models": [Sample(f"/v1/projects/{PROJECT}/models", refused=403)],
        "GET /v1/projects/{project}/desired": [Sample(f"/v1/projects/{PROJECT}/desired", refused=403)],
        "GET /v1/projects/{project}/lineage/{name:path}": [
            Sample(f"/v1/projects/{PROJECT}/lineage/{RUN}", refused=403)
        ],
        "GET /v1/projects/{project}/models/{model_id}/card": [
            Sample(f"/v1/projects/{PROJECT}/models/{MODEL}/card", refused=403)
        ],
        "GET /v1/projects/{project}/models/{model_id}/comparison/{other}": [
            Sample(f"/v1/projects/{PROJECT}/models/{MODEL}/comparison/{MODEL}", refused=403)
        ],
    },
    "console": {
        **DESCRIPTIONS,
        "GET /v1/projects": [Sample("/v1/projects", tells=True)],
        "GET /v1/projects/{project}": [Sample(f"/v1/projects/{PROJECT}", refused=403, tells=True)],
        **_read("runs", "run_id", RUN),
        **_read("sweeps", "sweep_id", None),
        "POST /v1/projects/{project}/sweeps": [
            Sample(
                f"/v1/projects/{PROJECT}/sweeps",
                {"dataset_id": "none", "recipes": [{"rank": 8}]},
                404,
                403,
            )
        ],
        "GET /v1/projects/{project}/runs/comparison": [
            Sample(f"/v1/projects/{PROJECT}/runs/comparison?compare=none,{RUN}", None, 404, 403)
        ],
        **_read("datasets", "dataset_id", None),
        "GET /v1/projects/{project}/datasets/{dataset_id}/rows": [
            Sample(f"/v1/projects/{PROJECT}/datasets/none/rows", None, 404, 403)
        ],
        "GET /v1/projects/{project}/datasets/{dataset_id}/rows/{row_id}": [
            Sample(f"/v1/projects/{PROJECT}/datasets/none/rows/x", None, 404, 403)
        ],
        "GET /v1/projects/{project}/datasets/{dataset_id}/rows/{row_id}/tokens": [
            Sample(f"/v1/projects/{PROJECT}/datasets/none/rows/x/tokens", None, 404, 403)
        ],
        "GET /v1/projects/{project}/datasets/{dataset_id}/dropped": [
            Sample(f"/v1/projects/{PROJECT}/datasets/none/dropped", None, 404, 403)
        ],
        "GET /v1/projects/{project}/datasets/{dataset_id}/diff/{other}": [
            Sample(f"/v1/projects/{PROJECT}/datasets/none/diff/none", None, 404, 403)
        ],
        "GET /v1/projects/{project}/datasets/{dataset_id}/tokenizer": [
            Sample(f"/v1/projects/{PROJECT}/datasets/none/tokenizer", None, 404, 403)
        ],
        "GET /v1/projects/{project}/runs/{run_id}/manifest": [
            Sample(f"/v1/projects/{PROJECT}/runs/{RUN}/manifest", None, 409, 403)
        ],
        "GET /v1/projects/{project}/runs/{run_id}/files/{name:path}": [
            Sample(f"/v1/projects/{PROJECT}/runs/{RUN}/files/adapter_model.safetensors", None, 409, 403)
        ],
        **_read("evaluations", "evaluation_id", None),
        "GET /v1/projects/{project}/evaluations/{evaluation_id}/rows": [
            Sample(f"/v1/projects/{PROJECT}/evaluations/none/rows", None, 404, 403)
        ],
        "GET /v1/projects/{project}/evaluations/{evaluation_id}/labels": [
            Sample(f"/v1/projects/{PROJECT}/evaluations/none/labels", None, 404, 403)
        ],
        **_read("models", "model_id", MODEL),
        "GET /v1/projects/{project}/rollouts": [Sample(f"/v1/projects/{PROJECT}/rollouts", refused=403)],
        "GET /v1/projects/{project}/models/{model_id}/card": [
            Sample(f"/v1/projects/{PROJECT}/models/{MODEL}/card", None, 503, 403)
        ],
        "GET /v1/projects/{project}/models/{model_id}/comparison/{other}": [
            Sample(f"/v1/projects/{PROJECT}/models/{MODEL}/comparison/{MODEL}", None, 503, 403)
        ],
        "GET /v1/projects/{project}/lineage/{name:path}": [
            Sample(f"/v1/projects/{PROJECT}/lineage/{RUN}", None, 503, 403)
        ],
        "GET /v1/events": [Sample("/v1/events")],
        "GET /v1/services": [Sample("/v1/services")],
        "GET /v1/dead-letters": [Sample("/v1/dead-letters")],
        "GET /v1/dead-letters/{letter_id}": [Sample("/v1/dead-letters/none", None, 404)],
        "POST /v1/dead-letters/redeliveries": [
            Sample("/v1/dead-letters/redeliveries", {"letter_id": "none"}, 404)
        ],
        **_read("turns", "turn_id", None),
        **_read("alarms", "alarm_id", None),
        "GET /v1/projects/{project}/completions": [
            Sample(f"/v1/projects/{PROJECT}/completions", None, 503, 403)  # a start opens their file
        ],
        "GET /v1/projects/{project}/completions/{completion_id}": [
            Sample(f"/v1/projects/{PROJECT}/completions/none", None, 503, 403)
        ],
        "GET /v1/projects/{project}/detectors": [Sample(f"/v1/projects/{PROJECT}/detectors", refused=403)],
        f"POST {CONTROL}": [Sample(f"/v1/projects/{PROJECT}/runs/{RUN}/pause", None, 202, 403)],
        "PUT /v1/projects/{project}": [
            Sample(f"/v1/projects/{PROJECT}?power=false", json.loads(SPEC.model_dump_json()), 202, 403)
        ],
        "DELETE /v1/projects/{project}": [Sample(f"/v1/projects/{PROJECT}", None, 503, 403)],
        "POST /v1/projects/{project}/erasures": [
            Sample(f"/v1/projects/{PROJECT}/erasures", {"customer": "C", "requested_by": "m"}, 202, 403)
        ],
        "GET /v1/projects/{project}/erasures": [Sample(f"/v1/projects/{PROJECT}/erasures", refused=403)],
        "GET /v1/projects/{project}/erasures/{erasure_id}": [
            Sample(f"/v1/projects/{PROJECT}/erasures/none", None, 404, 403)
        ],
        "POST /v1/projects/{project}/withdrawals": [
            Sample(f"/v1/projects/{PROJECT}/withdrawals", {"documents": []}, 422, 403)
        ],
        "GET /v1/projects/{project}/documents": [Sample(f"/v1/projects/{PROJECT}/documents", refused=403)],
        "GET /v1/projects/{project}/documents/{document_id:path}": [
            Sample(f"/v1/projects/{PROJECT}/documents/none", None, 404, 403)
        ],
        "GET /v1/projects/{project}/passages": [
            Sample(f"/v1/projects/{PROJECT}/passages?question=why", None, 503, 403)
        ],
        "POST /v1/projects/{project}/playground": [
            Sample(f"/v1/projects/{PROJECT}/playground", {"prompt": "hello"}, 503, 403)
        ],
        "GET /v1/projects/{project}/quarantine": [Sample(f"/v1/projects/{PROJECT}/quarantine", refused=403)],
        "POST /v1/projects/{project}/quarantine": [
            Sample(f"/v1/projects/{PROJECT}/quarantine", {"verdict": "release"}, 404, 403)
        ],
        "GET /v1/audit": [Sample("/v1/audit", tells=True)],
        "GET /v1/keys": [Sample("/v1/keys", tells=True)],
        "POST /v1/keys": [Sample("/v1/keys", {"name": "x"}, 422)],
        "POST /v1/keys/{name}/rotate": [Sample("/v1/keys/none/rotate", None, 404)],
        "DELETE /v1/keys/{name}": [Sample("/v1/keys/none", None, 404)],
        "POST /v1/projects/{project}/datasets": [
            Sample(f"/v1/projects/{PROJECT}/datasets", {"wait": False}, 202, 403)
        ],
        "POST /v1/projects/{project}/runs/{run_id}/evaluations": [
            Sample(f"/v1/projects/{PROJECT}/runs/{RUN}/evaluations", None, 409, 403)
        ],
        "GET /v1/projects/{project}/commands": [Sample(f"/v1/projects/{PROJECT}/commands", refused=403)],
        "GET /v1/projects/{project}/commands/{command_id}": [
            Sample(f"/v1/projects/{PROJECT}/commands/none", None, 404, 403)
        ],
        "GET /v1/projects/{project}/runs/{run_id}/scorecard": [
            Sample(f"/v1/projects/{PROJECT}/runs/{RUN}/scorecard", None, 404, 403)
        ],
        f"GET {REVIEWS}": [Sample(_REVIEWS, refused=403)],
        f"GET {REVIEWS}/{{review_id}}": [Sample(f"{_REVIEWS}/none", None, 404, 403)],
        f"GET {REVIEWS}/{{review_id}}/items/{{number}}": [Sample(f"{_REVIEWS}/none/items/1", None, 404, 403)],
        f"PUT {REVIEWS}/{{review_id}}/items/{{number}}/answer": [
            Sample(f"{_REVIEWS}/none/items/1/answer", {"choice": "left"}, 404, 403)
        ],
        f"POST {REVIEWS}/{{review_id}}/submit": [
            Sample(f"{_REVIEWS}/none/submit", {"verdict": "approved"}, 404, 403)
        ],
        f"GET {LABELS}": [Sample(_LABELS, refused=403)],
        f"POST {LABELS}": [Sample(_LABELS, {"completions": ["none"]}, 503, 403)],
        f"GET {LABELS}/{{request_id}}": [Sample(f"{_LABELS}/none", None, 404, 403)],
        f"GET {LABELS}/{{request_id}}/items/{{number}}": [Sample(f"{_LABELS}/none/items/1", None, 404, 403)],
        f"GET {LABELS}/{{request_id}}/items/{{number}}/context": [
            Sample(f"{_LABELS}/none/items/1/context", None, 404, 403)
        ],
        f"PUT {LABELS}/{{request_id}}/items/{{number}}/answer": [
            Sample(f"{_LABELS}/none/items/1/answer", {"output": "a"}, 404, 403)
        ],
        "POST /v1/projects/{project}/models/{model_id}/{action}": [
            Sample(f"/v1/projects/{PROJECT}/models/base/stop", {"reason": "r"}, 202, 403)
        ],
        "POST /v1/login-links": [Sample("/v1/login-links", None, 201)],
        "GET /v1/login": [Sample("/v1/login")],
        "GET /v1/me": [Sample("/v1/me", tells="held")],
        **_pages(),
    },
    "serve-gateway": {
        "GET /openapi.json": [Sample("/openapi.json")],
        **{
            f"POST {path}": [Sample(path, {"model": PROJECT, field: "hello"}, ENGINE_AWAY, 404)]
            for path, field in (("/v1/completions", "prompt"), ("/v1/responses", "input"))
        },
        "POST /v1/chat/completions": [
            Sample("/v1/chat/completions", {**_ASKED, "model": name}, ENGINE_AWAY, 404)
            for name in (PROJECT, f"{PROJECT}/base", BASE.name)
        ],
        "POST /v1/embeddings": [Sample("/v1/embeddings", {"model": PROJECT, "input": "hello"}, 200, 404)],
        "POST /v1/search": [Sample("/v1/search", {"project": PROJECT, "question": "why"}, 400, 404)],
        "GET /v1/models": [Sample("/v1/models", tells=True)],
        "GET /v1/models/{name:path}": [Sample(f"/v1/models/{PROJECT}", refused=404)],
        "POST /v1/feedback": [
            Sample("/v1/feedback", {"completion_id": _answered(), "rating": "up"}, 202, 404)
        ],
        "GET /v1/status": [Sample("/v1/status", tells=True)],
    },
    "engine": ENGINE,
}


def build(name: str, tmp_path: Path, **settings: Any) -> Service:
    """Return the service as its process builds it; nothing of it runs."""
    package = f"tunewheel_{name.replace('-', '_')}"
    made = importlib.import_module(f"{package}.settings").Settings(
        store_url=(tmp_path / "store").as_uri(),
        cache_dir=tmp_path,
        completion_secret=COMPLETION_SECRET,
        **settings,
    )
    return importlib.import_module(f"{package}.main").make_app(made)


@contextlib.asynccontextmanager
async def running(name: str, tmp_path: Path, log: MemoryLog, **settings: Any) -> AsyncIterator[ASGIApp]:
    """The app behind the API's door of a service that has read what happened in the project ``desk``."""
    if name == "engine":
        app = _engine(tmp_path, **settings)
        async with app.router.lifespan_context(app):
            yield app
        return
    with patch.object(RecordSearch, "find", _not_on_the_log), patch.object(lag, "read_lag", _no_groups):
        service = build(name, tmp_path, **settings)
    service.stop()  # so that answers without end are over
    service.publisher.publish, service.publisher.publish_many = log.publish, log.publish_many
    for reader, event in itertools.product(service.readers, _happened()):
        reader.refresh = _nothing_new
        if event.type in reader.names:
            reader._apply(new_event(event, source="/test"), Position(event.type, 0, 0))
    app = service.doors.mounted
    assert app is not None
    async with app.router.lifespan_context(app), _gateway_running(service):
        yield service.doors.asgi()


@contextlib.asynccontextmanager
async def _gateway_running(service: Service) -> AsyncIterator[None]:
    """Let the gateway build its table of routes; its engine is away."""
    if service.name != "serve-gateway":
        yield
        return
    for hook in service.startup_hooks:
        await hook()
    await asyncio.sleep(0)
    yield
    for hook in service.shutdown_hooks:
        await hook()


def _engine(tmp_path: Path, **settings: Any) -> Starlette:
    """Return the engine's app as its process builds it, on a tiny model."""
    from tunewheel_engine.engine import load_engine
    from tunewheel_engine.main import make_app
    from tunewheel_engine.settings import Settings
    from tunewheel_testing.tiny import write_tiny_model

    model = write_tiny_model(tmp_path / "model")
    made = Settings(base_model=str(model), cache_dir=tmp_path, adapter_roots=[tmp_path], **settings)
    return make_app(load_engine(made, on_failure=lambda: None), Access(made, warn=print))


def _happened() -> list[Event]:
    method = TrainMethod.LORA
    return [
        ProjectDeclared(project=PROJECT, spec=SPEC),
        TrainStarted(
            project=PROJECT, run_id=RUN, dataset_id="ds-1", base=BASE, method=method, total_steps=10
        ),
        ModelRegistered(project=PROJECT, model_id=MODEL, kind="base", base=BASE),
    ]


async def _no_groups(_: Any) -> list[Any]:
    """The broker has no consumer group."""
    return []


async def _not_on_the_log(*_: Any) -> None:
    """The broker has no such record."""


async def _nothing_new(**_: Any) -> None:
    """The broker has no event that was not read yet."""
