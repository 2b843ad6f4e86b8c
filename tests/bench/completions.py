"""How fast the console's file of completions is written and searched, and how large it grows.

Words are drawn by Zipf's law. Times are those of the processor. Nothing is timed against a limit.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from report import write_report
from tunewheel_console.completion_search import Wanted
from tunewheel_console.completions import Completions, Kept
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_runtime.deadletter import Position

START = datetime(2026, 1, 1, tzinfo=UTC)
SYSTEM = {"role": "system", "content": "Answer as JSON with a category. " * 6}
SCHEMA = {"type": "object", "properties": {"category": {"type": "string"}}}
TASK = TaskSpec(system_prompt="Answer.", label_field="category", output_schema=SCHEMA)
BATCH, WORDS = 500, 60


class Texts:
    """Completions of about 1.7 kB."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        letters = "abcdefghijklmnop"
        lengths = (self._random.randint(3, 8) for _ in range(20_000))
        self.words = ["w" + "".join(self._random.choices(letters, k=length)) for length in lengths]
        self._weights = list(itertools.accumulate(1 / (n + 5) for n in range(len(self.words))))

    def completion(self, n: int) -> Kept:
        question, answer = (
            " ".join(self._random.choices(self.words, cum_weights=self._weights, k=WORDS)) for _ in range(2)
        )
        data = InferenceCompleted.model_validate(
            {
                "project": "desk", "completion_id": f"chatcmpl-{n:048}", "model_id": "desk-1",
                "role": "production", "messages": (SYSTEM, {"role": "user", "content": question}),
                "output": f'{{"category": "{self.words[n % 40]}", "answer": "{answer}"}}',
                "finish_reason": "stop", "completed_at": START + timedelta(seconds=n),
                "latency_seconds": self._random.random(), "customer": f"u{n % 1000}",
            }
        )  # fmt: skip
        return Kept(data, Position("inference.completed", n % 3, n))


def measure(folder: Path, number: int) -> dict[str, Any]:
    texts, completions, spent = Texts(), Completions(folder), 0.0
    completions.open()
    for first in range(0, number, BATCH):
        rows = [texts.completion(n) for n in range(first, first + BATCH)]
        begun = time.process_time()
        completions.add(rows, {0: (first, "e")})
        spent += time.process_time() - begun
    size = sum(path.stat().st_size for path in folder.iterdir())
    found: dict[str, Any] = {"completions": number, "written_a_second": round(number / spent)}
    found["megabytes_per_thousand"] = round(size / number / 1_000, 2)
    for name, search in {
        "all": {}, "a_rare_word": {"words": texts.words[15_000]}, "a_word_of_nearly_all":
        {"words": texts.words[0]}, "a_label": {"label": texts.words[3]}, "latency": {"seconds": 0.99},
    }.items():  # fmt: skip
        times = []
        for _ in range(5):
            begun = time.process_time()
            completions.find("desk", Wanted(**search), TASK, limit=50, after=None)
            times.append(time.process_time() - begun)
        found[f"{name}_ms"] = round(1_000 * median(times), 1)
    begun = time.process_time()
    erasure = Erasure(project="desk", customer="u5", until=START + timedelta(days=99))
    found["erased"] = completions.erase([erasure])
    found["erase_ms"] = round(1_000 * (time.process_time() - begun))
    completions.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--completions", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.completions)
    write_report("completions", packages=("pydantic",), contenders={"console": found}, ratios={})


if __name__ == "__main__":
    main()
