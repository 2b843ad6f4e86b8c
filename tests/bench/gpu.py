"""Training on a GPU by every method, beside TRL's stock trainer and the planner's prediction.

``make bench-gpu`` takes the PyTorch of the machine and installs nothing. Weights are random, of the shapes of
Llama 3.2 1B and Llama 3.1 8B, so nothing is downloaded. Each contender is a process of its own. A contender
whose package is missing, or for which no time is left, is told and not failed. Every trained parameter must
have a gradient that is not zero, else the bench fails. ``make bench-gpu-packages`` gathers the packages that
a machine without a registry lacks, into one file below ``var/`` that travels with the tree.

Exit codes: 0 measured, 1 a contender failed, 3 no GPU. ``--tiny`` is the bench's own test on a processor.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import BENCH_DIR, write_report

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("contracts", "runtime", "basemodel", "planner", "services/train")
PACKED = ROOT / "var" / "bench-gpu" / "packages.zip"
PACKED_FOR = (3, 12)
"""The Python that the gathered packages are built for; another one uses its own packages alone."""
MOST_BYTES = 48 << 20
"""The packages must travel with the tree, which may have 64 MiB in all."""
GATHERED = (
    "pydantic", "pydantic-core", "annotated-types", "typing-inspection", "transformers", "trl", "peft",
    "datasets", "dill", "multiprocess", "bitsandbytes", "liger-kernel",
)  # fmt: skip
NO_GPU = 3
SHAPES = {"1b": "meta-llama/Llama-3.2-1B-Instruct", "8b": "meta-llama/Llama-3.1-8B-Instruct"}
NEEDS = {"qlora": ("bitsandbytes",)}
ALL_NEED = ("torch", "transformers", "peft", "trl", "datasets", "pydantic")
BATCH = 8


@dataclass(frozen=True)
class Contender:
    """``trainer``: ``ours`` or ``trl``. ``stage``: ``sft`` or ``dpo``."""

    shape: str
    method: str
    stage: str
    trainer: str

    @property
    def name(self) -> str:
        return f"{self.shape}-{self.method}-{self.stage}-{self.trainer}"

    @property
    def missing(self) -> list[str]:
        needed = (*ALL_NEED, *NEEDS.get(self.method, ()))
        return [package for package in needed if importlib.util.find_spec(package) is None]


def contenders(shapes: Sequence[str]) -> list[Contender]:
    """Return all contenders, the 8B ones directly behind the first 1B ones, in case the time runs out."""
    found = [
        Contender(shape, method, "sft", trainer)
        for shape in shapes
        for method in (("lora", "qlora") if shape == "8b" else ("lora", "qlora", "full"))
        for trainer in ("ours", "trl")
    ]
    return [*found, *(Contender(shapes[0], method, "dpo", "ours") for method in ("lora", "qlora"))]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, also on a processor")
    parser.add_argument("--only", nargs="*", help="contenders by how their names begin")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens of an example")
    parser.add_argument("--steps", type=int, default=6, help="measured steps; one more warms up")
    parser.add_argument("--seconds", type=float, default=540.0, help="no contender begins after them")
    parser.add_argument("--out", type=Path, default=BENCH_DIR, help="folder of the report")
    parser.add_argument("--gather", metavar="UV", help="gather the packages by this uv, and end")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.gather:
        return gather(chosen.gather)
    if chosen.tiny:
        chosen.tokens, chosen.steps = 48, 2
    if chosen.contender:
        print(json.dumps(measure(Contender(*chosen.contender.split("-")), chosen)))
        return 0
    with tempfile.TemporaryDirectory() as packages:
        return compare(chosen, Path(packages))


def compare(chosen: argparse.Namespace, packages: Path) -> int:
    """Measure all contenders and write the report; return the exit code."""
    began, environ = time.monotonic(), with_sources(packages)
    machine = subprocess.run(
        [sys.executable, "-c", FACTS], env=environ, stdout=subprocess.PIPE, text=True, check=True
    )
    facts = json.loads(machine.stdout.splitlines()[-1])
    if not (facts["gpu"] or chosen.tiny):
        print(f"no GPU that torch {facts['torch']} can use: nothing is measured", file=sys.stderr)
        return NO_GPU
    figures: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for one in contenders(["tiny"] if chosen.tiny else list(SHAPES)):
        if chosen.only is not None and not any(one.name.startswith(part) for part in chosen.only):
            continue
        left = chosen.seconds - (time.monotonic() - began)
        if one.missing:
            skipped[one.name] = f"not installed: {', '.join(one.missing)}"
        elif left <= 0:
            skipped[one.name] = "no time was left"
        else:
            figures[one.name] = in_own_process(one, environ, left)
        print(one.name, skipped.get(one.name) or figures[one.name], file=sys.stderr, flush=True)
    ratios = {
        f"{name}/trl tokens_per_second": found["tokens_per_second"] / stock["tokens_per_second"]
        for name, found in figures.items()
        if "tokens_per_second" in found
        and name.endswith("ours")
        and (stock := figures.get(f"{name.removesuffix('ours')}trl", {})).get("tokens_per_second")
    }
    installed = [package for package in ("torch", *GATHERED) if importlib.util.find_spec(module_of(package))]
    write_report(
        "gpu-tiny" if chosen.tiny else "gpu", packages=installed, contenders=figures, ratios=ratios,
        directory=chosen.out, device=facts, skipped=skipped, batch_size=BATCH, tokens=chosen.tokens,
    )  # fmt: skip
    return 1 if any("error" in found for found in figures.values()) or not figures else 0


FACTS = """
import json, torch
from tunewheel_planner.driver import read_driver
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
made = {"torch": torch.__version__, "cuda": torch.version.cuda, "driver": str(read_driver())}
print(json.dumps({"gpu": gpu, **made}))
"""


def with_sources(packages: Path) -> dict[str, str]:
    """Return the environment in which this tree's packages can be imported, and those of ``PACKED``, which
    come after the machine's own torch and before its other packages."""
    if PACKED.is_file() and sys.version_info[:2] == PACKED_FOR:
        with zipfile.ZipFile(PACKED) as packed:
            packed.extractall(packages)
    sources = [*(str(ROOT / part / "src") for part in SOURCES), str(ROOT / "testing")]
    sys.path[1:1] = [*sources, str(packages)]
    path = os.pathsep.join([*sources, str(packages), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return os.environ | {
        "PYTHONPATH": path, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip


def in_own_process(one: Contender, environ: dict[str, str], left: float) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--contender", one.name]
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=left + 30)
    except subprocess.TimeoutExpired:
        return {"error": "took longer than the time that was left"}
    if done.returncode:
        return {"error": next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "died")}
    return json.loads(done.stdout.splitlines()[-1])


def measure(one: Contender, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train ``one`` for some steps; return its figures beside the plan's."""
    import torch
    from tunewheel_basemodel.precision import compute_dtype
    from tunewheel_contracts.formats.methods import TrainMethod
    from tunewheel_contracts.formats.recipe import TrainSpec
    from tunewheel_planner.devices import catalogue
    from tunewheel_planner.plan import DatasetStats, make_plan
    from tunewheel_planner.shapes import KNOWN, ModelShape
    from tunewheel_train.model import machine, modeling

    modeling.make_deterministic(17)
    if one.shape == "tiny":
        shape = ModelShape(
            hidden=64, layers=2, heads=4, kv_heads=2, head_size=16, intermediate=128, vocabulary=512
        )
    else:
        shape = KNOWN[SHAPES[one.shape]]
    precision = compute_dtype()
    preference: Any = {"method": "dpo", "alone": True} if one.stage == "dpo" else None
    recipe = TrainSpec(method=TrainMethod(one.method), preference=preference, scheduler="constant")
    count = BATCH * (chosen.steps + 1)
    sides = 2 if one.stage == "dpo" else 1
    stats = DatasetStats(
        examples=count, tokens=sides * count * chosen.tokens, longest=chosen.tokens,
        learnt=sides * count * chosen.tokens // 2, sequences=sides * count,
    )  # fmt: skip
    plan = make_plan(
        shape, stats, recipe, machine.this_device(precision, catalogue()), precision=precision,
        pairs=stats if preference else None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        watch = Watch(BATCH * sides * chosen.tokens)
        trainer = make_trainer(
            one, random_model(shape, one.method, precision), recipe, plan, chosen, Path(scratch)
        )
        trainer.add_callback(watch.callback())
        trainer.train()
    zero = watch.without_gradient(trainer.model)
    assert not zero, f"{len(zero)} trained parameters have no gradient, the first is {zero[0]}"
    return {
        **watch.figures(),
        "peak_bytes": machine.peak_bytes(),
        "planned": {
            "tokens_per_second": plan.tokens_per_second.model_dump(), "peak_bytes": plan.peak_bytes,
            "fits": plan.fits, "micro_batch_size": plan.micro_batch_size,
            "gradient_checkpointing": plan.gradient_checkpointing,
        },
        "dtype": precision,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }  # fmt: skip


def random_model(shape: Any, method: str, precision: Any) -> Any:
    """Return a Llama of ``shape`` with random weights on the device, for ``method`` without an adapter."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size, tie_word_embeddings=shape.tied, max_position_embeddings=8192,
        use_cache=False, attn_implementation="sdpa",
    )  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if method == "full" else getattr(torch, precision))
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return quantised(model, getattr(torch, precision), device) if method == "qlora" else model


def quantised(model: Any, compute: Any, device: str) -> Any:
    """Return ``model`` with every linear layer but the head in NF4, layer by layer."""
    import bitsandbytes as bnb
    import torch
    from tunewheel_basemodel.loading import keep_linear4bit_unpacked

    for block in model.model.layers:
        for part in (block.self_attn, block.mlp):
            for name, layer in list(part.named_children()):
                if isinstance(layer, torch.nn.Linear):
                    small = bnb.nn.Linear4bit(
                        layer.in_features, layer.out_features, bias=False, compute_dtype=compute,
                        compress_statistics=True, quant_type="nf4",
                    )  # fmt: skip
                    small.weight = bnb.nn.Params4bit(
                        layer.weight.data.cpu(),
                        requires_grad=False,
                        compress_statistics=True,
                        quant_type="nf4",
                    )
                    setattr(part, name, small.to(device))
    model.is_loaded_in_4bit = True
    keep_linear4bit_unpacked(model)
    return model


def make_trainer(
    one: Contender, model: Any, recipe: Any, plan: Any, chosen: argparse.Namespace, folder: Path
) -> Any:
    import torch
    from tunewheel_basemodel.precision import compute_dtype
    from tunewheel_testing.tiny import tiny_tokenizer
    from tunewheel_train.data.datasets import Encoded
    from tunewheel_train.data.preferences import EncodedPair
    from tunewheel_train.job import Job
    from tunewheel_train.model import adapters, modeling
    from tunewheel_train.trainers import trl_config
    from tunewheel_train.trainers.course import Course

    tokenizer: Any = tiny_tokenizer()
    modeling.give_padding(tokenizer)
    if one.method != "full":
        model = adapters.with_adapter(model, recipe)
    micro = plan.micro_batch_size
    job = Job(
        run_id="run-bench", base_model="random", train_path=folder, output_dir=folder, work_dir=folder,
        cache_dir=folder, gradient_checkpointing=plan.gradient_checkpointing,
        recipe=recipe.model_copy(update={"micro_batch_size": micro, "checkpoint_steps": 10**6}),
    )  # fmt: skip
    steps = chosen.steps + 1
    told = trl_config.trl_arguments(job, total_steps=steps, learning_rate=1e-4, precision=compute_dtype())
    drawn = torch.Generator().manual_seed(17)
    words = torch.randint(3, 500, (2 * BATCH * steps, chosen.tokens), generator=drawn).tolist()
    half = chosen.tokens // 2
    plan_of_steps = [list(range(BATCH * at, BATCH * (at + 1))) for at in range(steps)]
    rows = [{"input_ids": row} for row in words[: BATCH * steps]]
    if one.stage == "dpo":
        from trl.trainer.dpo_config import DPOConfig
        from tunewheel_train.trainers.dpo_trainer import DpoTrainer

        pairs = [
            EncodedPair(f"{at}", tuple(a[:half]), tuple(a[half:]), tuple(b[half:]), ())
            for at, (a, b) in enumerate(zip(words[::2], words[1::2], strict=True))
        ]
        dpo = DPOConfig(**trl_config.pairs_arguments(told, recipe.preference))
        trainer: Any = DpoTrainer(
            course=Course(pairs, plan_of_steps, micro), model=model, processing_class=tokenizer, args=dpo,
            train_dataset=trl_config.as_dataset([pair.as_row() for pair in pairs]),
        )  # fmt: skip
        modeling.prepare_parameters(trainer.model)
        return trainer
    arguments = trl_config.examples_config(told)
    mask = (0,) * half + (1,) * (chosen.tokens - half)
    examples = [Encoded(f"{at}", tuple(row["input_ids"]), mask) for at, row in enumerate(rows)]
    if one.trainer == "trl":
        return stock_trainer(model, tokenizer, arguments, examples, micro)
    from tunewheel_train.trainers.sft_trainer import SftTrainer

    modeling.use_packed_rows(model, examples)
    trainer = SftTrainer(
        course=Course(examples, plan_of_steps, micro), packed=True, share_prefix=True, model=model,
        processing_class=tokenizer, args=arguments, train_dataset=trl_config.as_dataset(rows),
    )  # fmt: skip
    modeling.prepare_parameters(trainer.model)
    return trainer


def stock_trainer(model: Any, tokenizer: Any, arguments: Any, examples: Sequence[Any], micro: int) -> Any:
    """TRL as it comes, on the same examples in the same batches, with the loss on the same tokens."""
    from datasets import Dataset
    from trl import SFTTrainer

    arguments.per_device_train_batch_size = micro
    arguments.gradient_accumulation_steps = BATCH // micro
    arguments.train_sampling_strategy = "sequential"
    labels = [[t if m else -100 for t, m in zip(e.input_ids, e.mask, strict=True)] for e in examples]
    rows = Dataset.from_dict({"input_ids": [list(e.input_ids) for e in examples], "labels": labels})
    return SFTTrainer(model=model, processing_class=tokenizer, args=arguments, train_dataset=rows)


class Watch:
    """The seconds of every step but the first, and which trained parameters ever had a gradient. Half of an
    adapter's has none at the first step: the other half is still zero."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._marks: list[float] = []
        self._moved: set[str] = set()

    def callback(self) -> Any:
        from transformers import TrainerCallback
        from tunewheel_train.model.machine import synchronize

        marks, moved = self._marks, self._moved

        class Mark(TrainerCallback):
            def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **at: Any) -> None:
                if state.global_step == args.max_steps - 1:  # looked at once, after the timed steps
                    synchronize()
                    marks.append(time.perf_counter())
                    trained = [(n, p.grad) for n, p in at["model"].named_parameters() if p.grad is not None]
                    moved.update(name for name, gradient in trained if gradient.any())

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                synchronize()
                if state.global_step < args.max_steps:
                    marks.append(time.perf_counter())

        return Mark()

    def without_gradient(self, model: Any) -> list[str]:
        names = {name for name, p in model.named_parameters() if p.requires_grad}
        return sorted(name for name in names if name not in self._moved)

    def figures(self) -> dict[str, Any]:
        seconds = [after - before for before, after in zip(self._marks, self._marks[1:], strict=False)]
        return {
            "tokens_per_second": round(self._tokens * len(seconds) / sum(seconds), 1),
            "best_step_tokens_per_second": round(self._tokens / min(seconds), 1),
            "step_seconds": round(sum(seconds) / len(seconds), 4),
            "gradients": len(self._moved),
        }


def gather(uv: str) -> int:
    """Write ``PACKED``: the packages of the lock that a machine with a bare PyTorch lacks."""
    pinned = dict(
        re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    )
    wanted = [f"{name}=={pinned[name]}" for name in GATHERED]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "site"
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(folder),
             "--python-platform", "x86_64-manylinux_2_28", "--python-version", ".".join(map(str, PACKED_FOR)),
             *wanted], check=True,
        )  # fmt: skip
        for library in folder.glob("bitsandbytes/*.so"):
            if not library.stem.startswith(("libbitsandbytes_cuda13", "libbitsandbytes_cpu")):
                library.unlink()  # for CUDA 12 and other makers' cards: 130 MB
        for cache in [*folder.rglob("__pycache__"), folder / "bin"]:
            shutil.rmtree(cache, ignore_errors=True)
        PACKED.parent.mkdir(parents=True, exist_ok=True)
        shutil.make_archive(str(PACKED.with_suffix("")), "zip", folder)
    size = PACKED.stat().st_size
    print(f"{PACKED.relative_to(ROOT)}: {size / 2**20:.1f} MiB, {', '.join(wanted)}")
    return 0 if size <= MOST_BYTES else 1


def module_of(package: str) -> str:
    return package.replace("-", "_")


if __name__ == "__main__":
    sys.exit(main())
