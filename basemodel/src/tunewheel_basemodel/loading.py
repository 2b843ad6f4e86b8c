"""Loads a base model and its adapters. Only safetensors are loaded, and no remote code is run."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunewheel_contracts.formats.run import PICKLES

from tunewheel_basemodel.errors import BaseModelNotFound, InvalidAdapter
from tunewheel_basemodel.locate import BaseModel
from tunewheel_basemodel.precision import Precision, compute_dtype

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Quantization = Literal["nf4"]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def load_base(
    base: BaseModel,
    *,
    dtype: Precision | Literal["auto"] = "auto",
    quantization: Quantization | None = None,
    device: str = "auto",
    shards: int = 1,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model, in eval mode, and its tokenizer.

    ``dtype``: "auto" chooses by the processor (``compute_dtype``). ``device``: "auto" is CUDA if available.
    ``quantization``: "nf4" loads the linear layers, except the head, as 4-bit NormalFloat with double
    quantisation (QLoRA, arXiv:2305.14314); ``dtype`` is then the precision of the computation. ``shards``:
    this many processes of a group call the function together, and each loads and keeps its part of every
    weight (FSDP2, arXiv:2304.11277); ``device`` is then the process's own device.

    Raises BaseModelNotFound if the files cannot be loaded, or some are missing.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import_bitsandbytes()
    where = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    number = getattr(torch, compute_dtype() if dtype == "auto" else dtype)
    options: dict[str, Any] = {"dtype": number, "device_map": where}
    if quantization is not None:
        options["quantization_config"] = _nf4(number)
    if shards > 1:
        from transformers.distributed.configuration_utils import DistributedConfig

        options |= {"device_map": None, "distributed_config": DistributedConfig(fsdp_size=shards)}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(base.path), use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(str(base.path), trust_remote_code=False)
    except (OSError, ValueError, KeyError, SafetensorError, StrictDataclassError) as error:
        raise _does_not_load(base, str(error)) from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise _does_not_load(base, "its weights have other sizes than its config.json says") from error
    model, found = loaded
    if missing := sorted(found["missing_keys"]):  # transformers would initialise them at random.
        raise _does_not_load(base, f"its files lack {len(missing)} weights, the first {missing[0]}")
    if quantization is not None:
        keep_linear4bit_unpacked(model)
    return model.eval(), tokenizer


def _does_not_load(base: BaseModel, why: str) -> BaseModelNotFound:
    first_lines = " ".join(why.strip().split("\n\n")[0].split())
    return BaseModelNotFound(
        f"{base.name!r} cannot be loaded from {base.path} ({first_lines}); restore its files, or name a "
        "causal language model that transformers supports without remote code"
    )


def _nf4(compute: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )  # fmt: skip


def import_bitsandbytes() -> None:
    """Import bitsandbytes without importing torch's compiler. peft imports bitsandbytes if it is installed.

    bitsandbytes wraps kernels with ``torch.compile`` for devices without kernels of their own, and uses the
    plain kernels if that fails. The wrapping imports the compiler, which would cost every process three
    seconds.
    """
    if "bitsandbytes" in sys.modules:
        return
    import torch

    compiled, torch.compile = torch.compile, _not_compiled
    try:
        import bitsandbytes  # noqa: F401
    finally:
        torch.compile = compiled


def _not_compiled(*_: Any, **__: Any) -> Any:
    raise RuntimeError("not compiled while bitsandbytes is imported")


def keep_linear4bit_unpacked(model: PreTrainedModel) -> int:
    """Stop bitsandbytes from repacking 4-bit weights for AVX512-BF16; return the number of layers.

    The repacked kernel has no backward pass. After a single forward pass in eval mode, autograd through the
    layer is cut without an error, and later training steps do not train it (bitsandbytes 0.50).
    """
    from bitsandbytes.nn.modules import Linear4bit

    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def load_adapter(model: PreTrainedModel | PeftModel, path: Path, name: str) -> PeftModel:
    """Add the adapter in ``path`` to ``model`` under ``name``, and make it the active adapter.

    ``model``: the base, or a model that already has adapters. Raises InvalidAdapter.
    """
    from peft import PeftModel

    check_adapter(path)
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(path), adapter_name=name, is_trainable=False)
            model.set_adapter(name, inference_mode=True)
            return model
        with warnings.catch_warnings():  # peft initialises missing weights at random, with only a warning.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(model, str(path), adapter_name=name, is_trainable=False)
    except (ValueError, KeyError, RuntimeError, TypeError, UserWarning) as error:
        first_line = str(error).strip().splitlines()[0]
        raise InvalidAdapter(
            f"{path} does not fit the base model ({first_line}); train it on this base"
        ) from error


def merge_adapter(model: PreTrainedModel, path: Path) -> PreTrainedModel:
    """Return ``model`` with the adapter in ``path`` merged into its weights. A quantised model is dequantised
    first. Raises InvalidAdapter."""
    whole: Any = model
    if getattr(model, "is_quantized", False):
        whole = whole.dequantize(dtype=model.dtype)
        for name in ("quantization_config", "_pre_quantization_dtype"):
            if hasattr(whole.config, name):
                delattr(whole.config, name)
    tuned: Any = load_adapter(whole, path, "default")
    try:
        return tuned.merge_and_unload(safe_merge=True)
    except (AttributeError, NotImplementedError, ValueError) as error:
        raise InvalidAdapter(
            f"{path} cannot be merged into the base's weights ({error}); train a LoRA"
        ) from error


def check_adapter(path: Path) -> dict[str, Any]:
    """Check that the adapter's files are safe and complete; return its configuration.

    Raises InvalidAdapter for a missing or malformed file, and for any pickled file in the directory.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_dir():
        raise InvalidAdapter(f"no directory {path}; give the directory that holds {ADAPTER_CONFIG}")
    if pickled := sorted(file.name for file in path.iterdir() if file.suffix in PICKLES):
        raise InvalidAdapter(
            f"{path} has pickled files ({', '.join(pickled)}), which are unsafe; remove them"
        )
    config = _adapter_config(path / ADAPTER_CONFIG)
    weights = path / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise InvalidAdapter(f"{path} holds no {ADAPTER_WEIGHTS}; save the adapter as safetensors")
    try:
        with safe_open(str(weights), framework="pt") as tensors:
            names = list(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise InvalidAdapter(f"{weights} is not a safetensors file ({error}); save it again") from error
    if not names:
        raise InvalidAdapter(f"{weights} holds no tensors; save the adapter again")
    return config


def _adapter_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidAdapter(f"{path} cannot be read ({error}); save it with save_pretrained") from error
    if not isinstance(config, dict) or not config.get("peft_type"):
        raise InvalidAdapter(f"{path} names no peft_type; save the adapter with save_pretrained")
    return config
