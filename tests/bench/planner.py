"""What the planner says beside what a run takes: peak memory and tokens per second, by method.

SmolLM2-135M-Instruct on the help desk's tickets, each method in a process of its own with the service's
environment. The plan is the one that the process made before it loaded the model, uncorrected by any earlier
run; a second figure is corrected by the other methods' runs of the same session (one factor for all).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tunewheel_train.runs.process import environment

ROOT = Path(__file__).resolve().parents[2]
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
METHODS = ("lora", "qlora", "full")
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", nargs="*", default=list(METHODS))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--cache-dir", type=Path, default=ROOT / "var" / "cache")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.contender:
        print(json.dumps(measure(chosen.contender, chosen.steps, chosen.dtype, chosen.cache_dir)))
        return
    from report import write_report

    figures = {method: in_own_process(method, chosen) for method in chosen.only}
    ratios: dict[str, float] = {}
    for method, found in figures.items():
        ratios[f"{method}: predicted/measured peak"] = found["predicted_peak_bytes"] / found["peak_bytes"]
        ratios[f"{method}: predicted/measured tokens/s"] = (
            found["predicted_tokens_per_second"] / found["tokens_per_second"]
        )
    write_report(
        "planner", packages=("torch", "transformers", "trl", "peft", "bitsandbytes"), contenders=figures,
        ratios=ratios, within_25_percent=all(abs(math.log(r)) <= math.log(1.25) for r in ratios.values()),
        batch_size=BATCH, steps=chosen.steps,
    )  # fmt: skip


def in_own_process(method: str, chosen: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, __file__, "--contender", method, "--steps", str(chosen.steps),
        "--dtype", chosen.dtype, "--cache-dir", str(chosen.cache_dir),
    ]  # fmt: skip
    done = subprocess.run(command, env=environment(0), stdout=subprocess.PIPE, text=True, check=True)
    print(method, done.stdout.splitlines()[-1], file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(method: str, steps: int, dtype: str, cache_dir: Path) -> dict[str, Any]:
    import polars as pl
    from train import tickets
    from tunewheel_contracts.formats.methods import TrainMethod
    from tunewheel_contracts.formats.recipe import TrainSpec
    from tunewheel_train.job import Job
    from tunewheel_train.progress import Planned
    from tunewheel_train.recipe import train

    plans: list[Any] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pl.DataFrame(tickets(BATCH * steps)).write_parquet(folder / "train.parquet")
        job = Job.model_validate(
            {
                "run_id": "run-bench", "base_model": BASE, "train_path": folder / "train.parquet",
                "output_dir": folder / "adapter", "work_dir": folder / "work", "cache_dir": cache_dir,
                "dtype": dtype,
                "recipe": TrainSpec(
                    method=TrainMethod(method), epochs=1.0, batch_size=BATCH, micro_batch_size=BATCH,
                    validation_fraction=0.0, checkpoint_steps=10**6,
                ),
            }
        )  # fmt: skip
        outcome = train(job, report=lambda m: plans.append(m.plan) if isinstance(m, Planned) else None)
    assert outcome.usage is not None
    (plan,) = plans
    return {
        "predicted_tokens_per_second": round(plan.tokens_per_second.expected, 1),
        "predicted_peak_bytes": plan.peak_bytes,
        "tokens_per_second": round(outcome.usage.tokens_per_second, 1),
        "peak_bytes": outcome.usage.peak_bytes,
        "dtype": outcome.dtype,
        "tokens": outcome.tokens,
        "memory": plan.memory.model_dump(),
    }


if __name__ == "__main__":
    main()
