"""Is what was judged what serves? The same prompts through eval's measuring and through gateway and engine.

    make bench NAME=conformance                      200 prompts of banking77, float32 and bfloat16
    make bench NAME=conformance ARGS="--prompts 20"

Eval measures a candidate on held-out rows. Then the gateway serves the bundle of that measurement, on
``tunewheel-engine`` in the same precision, and is asked the users' messages alone, eight at a time: prompt,
decoding and limit are the bundle's. An answer agrees where it is the same text. In float32 all must; in
bfloat16 a product of one row rounds otherwise than one of several, so a few may part.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp
import uvicorn
from opentelemetry.metrics import NoOpMeter
from tunewheel_basemodel.facts import facts_of
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_contracts.cache import cache_dir
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.formats.bundle import Bundle, Decoding
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef, BaseModelFacts, BaseModelRef
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.serving import DesiredRoutes, Route
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_engine.engine import load_engine
from tunewheel_engine.main import make_app
from tunewheel_engine.settings import Settings as EngineSettings
from tunewheel_eval.bundles import bundle_of
from tunewheel_eval.job import ContestantJob, Job
from tunewheel_eval.measurement import HoldoutRow, example_key, read_measurement
from tunewheel_eval.measuring import measure
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.store import ObjectStore
from tunewheel_serve_gateway.api import make_api
from tunewheel_serve_gateway.gateway import Gateway
from tunewheel_serve_gateway.settings import Settings as GatewaySettings
from tunewheel_testing.tiny import write_random_adapter

PRECISIONS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
BANKING77 = Path(__file__).resolve().parents[3] / "shared" / "data" / "banking77"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROMPT = "You sort questions of a bank's customers. Name what the customer wants, in a few words."
MODEL = "desk-1"
AT_ONCE = 8


def a_lora(base: BaseModel, folder: Path) -> TrainMethod:
    """Write a LoRA of random weights, which changes what the base says."""
    write_random_adapter(base, folder, seed=7, std=0.02)
    return TrainMethod.LORA


async def both_ways(
    base: BaseModel,
    questions: Sequence[str],
    folder: Path,
    *,
    precision: Literal["float32", "bfloat16"] = "float32",
    decoding: Decoding | None = None,
    limit: int = 32,
    model: Callable[[BaseModel, Path], TrainMethod] = a_lora,
) -> list[tuple[str, str]]:
    """Return what eval wrote and what the gateway answered, question by question; ``folder`` is empty.
    ``model`` writes the candidate's files and returns how it was trained."""
    store = ObjectStore((folder / "store").as_uri())
    adapter = await put(store, base, folder / "model", model(base, folder / "model"))
    spec = ProjectSpec.model_validate(
        {
            "project": "desk",
            "base_model": base.name,
            "task": {"system_prompt": PROMPT, "max_output_tokens": limit},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
            "evaluation": {"decoding": (decoding or Decoding()).model_dump()},
        }
    )
    bundle = bundle_of(adapter, adapter, spec, precision=precision)
    judged = await asyncio.to_thread(judge, adapter, bundle, questions, folder)
    served = await serve(store, adapter, bundle, questions, folder)
    return list(zip(judged, served, strict=True))


async def put(store: ObjectStore, base: BaseModel, folder: Path, method: TrainMethod) -> AdapterRef:
    """Put a model's files where train puts what it made."""
    path = f"adapters/{MODEL}"
    return AdapterRef(
        model_id=MODEL,
        path=path,
        files=await store.put_directory(path, folder),
        base=BaseModelRef(name=base.name, revision=base.revision),
        base_facts=BaseModelFacts(chat_template_sha256=facts_of(base).chat_template_sha256),
        method=method,
    )


def judge(adapter: AdapterRef, bundle: Bundle, questions: Sequence[str], folder: Path) -> list[str]:
    """Return what eval's measuring writes to each question."""
    examples = tuple(example(bundle.system_prompt, number, text) for number, text in enumerate(questions))
    rows = folder / "candidate.jsonl"
    contestant = ContestantJob(
        role=Role.CANDIDATE,
        model_key="m",
        base=bundle.base,
        directory=folder / "model",
        whole_model=adapter.method is TrainMethod.FULL,
        rows=rows,
    )
    job = Job(
        contestants=(contestant,),
        examples=examples,
        items=(),
        max_output_tokens=bundle.max_output_tokens,
        cache_dir=cache_dir(),
        dtype=bundle.precision,  # type: ignore[arg-type]
        decoding=bundle.decoding,
    )
    measure(job, lambda _: None)
    measurement = read_measurement(rows.read_text("utf-8"))
    assert measurement is not None
    found = [
        measurement.rows[example_key(one, max_output_tokens=bundle.max_output_tokens)] for one in examples
    ]
    return [row.output for row in found if isinstance(row, HoldoutRow)]


