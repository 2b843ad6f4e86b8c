"""Tokens per second of the engine over HTTP, and of transformers' own generate, at 1 and 16 at once.

Contenders take turns within each round, as this machine may be shared; medians over rounds count. Beside the
wall clock stands the processor time per token, which depends less on who else is computing.

Apart from that, how long one token takes after a help desk's long instructions: for instructions that were
read for an earlier customer, four help desks in turn, and for instructions never seen.

``--adapters 1 4 16`` measures instead what adapters cost beside the base: tokens per second of a batch of
sixteen requests that so many adapters share, how long an adapter takes to load and to unload, how long from
the order to swap one for another to the first token of the new one, idle and beside a full batch, and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from report import write_report
from tunewheel_basemodel.chat import render
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import locate_base_model
from tunewheel_contracts.cache import cache_dir
from tunewheel_local.kafka.ports import free_port

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
CACHE = cache_dir()
ROUNDS = int(os.environ.get("ROUNDS", "3"))
TOKENS = 48
ROWS = 16
"""Requests in a full batch."""
SWAPS = 5
SYSTEM = "You are the help desk of a maker of electric bikes. Answer with JSON: category, priority, reply."
QUESTIONS = [
    f"My {part} {trouble}. What can I do before I ride to work tomorrow morning?"
    for part in ("battery", "charger", "rear light", "app")
    for trouble in ("is dead since Monday", "gets hot", "shows a red sign and beeps", "was never delivered")
]
INSTRUCTIONS = " ".join(f"Rule {n}: ask for the serial number before you send part {n}." for n in range(30))
Measured = tuple[float, float]
"""Tokens per second, and processor seconds per token."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--adapters", nargs="+", type=int, default=[], metavar="COUNT")
    counts = parser.parse_args().adapters
    if any(not 1 <= count <= ROWS for count in counts):
        parser.error(f"--adapters: one batch has {ROWS} requests; say 1 to {ROWS} adapters")
    if counts:
        measure_adapters(sorted(set(counts)))
    else:
        measure_speed()


def measure_speed() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model, tokenizer = load_base(locate_base_model(MODEL, cache_dir=CACHE), dtype="float32", device="cpu")
        adapters = write_adapters(model, Path(scratch), 4)
        with engine(Path(scratch)) as (url, child):
            for name in adapters:
                load(url, name, Path(scratch) / name)
            contenders: dict[str, Callable[[], Measured]] = {
                "generate x1": lambda: generate(model, tokenizer, 1),
                "engine x1": lambda: over_http(url, child, [MODEL]),
                "engine x1, adapter": lambda: over_http(url, child, adapters[:1]),
                "generate x16": lambda: generate(model, tokenizer, 16),
                "engine x16": lambda: over_http(url, child, [MODEL] * 16),
                "engine x16, one adapter": lambda: over_http(url, child, adapters[:1] * 16),
                "engine x16, four adapters": lambda: over_http(url, child, adapters * 4),
            }
            desks, numbers = itertools.cycle("ABCD"), itertools.count()
            readings: dict[str, Callable[[], Measured]] = {
                "first token, known instructions": lambda: one_by_one(url, child, desks),
                "first token, new instructions": lambda: one_by_one(url, child, map(str, numbers)),
            }
            figures = compare(contenders)
            first_tokens = compare(readings)
            memory = child.memory_info().rss
    speed = {name: figure["tokens_per_second"] for name, figure in figures.items()}
    write_report(
        "engine",
        packages=("torch", "transformers", "peft"),
        contenders=figures,
        first_tokens={
            name: {
                "ms": round(1000 / figure["tokens_per_second"], 1),
                "processor_ms": figure["processor_ms_per_token"],
            }
            for name, figure in first_tokens.items()
        },
        ratios={
            "engine over generate, 1 at once": speed["engine x1"] / speed["generate x1"],
            "engine over generate, 16 at once": speed["engine x16"] / speed["generate x16"],
            "four adapters over none, 16 at once": speed["engine x16, four adapters"] / speed["engine x16"],
        },
        engine_rss_bytes=memory,
        tokens_per_answer=TOKENS,
        rounds=ROUNDS,
        load_average=os.getloadavg()[0],
    )


