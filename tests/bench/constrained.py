"""What keeping to a schema costs SmolLM2 in tokens per second, and whether it is kept: 10,000 answers of a
tiny random model at temperature 1, which by itself never writes JSON, and 1,000 of SmolLM2 with the schema of
the bundled example. Answers are judged by the check that evaluation and the gateway use.

Free and constrained answers take turns within each round; both are cut at the same length. Beside them: the
processor time of one mask over SmolLM2's vocabulary, and of one compilation.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
from engine import CACHE, MODEL, ROUNDS, compare, engine, messages
from report import write_report
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import locate_base_model
from tunewheel_contracts.formats.spec import parse_spec
from tunewheel_generation.constraint import Grammars, json_grammar
from tunewheel_outputs.schema import SchemaCheck
from tunewheel_testing.tiny import write_tiny_model

ANSWERS = int(os.environ.get("ANSWERS", "10000"))
SMOLLM2_ANSWERS = int(os.environ.get("SMOLLM2_ANSWERS", "1000"))
HELPDESK = parse_spec((Path(__file__).parents[2] / "examples/helpdesk/project.yaml").read_text("utf-8")).task
AT_ONCE = 16
TOKENS = 48
TINY_TOKENS = 160
REPLY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "category": {"enum": ["billing", "delivery", "battery", "app", "other"]},
        "priority": {"enum": ["low", "normal", "high"]},
        "reply": {"type": "string", "minLength": 400},
    },
    "required": ["category", "priority", "reply"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "ticket": {
        **REPLY,
        "properties": {**REPLY["properties"], "reply": {"type": "string", "maxLength": 40}},
    },
    "numbers": {
        "type": "object",
        "properties": {
            "count": {"type": "integer", "minimum": 0, "maximum": 999},
            "share": {"type": "number", "minimum": 0, "maximum": 1},
            "days": {"type": "array", "items": {"type": "string", "format": "date"}, "maxItems": 3},
        },
        "required": ["count", "days"],
        "additionalProperties": False,
    },
    "any object": {"type": "object"},
    "helpdesk": HELPDESK.output_schema or {},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        tiny = write_tiny_model(directory / "tiny")
        with engine(directory, "--base-model", str(tiny), "--max-context", "512") as (url, _):
            share = ANSWERS // len(SCHEMAS) + 1
            kept = {name: keep(url, str(tiny), schema, share) for name, schema in SCHEMAS.items()}
        with engine(directory) as (url, child):
            kept["SmolLM2, helpdesk"] = keep(url, MODEL, SCHEMAS["helpdesk"], SMOLLM2_ANSWERS)
            figures = compare(
                {
                    f"{kind} x{rows}": lambda rows=rows, schema=schema: speed(url, child, rows, schema)
                    for rows in (1, AT_ONCE)
                    for kind, schema in (("free", None), ("constrained", REPLY))
                }
            )
    rates = {name: figure["tokens_per_second"] for name, figure in figures.items()}
    write_report(
        "constrained",
        packages=("llguidance", "torch", "transformers"),
        contenders=figures,
        ratios={
            f"constrained over free, {rows} at once": rates[f"constrained x{rows}"] / rates[f"free x{rows}"]
            for rows in (1, AT_ONCE)
        },
        answers=kept,
        masks=masks(),
        tokens_per_answer=TOKENS,
        rounds=ROUNDS,
        load_average=os.getloadavg()[0],
    )
    if any(counts.get("invalid") for counts in kept.values()):
        sys.exit("there were invalid answers")


def body(model: str, schema: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return {"model": model, **({"response_format": format} if schema else {}), **more}


def keep(url: str, model: str, schema: dict[str, Any], wanted: int) -> dict[str, int]:
    """How many of ``wanted`` answers were valid, cut by length, or invalid."""
    check = SchemaCheck(schema)
    counts: Counter[str] = Counter()

    async def ask(client: httpx.AsyncClient, numbers: list[int]) -> None:
        for number in numbers:
            said = [
                {"role": "system", "content": HELPDESK.system_prompt},
                {"role": "user", "content": f"My battery died on tour {number}, what now?"},
            ]
            asked = body(
                model, schema, messages=said, temperature=1, seed=number, n=8, max_tokens=TINY_TOKENS
            )
            answer = await client.post(f"{url}/v1/chat/completions", json=asked)
            answer.raise_for_status()
            for choice in answer.json()["choices"]:
                counts[verdict(choice)] += 1

    def verdict(choice: dict[str, Any]) -> str:
        if choice["finish_reason"] == "length":
            return "cut"
        return "valid" if check.fits(choice["message"]["content"]) else "invalid"

    async def ask_all() -> None:
        async with httpx.AsyncClient(timeout=600) as client:
            every = range(0, wanted, 8)
            await asyncio.gather(*(ask(client, list(every[at::4])) for at in range(4)))

    asyncio.run(ask_all())
    print(dict(counts), file=sys.stderr, flush=True)
    return dict(counts)


def speed(url: str, child: psutil.Process, rows: int, schema: dict[str, Any] | None) -> tuple[float, float]:
    """Tokens per second, and processor seconds per token, of ``rows`` requests at once."""

    async def ask(client: httpx.AsyncClient, number: int) -> int:
        asked = body(MODEL, schema, messages=messages(number), max_tokens=TOKENS, temperature=0)
        asked["ignore_eos"] = True
        answer = await client.post(f"{url}/v1/chat/completions", json=asked)
        answer.raise_for_status()
        return answer.json()["usage"]["completion_tokens"]

    async def ask_all() -> int:
        async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=None)) as client:
            return sum(await asyncio.gather(*(ask(client, number) for number in range(rows))))

    began, used = time.perf_counter(), sum(child.cpu_times()[:2])
    tokens = asyncio.run(ask_all())
    seconds, used = time.perf_counter() - began, sum(child.cpu_times()[:2]) - used
    if tokens != rows * TOKENS:
        raise SystemExit(f"answers ended early: {tokens} tokens")
    return tokens / seconds, used / tokens


def masks() -> dict[str, Any]:
    """Processor time of masks over SmolLM2's vocabulary, along one ticket's answer, and of compiling."""
    _, tokenizer = load_base(locate_base_model(MODEL, cache_dir=CACHE), dtype="float32", device="cpu")
    grammars = Grammars(tokenizer, frozenset({tokenizer.eos_token_id}))
    began = time.process_time()
    grammars.compile(json_grammar({"type": "object"}))
    first = time.process_time() - began
    began = time.process_time()
    grammar = grammars.compile(json_grammar(REPLY))
    compiling = time.process_time() - began
    said = {"category": "battery", "priority": "high", "reply": "Please charge it overnight. " * 20}
    tokens, spent = tokenizer(json.dumps(said)).input_ids, []
    for _ in range(5):
        constraint = grammar.start()
        for token in tokens:
            began = time.process_time()
            constraint.allowed(len(tokenizer))
            constraint.accept(token)
            spent.append(time.process_time() - began)
            if constraint.failure:
                raise SystemExit(constraint.failure)
    microseconds = sorted(1e6 * one for one in spent)
    return {
        "vocabulary": len(tokenizer),
        "reading_the_vocabulary_ms": round(first * 1000, 1),
        "compiling_ms": round(compiling * 1000, 2),
        "mask_us_p50": round(statistics.median(microseconds), 1),
        "mask_us_mean": round(statistics.fmean(microseconds), 1),
        "mask_us_p99": round(microseconds[len(microseconds) * 99 // 100], 1),
    }


if __name__ == "__main__":
    main()
