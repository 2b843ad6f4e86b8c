"""LLaMA-Factory on given conversations, for the bench ``train``; run there by an interpreter that has it.

It pins other versions than ours, so it lives in a virtual environment of its own. Its template for SmolLM2
also learns the line break after an answer; one of the same parts without it makes the learnt tokens ours. The
adapter that it starts from is ours too, so that losses compare step by step.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

TEMPLATE = "smollm2_answers"
PACKAGES = ("llamafactory", "torch", "transformers", "trl", "peft")
_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
         "system_tag": "system"}  # fmt: skip


def run(
    python: Path,
    rows: Sequence[dict[str, Any]],
    *,
    model: Path,
    adapter: Path,
    folder: Path,
    batch: int,
    steps: int,
    bf16: bool,
) -> dict[str, Any]:
    """Train ``adapter`` (a LoRA) on ``rows`` in their order: ``marks``, wall and processor seconds after each
    step, ``losses``, ``peak_rss_bytes`` and ``versions``."""
    (folder / "tickets.json").write_text(json.dumps([{"messages": row["messages"]} for row in rows]))
    described = {"file_name": "tickets.json", "formatting": "sharegpt", "columns": {"messages": "messages"}}
    (folder / "dataset_info.json").write_text(json.dumps({"tickets": {**described, "tags": _TAGS}}))
    arguments = {
        "stage": "sft", "do_train": True, "model_name_or_path": str(model), "template": TEMPLATE,
        "dataset": "tickets", "dataset_dir": str(folder), "output_dir": str(folder / "out"),
        "cutoff_len": 512, "finetuning_type": "lora", "adapter_name_or_path": str(adapter),
        "per_device_train_batch_size": batch, "gradient_accumulation_steps": 1, "max_steps": steps,
        "learning_rate": 1e-3, "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 1.0,
        "bf16": bf16, "use_cpu": True, "disable_shuffling": True, "disable_gradient_checkpointing": True,
        "logging_steps": 1, "save_strategy": "no", "seed": 17, "report_to": "none",
    }  # fmt: skip
    (folder / "arguments.json").write_text(json.dumps(arguments))
    command = [str(python), __file__, str(folder / "arguments.json")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def register() -> None:
    """LLaMA-Factory's own ``smollm2``, whose answers end with their last token."""
    from llamafactory.data.formatter import StringFormatter
    from llamafactory.data.template import TEMPLATES, register_template

    known = TEMPLATES["smollm2"]
    register_template(
        name=TEMPLATE, format_user=known.format_user, format_system=known.format_system,
        format_assistant=StringFormatter(slots=["{{content}}<|im_end|>"]), stop_words=["<|im_end|>"],
    )  # fmt: skip


def main() -> None:
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    register()

    marks: list[tuple[float, float]] = []
    losses: list[float] = []

    class Mark(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            marks.append((time.perf_counter(), time.process_time()))

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in (logs or {}):
                losses.append(float(logs["loss"]))

    run_exp(json.loads(Path(sys.argv[1]).read_text()), callbacks=[Mark()])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {name: version(name) for name in PACKAGES}
    print(json.dumps({"marks": marks, "losses": losses, "peak_rss_bytes": peak, "versions": found}))


if __name__ == "__main__":
    main()