def example(prompt: str, number: int, question: str) -> ChatExample:
    said = (("system", prompt), ("user", question), ("assistant", "A question."))
    return ChatExample.model_validate(
        {
            "example_id": f"ex-{number}",
            "messages": [{"role": role, "content": content} for role, content in said],
            "group": f"g-{number}",
            "trust": "expert",
            "record_ids": [f"rec-{number}"],
        }
    )


async def serve(
    store: ObjectStore, adapter: AdapterRef, bundle: Bundle, questions: Sequence[str], folder: Path
) -> list[str]:
    """Return what the gateway answers to each question, asked of the project and nothing else."""
    engine_settings = EngineSettings(
        base_model=bundle.base.name,
        base_revision=bundle.base.revision,
        cache_dir=cache_dir(),
        adapter_roots=[folder / "adapters"],
        dtype=bundle.precision,  # type: ignore[arg-type]
        max_context=512,
        identity="open",
    )
    engine = await asyncio.to_thread(load_engine, engine_settings, on_failure=lambda: None)
    async with AsyncExitStack() as stack:
        app = make_app(engine, Access(engine_settings, warn=print))
        url = await stack.enter_async_context(listening(app, lifespan="on"))
        settings = GatewaySettings.model_validate(
            {"engine_url": url, "adapter_dir": folder / "adapters", "work_dir": folder, "identity": "open"}
        )
        gateway = Gateway(
            settings,
            store,
            NoOpMeter("conformance"),
            lambda data: new_event(data, source="/bench"),
            drop,
            drop,
            not_logged,
            fail,
        )
        api = make_api(gateway)
        guard(api.routes, Access(settings, warn=print))
        stack.push_async_callback(gateway.close)
        route = Route(
            model_id=MODEL, role="production", percent=100, adapter=adapter, bundle=bundle  # type: ignore[arg-type]
        )  # fmt: skip
        desired = ServingDesired(
            project="desk",
            generation=1,
            base=bundle.base,
            system_prompt="A prompt that was declared since, and that nobody judged.",
            desired=DesiredRoutes(routes=(route,)),
        )
        gateway.take(new_event(desired, source="/bench"))
        await gateway.start()
        async with asyncio.timeout(300):
            while (table := gateway.table.projects.get("desk")) is None or table.production is None:
                assert not gateway.reconciler.failures, gateway.reconciler.failures
                await asyncio.sleep(0.02)
        told = gateway.status(None)["projects"]["desk"]["routes"][0]
        assert told["judged"], told
        assert told["unknown"] == [], told
        asked = await stack.enter_async_context(listening(api, lifespan="off"))
        return await ask_all(f"{asked}/v1/chat/completions", questions)


async def ask_all(url: str, questions: Sequence[str]) -> list[str]:
    turns = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession() as session:

        async def ask(question: str) -> str:
            body = {"model": "desk", "messages": [{"role": "user", "content": question}]}
            async with turns, session.post(url, json=body) as response:
                answer = await response.json()
                assert response.status == 200, answer
                return answer["choices"][0]["message"]["content"]

        return list(await asyncio.gather(*map(ask, questions)))


@asynccontextmanager
async def listening(app: Any, *, lifespan: Literal["on", "off"]) -> AsyncIterator[str]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan=lifespan)
    listener = config.bind_socket()
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            assert not task.done(), "the server did not start"
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


async def not_logged(*_: object) -> None:
    """Nobody rates what is asked here."""


async def drop(events: Any) -> None:
    """Nobody reads the log of completions here."""


def fail(error: BaseException) -> None:
    print(error, file=sys.stderr)


def questions_of(count: int) -> list[str]:
    """The first questions of banking77's test set, of every label alike."""
    with (BANKING77 / "test.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    return texts[:: max(1, len(texts) // count)][:count]


def main() -> None:
    from report import write_report

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=200)
    count = parser.parse_args().prompts
    base = locate_base_model(SMOLLM2, cache_dir=cache_dir())
    contenders: dict[str, dict[str, Any]] = {}
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            pairs = asyncio.run(both_ways(base, questions_of(count), Path(folder), precision=precision))
        parted = [(judged, served) for judged, served in pairs if judged != served]
        for judged, served in parted[:3]:
            print(f"{precision}: judged {judged!r}, served {served!r}", file=sys.stderr)
        contenders[precision] = {"prompts": len(pairs), "identical": len(pairs) - len(parted)}
    write_report(
        "conformance",
        packages=("torch", "transformers", "peft"),
        contenders=contenders,
        ratios={name: one["identical"] / one["prompts"] for name, one in contenders.items()},
    )


if __name__ == "__main__":
    main()
