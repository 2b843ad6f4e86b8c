"""The training recipe: LoRA, QLoRA or full, from one Parquet file to one directory of safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunewheel_train import checkpoints
from tunewheel_train.datasets import Encoded, encode_examples, read_examples, token_stats
from tunewheel_train.errors import RunFailed, RunStopped
from tunewheel_train.progress import Completed, Message, Started, Warned
from tunewheel_train.schedule import plan_steps
from tunewheel_train.versions import installed_versions

if TYPE_CHECKING:
    from tunewheel_basemodel.locate import BaseModel

Report = Callable[[Message], None]


def train(
    *,
    base_model: str,
    train_path: Path,
    output_dir: Path,
    work_dir: Path,
    cache_dir: Path,
    run_id: str,
    report: Report,
    should_stop: Callable[[], bool] = lambda: False,
    method: Literal["lora", "qlora", "full"] = "lora",
    rank: int = 16,
    alpha: int = 32,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    learning_rate: float = 1e-4,
    epochs: float = 2.0,
    batch_size: int = 8,
    micro_batch_size: int = 8,
    warmup_fraction: float = 0.05,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    scheduler: Literal["linear", "cosine", "constant"] = "cosine",
    max_tokens: int = 1024,
    checkpoint_steps: int = 20,
    seed: int = 17,
    dtype: Literal["auto", "bfloat16", "float32"] = "auto",
    packed: bool = True,
) -> Completed:
    """Train and write the adapter (``full``: the whole model) to ``output_dir``.

    Checkpoints go to ``work_dir``; the newest whole one found there is resumed from. The result depends on
    the arguments alone (on one machine, with one number of threads), not on how often it was interrupted.

    Raises:
        RunFailed: it cannot succeed as it stands; names the field to mend.
        RunStopped: ``should_stop`` said so; a checkpoint of the last finished step is in ``work_dir``.
    """
    from tunewheel_train import modeling, progress_callback
    from tunewheel_train.trainer import AssistantTrainer

    # setup
    base = locate(base_model, cache_dir=cache_dir)
    modeling.make_deterministic(seed)
    model, tokenizer, number = modeling.load(
        base, method=method, dtype=dtype, rank=rank, alpha=alpha, dropout=dropout,
        target_modules=target_modules, seed=seed,
    )  # fmt: skip
    examples = _examples(train_path, tokenizer, max_tokens, report)
    steps = plan_steps([len(e) for e in examples], batch_size=batch_size, epochs=epochs, seed=seed)
    takes_packed = packed and modeling.use_packed_rows(model, examples)
    trainer = AssistantTrainer(
        model=model,
        processing_class=tokenizer,
        args=modeling.trl_arguments(
            output_dir=work_dir,
            total_steps=len(steps),
            learning_rate=learning_rate,
            method=method,
            warmup_fraction=warmup_fraction,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            scheduler=scheduler,
            checkpoint_steps=checkpoint_steps,
            seed=seed,
            compute_dtype=number,
        ),
        train_dataset=modeling.as_dataset(examples),
        examples=examples,
        steps=steps,
        micro_batch_size=micro_batch_size,
        packed=takes_packed,
        share_prefix=dropout == 0.0,
    )
    modeling.prepare_parameters(trainer.model)
    trainer.add_callback(
        progress_callback.ProgressCallback(trainer, report, should_stop, epochs / max(len(steps), 1))
    )
    # train
    resumed = checkpoints.latest(work_dir)
    report(_started(examples, len(steps), resumed, number))
    trainer.count_seconds_from(0.0)
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if trainer.state.global_step < len(steps):
        raise RunStopped(trainer.state.global_step)
    # cleanup
    modeling.save(trainer.model, tokenizer, base, number, output_dir)
    _describe(output_dir, base, method, number, run_id)
    return Completed(
        steps=len(steps),
        tokens=trainer.tokens_seen,
        wall_seconds=trainer.seconds,
        dtype=number,
        metrics=_metrics(trainer, examples),
        versions=installed_versions(),
        resumed_from_steps=trainer.resumed_from,
    )


def locate(base_model: str, *, cache_dir: Path) -> BaseModel:
    """The base model's files. Raises RunFailed naming ``base_model``."""
    from tunewheel_basemodel.errors import BaseModelNotFound
    from tunewheel_basemodel.locate import locate_base_model

    try:
        return locate_base_model(base_model, cache_dir=cache_dir)
    except BaseModelNotFound as error:
        raise RunFailed(field="base_model", reason=error.reason) from error


def _examples(path: Path, tokenizer: Any, max_tokens: int, report: Report) -> list[Encoded]:
    rows = read_examples(path)
    kept, refused = encode_examples(rows, tokenizer, max_tokens=max_tokens)
    if refused:
        first = refused[0]
        report(
            Warned(
                reason=f"{len(refused)} of {len(rows)} examples are not trained on; "
                f"{first.example_id} {first.reason}"
            )
        )
    return kept


def _started(examples: Sequence[Encoded], total: int, resumed: Path | None, dtype: str) -> Started:
    stats = token_stats(examples)
    return Started(
        total_steps=total,
        resumed_from_step=checkpoints.step_of(resumed) if resumed else 0,
        dtype=dtype,
        examples=stats.examples,
        tokens_per_epoch=stats.tokens,
    )


def _metrics(trainer: Any, examples: Sequence[Encoded]) -> dict[str, float]:
    """``final_loss`` is the mean of the last tenth of the steps."""
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    tail = losses[-max(1, len(losses) // 10) :]
    stats = token_stats(examples)
    return {
        "final_loss": sum(tail) / len(tail),
        "first_loss": losses[0],
        "examples": float(stats.examples),
        "longest_example_tokens": float(stats.longest),
        "tokens_per_second": trainer.tokens_seen / max(trainer.seconds, 1e-9),
    }


def _describe(directory: Path, base: BaseModel, method: str, dtype: str, run_id: str) -> None:
    """``tunewheel.json``: on which form of which base the adapter was trained, for whoever serves it."""
    described = {
        "base_model": base.name,
        "base_revision": base.revision,
        "quantization": "nf4" if method == "qlora" else None,
        "dtype": dtype,
        "run_id": run_id,
    }
    temporary = directory / ".tunewheel.json"
    temporary.write_text(json.dumps(described, indent=1, sort_keys=True))
    os.replace(temporary, directory / "tunewheel.json")