def measure_adapters(counts: list[int]) -> None:
    """Compare batches that 1, 4, ... adapters share with one of the base alone."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, _ = load_base(locate_base_model(MODEL, cache_dir=CACHE), dtype="float32", device="cpu")
        names = write_adapters(model, folder, counts[-1] + 1)
        del model
        with engine(folder) as (url, child):
            over_http(url, child, [MODEL] * ROWS)
            memory = {"no adapter": child.memory_info().rss}
            loads: list[float] = []
            for number, name in enumerate(names[:-1], start=1):
                loads.append(load(url, name, folder / name))
                if number in counts:
                    memory[f"{number} adapters"] = child.memory_info().rss
            contenders: dict[str, Callable[[], Measured]] = {
                "base": lambda: over_http(url, child, [MODEL] * ROWS)
            }
            for count in counts:
                shared = list(itertools.islice(itertools.cycle(names[:count]), ROWS))
                contenders[f"{count} adapters"] = lambda shared=shared: over_http(url, child, shared)
            figures = compare(contenders)
            swaps = {"idle": [swap(url, folder, names) for _ in range(SWAPS)], "beside a full batch": []}
            for _ in range(SWAPS):
                with ThreadPoolExecutor(1) as beside:
                    batch = beside.submit(over_http, url, child, [MODEL] * (ROWS - 1))
                    time.sleep(0.5)  # the batch has begun to generate
                    swaps["beside a full batch"].append(swap(url, folder, names))
                    batch.result()
    speed = {name: figure["tokens_per_second"] for name, figure in figures.items()}
    write_report(
        "engine-adapters",
        packages=("torch", "transformers", "peft"),
        contenders=figures,
        ratios={
            f"{name} over base": value / speed["base"] for name, value in speed.items() if name != "base"
        },
        load_ms={"first": round(loads[0] * 1e3, 1), "median": round(statistics.median(loads) * 1e3, 1)},
        swap_ms={
            where: {
                part: round(statistics.median(times) * 1e3, 1)
                for part, times in zip(
                    ("unload", "load", "first token"), zip(*found, strict=True), strict=True
                )
            }
            for where, found in swaps.items()
        },
        engine_rss_bytes=memory,
        rounds=ROUNDS,
        load_average=os.getloadavg()[0],
    )


def load(url: str, name: str, path: Path) -> float:
    """Have the engine load an adapter; return how many seconds that took."""
    began = time.perf_counter()
    body = {"lora_name": name, "lora_path": str(path)}
    httpx.post(f"{url}/v1/load_lora_adapter", json=body, timeout=300).raise_for_status()
    return time.perf_counter() - began


def swap(url: str, folder: Path, names: list[str]) -> tuple[float, float, float]:
    """Swap the last loaded adapter for the spare one, and ask it; leave all as it was.

    Returns:
        Seconds of unloading, of loading, and from there to the answer's first token.
    """
    *_, old, spare = names
    began = time.perf_counter()
    unload(url, old)
    unloaded = time.perf_counter() - began
    loaded = load(url, spare, folder / spare)
    began = time.perf_counter()
    body = {"model": spare, "messages": messages(0), "max_tokens": 1, "temperature": 0}
    httpx.post(f"{url}/v1/chat/completions", json=body, timeout=600).raise_for_status()
    first = time.perf_counter() - began
    unload(url, spare)
    load(url, old, folder / old)
    return unloaded, loaded, first


def unload(url: str, name: str) -> None:
    httpx.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=300).raise_for_status()


def compare(contenders: dict[str, Callable[[], Measured]]) -> dict[str, dict[str, float]]:
    taken: dict[str, list[Measured]] = {name: [] for name in contenders}
    for number in range(ROUNDS + 1):
        for name, measure in contenders.items():
            measured = measure()
            if number:  # the first round warms up
                taken[name].append(measured)
                print(f"{name}: {measured[0]:.1f} tok/s", file=sys.stderr, flush=True)
    return {
        name: {
            "tokens_per_second": round(statistics.median(speed for speed, _ in rounds), 1),
            "best_tokens_per_second": round(max(speed for speed, _ in rounds), 1),
            "processor_ms_per_token": round(statistics.median(used for _, used in rounds) * 1000, 2),
        }
        for name, rounds in taken.items()
    }


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTIONS[number]}]


def generate(model: Any, tokenizer: Any, rows: int) -> Measured:
    """One call of transformers' generate on ``rows`` prompts: no request waits or leaves."""
    import torch

    texts = [render(tokenizer, messages(number), True) for number in range(rows)]
    inputs = tokenizer(
        texts, add_special_tokens=False, return_tensors="pt", padding=True, padding_side="left"
    )
    began, used = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        model.generate(**inputs, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
    seconds, used = time.perf_counter() - began, time.process_time() - used
    return rows * TOKENS / seconds, used / (rows * TOKENS)


def over_http(url: str, child: psutil.Process, models: list[str]) -> Measured:
    """One request for each of ``models``, all at once."""

    async def ask(client: httpx.AsyncClient, model: str, number: int) -> int:
        body = {
            "model": model,
            "messages": messages(number),
            "max_tokens": TOKENS,
            "temperature": 0,
            "ignore_eos": True,
        }
        answer = await client.post(f"{url}/v1/chat/completions", json=body)
        answer.raise_for_status()
        return answer.json()["usage"]["completion_tokens"]

    async def ask_all() -> int:
        async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=None)) as client:
            return sum(
                await asyncio.gather(*(ask(client, *of) for of in zip(models, range(16), strict=False)))
            )

    began, used = time.perf_counter(), sum(child.cpu_times()[:2])
    tokens = asyncio.run(ask_all())
    seconds, used = time.perf_counter() - began, sum(child.cpu_times()[:2]) - used
    return tokens / seconds, used / tokens


