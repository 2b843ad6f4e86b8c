"""How much of a run's time is no training: checkpoints and validation, by one process and by several.

A tiny random model is trained by the product's own process, with a checkpoint of a few megabytes. ``by time``
is the product. ``every 20 steps`` writes a checkpoint after every ``checkpoint_steps``, waits for it, and
hashes each file a second time, as the upload did before checkpoints were written by time.

Shares are of the first process's wall clock from the first to the last step. ``waited`` counts what training
waited for; ``written`` the seconds of the writing thread, which works beside the training. The processor's
seconds are those of the thread that did it. One process and two are started as on a processor, more of them
by PyTorch's launcher, as on GPUs, and exchange by gloo. On fewer cores all that they do takes longer alike.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONTENDERS = ("by time", "every 20 steps")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=1500)
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8], help="of processes")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=1, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.contender:
        measure(chosen)
        return
    from report import write_report
    from tunewheel_testing.tiny import write_tiny_model

    with tempfile.TemporaryDirectory() as scratch:
        # Here and not in the process that trains: that one forks, and must have no threads before.
        write_tiny_model(Path(scratch, "base"), hidden_size=chosen.hidden_size)
        write_rows(Path(scratch, "train.parquet"), chosen.examples)
        contenders = {
            f"{name}, {count} processes": in_own_process(name, count, Path(scratch), chosen)
            for count in chosen.counts
            for name in CONTENDERS
        }
    write_report(
        "beside",
        packages=("torch", "transformers", "trl"),
        contenders=contenders,
        ratios={},
        examples=chosen.examples,
        rank=chosen.rank,
    )


def in_own_process(name: str, count: int, folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    from tunewheel_train.runs.process import environment, together

    told = (f"--folder={folder}", f"--rank={chosen.rank}")
    started = together((sys.executable, __file__), count if count > 2 else 1, stop_seconds=30)
    command = [*started, "--contender", name, "--processes", str(count), *told]
    done = subprocess.run(
        command, env=environment(count if count == 2 else 1), stdout=subprocess.PIPE, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = next(line for line in lines if "steps_per_checkpoint" in line)
    print(name, count, found, file=sys.stderr)
    return found


def measure(chosen: argparse.Namespace) -> None:
    """Train, and print the figures."""
    from tunewheel_train import worker
    from tunewheel_train.job import Job

    given: Path = chosen.folder
    folder = given / f"{chosen.processes} {chosen.contender}"  # that of all processes
    rank = os.environ.get("RANK", "0")
    job = Job.model_validate(
        {
            "run_id": "run-bench", "base_model": str(given / "base"),
            "train_path": given / "train.parquet",
            "output_dir": folder / "adapter", "work_dir": folder / "work", "cache_dir": folder / "cache",
            "dtype": "float32", "processes": 0 if chosen.processes == 2 else chosen.processes,
            "base_parameters": 1_000_000, "recipe": {"rank": chosen.rank, "patience": 1000},
        }
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    (job_file := folder / f"job-{rank}.json").write_text(job.model_dump_json())
    times, out = Times(), os.fdopen(os.dup(1), "w")  # the worker takes stdout for its messages
    times.install(waits=chosen.contender != CONTENDERS[0])
    code = worker.main(["train", str(job_file)])
    if os.environ.get("RANK", "0") == "0":  # now, because the worker forks
        print(json.dumps(times.figures()), file=out, flush=True)
    os._exit(code)  # a forked process must not go on


def write_rows(path: Path, count: int) -> None:
    import polars as pl

    words = ["charger", "bike", "red", "light", "battery", "parcel", "invoice", "thank", "you", "please"]
    pl.DataFrame(
        [
            {
                "example_id": f"ex-{n:05}",
                "messages": [
                    {"role": "system", "content": "Answer as JSON."},
                    {"role": "user", "content": " ".join(words[(n * k) % 10] for k in range(1, 6 + n % 9))},
                    {"role": "assistant", "content": f'{{"category": "{words[n % 10]}"}}'},
                ],
            }
            for n in range(count)
        ]
    ).write_parquet(path)


class Times:
    """Seconds of what is no step, by name, as (wall clock, processor)."""

    def __init__(self) -> None:
        self._spent: dict[str, list[float]] = {}
        self._began = self._ended = (0.0, 0.0)
        self._checkpoints = self._steps = 0

    def install(self, *, waits: bool) -> None:
        from tunewheel_contracts.identity import sha256_file
        from tunewheel_train.trainers.checkpoint_writer import CheckpointWriter
        from tunewheel_train.trainers.progress_callback import ProgressCallback
        from tunewheel_train.trainers.sft_trainer import SftTrainer

        times, began, ended = self, ProgressCallback.on_train_begin, ProgressCallback.on_step_end
        save, write = CheckpointWriter.save, CheckpointWriter._write

        def saving(self: CheckpointWriter, trainer: Any) -> None:
            save(self, trainer)
            if waits:
                self.wait()

        def writing(self: CheckpointWriter, snapshot: Any, since: float) -> None:
            write(self, snapshot, since)
            times._checkpoints += 1
            if waits:
                for file in sorted(self._run_dir.glob("checkpoint-*"))[-1].iterdir():
                    sha256_file(file)

        def beginning(self: Any, *given: Any, **more: Any) -> None:
            times._began = (time.monotonic(), time.process_time())
            began(self, *given, **more)

        def ending(self: Any, args: Any, state: Any, control: Any, **more: Any) -> Any:
            result = ended(self, args, state, control, **more)
            times._ended, times._steps = (time.monotonic(), time.process_time()), state.global_step
            return result

        def always(self: CheckpointWriter, step: int, every: int) -> bool:
            return step % every == 0

        CheckpointWriter.save = self._timed("checkpoints waited", saving)
        CheckpointWriter._write = self._timed("checkpoints written", writing)
        SftTrainer.validate = self._timed("validation", SftTrainer.validate)
        ProgressCallback.on_train_begin, ProgressCallback.on_step_end = beginning, ending
        if waits:
            CheckpointWriter.is_due = always

    def _timed(self, name: str, call: Any) -> Any:
        spent = self._spent.setdefault(name, [0.0, 0.0])

        def timing(*given: Any, **more: Any) -> Any:
            wall, cpu = time.monotonic(), time.thread_time()
            try:
                return call(*given, **more)
            finally:
                spent[0] += time.monotonic() - wall
                spent[1] += time.thread_time() - cpu

        return timing

    def figures(self) -> dict[str, Any]:
        whole = [after - before for before, after in zip(self._began, self._ended, strict=True)]
        found: dict[str, Any] = {"seconds": round(whole[0], 1), "cpu_seconds": round(whole[1], 1)}
        for name, (wall, cpu) in self._spent.items():
            found[f"{name}, share of the time"] = round(wall / whole[0], 4)
            found[f"{name}, share of the processor's seconds"] = round(cpu / whole[1], 4)
        return found | {
            "checkpoints": self._checkpoints,
            "steps_per_checkpoint": round(self._steps / max(self._checkpoints, 1)),
        }


if __name__ == "__main__":
    main()
