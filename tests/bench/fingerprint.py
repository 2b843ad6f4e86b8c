"""Whether the gateway's comparison of fingerprints tells wrong pairings from rounding, on SmolLM2.

Eval's code records the fingerprints of two adapters that were trained briefly, in float32 and in bfloat16.
Then engines answer: the right one in both precisions and in batches with other requests, and wrong ones. The
figures are the gateway's distances in nats, the largest of the three prompts.

    make bench NAME=fingerprint
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args

from report import write_report
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_contracts.cache import cache_dir
from tunewheel_serve_gateway.upstream.fingerprints import compare
from tunewheel_testing import fingerprints as testing
from tunewheel_testing.adapters import bundle_of
from tunewheel_testing.fingerprints import Precision, Recorder, engine_on, variant_of, with_template

LABELS = ("billing", "delivery", "repair", "account")
QUESTIONS = ("You charged me twice.", "The parcel is late.", "The brake squeaks.", "I forgot my password.")
PRECISIONS = get_args(Precision)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10, help="comparisons of each right pairing and batch")
    parser.add_argument("--steps", type=int, default=24, help="training steps of an adapter")
    given = parser.parse_args()
    base = locate_base_model("HuggingFaceTB/SmolLM2-135M-Instruct", cache_dir=cache_dir())
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measured(base, Path(folder), rounds=given.rounds, steps=given.steps))
    write_report("fingerprint", packages=("torch", "transformers", "peft"), contenders=found, ratios={})


async def measured(base: BaseModel, folder: Path, *, rounds: int, steps: int) -> dict[str, Any]:
    adapters = folder / "adapters"
    tuned = [trained(base, adapters / f"seed-{seed}", seed=seed, steps=steps) for seed in (1, 2)]
    recorded = {
        dtype: {one: recorder.fingerprint(one) for one in tuned}
        for dtype in PRECISIONS
        if (recorder := Recorder(base.path, dtype=dtype))
    }
    engines = {"right": base.path} | wrong_bases(base.path, folder)
    pairs: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for kind, path in engines.items():
        for dtype in PRECISIONS:
            async with engine_on(path, adapters, dtype=dtype) as engine:
                for adapter in tuned:
                    name = await engine.load(adapter)
                    for company in range(rounds if kind == "right" else 1):
                        engine.company = company
                        for judged, prints in recorded.items():
                            for other, print_ in prints.items():
                                what = "another adapter" if other != adapter else kind
                                if what != kind and kind != "right":
                                    continue
                                key = f"{what}: {judged} judged, {dtype} serves"
                                is_exact = judged == dtype == "float32"
                                pairs[key].append(await compared(engine, name, print_, is_exact))
            print(
                {name: summary(all_) for name, all_ in pairs.items() if name.split(":")[0] == kind},
                flush=True,
            )
    return {name: summary(all_) for name, all_ in pairs.items()}


def summary(compared: list[tuple[float, bool]]) -> dict[str, Any]:
    distances = [distance for distance, _ in compared]
    return {
        "comparisons": len(compared),
        "refused": sum(refused for _, refused in compared),
        "least": round(min(distances), 5),
        "most": round(max(distances), 5),
    }


async def compared(engine: Any, name: str, recorded: Any, is_exact: bool) -> tuple[float, bool]:
    """Return the largest distance, and whether the gateway refuses the engine."""
    engine.answers.clear()
    found = await compare(engine, name, bundle_of(name, fingerprint=recorded), is_exact=is_exact)
    return max(testing.distances(recorded, engine).values()), found.difference is not None


def wrong_bases(base: Path, folder: Path) -> dict[str, Path]:
    from tunewheel_basemodel.tokenizer import open_tokenizer

    template = str(open_tokenizer(base).chat_template)
    changes = {
        "weights + 2 % noise": testing.drifted(0.02),
        "int8": testing.int8,
        "nf4": testing.nf4,
    }
    templates = {
        "no system prompt of the template": template.replace("You are a helpful AI assistant", ""),
        "another turn of the assistant": template.replace("assistant\n", "assistant: "),
    }
    made = {
        name: variant_of(base, folder / f"v{n}", change) for n, (name, change) in enumerate(changes.items())
    }
    return made | {
        name: with_template(base, folder / f"t{n}", text) for n, (name, text) in enumerate(templates.items())
    }


def trained(base: BaseModel, directory: Path, *, seed: int, steps: int) -> Path:
    """Train a LoRA that names labels as JSON. Another ``seed`` gives another adapter of the same shapes for
    the same task."""
    import torch
    from peft import LoraConfig, get_peft_model
    from tunewheel_basemodel.chat import encode_chat
    from tunewheel_basemodel.loading import load_base

    model, tokenizer = load_base(base, dtype="float32", device="cpu")
    torch.manual_seed(seed)
    tuned: Any = get_peft_model(
        model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    optimizer = torch.optim.AdamW([one for one in tuned.parameters() if one.requires_grad], lr=2e-3)
    for step in range(steps):
        label, question = LABELS[step % 4], QUESTIONS[step % 4]
        messages = [
            {"role": "system", "content": "Answer with JSON."},
            {"role": "user", "content": question},
            {"role": "assistant", "content": f'{{"category": "{label}"}}'},
        ]
        ids, mask = encode_chat(tokenizer, messages)
        labels = [token if one else -100 for token, one in zip(ids, mask, strict=True)]
        tuned(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tuned.save_pretrained(str(directory))
    return directory


if __name__ == "__main__":
    main()