def one_by_one(url: str, child: psutil.Process, desks: Iterator[str]) -> Measured:
    """One token for each of eight customers, one after another, of the next ``desks``."""
    began, used = time.perf_counter(), sum(child.cpu_times()[:2])
    for question, desk in zip(QUESTIONS[:8], desks, strict=False):
        told = [
            {"role": "system", "content": f"You are help desk {desk}. {INSTRUCTIONS}"},
            {"role": "user", "content": question},
        ]
        body = {"model": MODEL, "messages": told, "max_tokens": 1, "temperature": 0}
        httpx.post(f"{url}/v1/chat/completions", json=body, timeout=600).raise_for_status()
    seconds, used = time.perf_counter() - began, sum(child.cpu_times()[:2]) - used
    return 8 / seconds, used / 8


def write_adapters(model: Any, directory: Path, count: int) -> list[str]:
    """Write ``count`` LoRA adapters of rank 8 on every linear layer of the blocks."""
    import torch
    from peft import LoraConfig, get_peft_model

    names = []
    for seed in range(count):
        torch.manual_seed(seed)
        tuned = get_peft_model(
            model,
            LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
        )
        tuned.save_pretrained(str(directory / f"adapter-{seed}"))
        names.append(f"adapter-{seed}")
        model = tuned.unload()
    return names


@contextmanager
def engine(directory: Path, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """An engine with ``options`` of its command; its address and its process."""
    port, health_port = free_port(), free_port()
    command = [sys.executable, "-m", "tunewheel_engine.main"]
    command += ["--port", str(port), "--health-port", str(health_port)]
    command += ["--cache-dir", str(CACHE), "--adapter-root", str(directory), *options]
    with (directory / "engine.log").open("wb") as log:
        environment = os.environ | {"TUNEWHEEL_IDENTITY": "open"}
        child = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        while True:
            if child.poll() is not None:
                sys.exit((directory / "engine.log").read_text())
            try:
                if httpx.get(f"http://127.0.0.1:{health_port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url, psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(60)


if __name__ == "__main__":
    main()
