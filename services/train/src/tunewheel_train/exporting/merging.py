"""Exports the model of a run as one whole model, if the written files give the same answers.

An adapter that was trained on a 4-bit base is merged into the expanded weights of that 4-bit base. The
original base is another model. Rounding the merged weights to 4 bits again would lose what was learnt.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from tunewheel_basemodel.chat import on_one_day, with_variables
from tunewheel_basemodel.gguf_metadata import read_metadata
from tunewheel_basemodel.loading import load_adapter, load_base, merge_adapter
from tunewheel_basemodel.locate import BaseModel
from tunewheel_basemodel.precision import Precision

from tunewheel_train.errors import NotEqual, NotExported
from tunewheel_train.exporting.gguf import Encoding, Programs, tell_engines, write_gguf
from tunewheel_train.exporting.modelfile import modelfile
from tunewheel_train.exporting.rotations import demand_same_rotations, read_factors

TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 0.05}
"""The largest allowed mean difference of log-probabilities, over the likeliest tokens. bf16 has eight bits of
precision: merging rounds the sum of weights once, while the adapter's product is rounded separately."""
GGUF_TOLERANCE: dict[Encoding, float] = {"float32": 1e-3, "float16": 0.01, "q8_0": 0.15, "q4_k_m": 1.0}
"""The same for GGUF files, read back and expanded to fp32. q8_0 has eight bits and a scale per 32 weights.
q4_k_m: about twice the difference measured on SmolLM2-135M (0.53)."""
GGUF_FILE, MODELFILE = "model.gguf", "Modelfile"
LIKELY = 20
"""How many tokens per position are compared: the likeliest ones by the trained model."""
STEPS = ("load", "answer", "merge", "write", "read back")

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """The trained model in ``directory``: an adapter on ``base``, or with ``whole`` a model of its own."""

    name: str
    base: BaseModel
    directory: Path
    quantization: Literal["nf4"] | None = None
    whole: bool = False
    variables: Mapping[str, bool | float | str] = field(default_factory=dict)
    """The spec's variables for the chat template."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form to write. GGUF is made from fp32 weights by ``programs``, and compared in fp32."""

    precision: Precision = "float32"
    gguf: Encoding | None = None
    programs: Programs | None = None
    system: str | None = None
    """The spec's system message, for the Modelfile."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """How answers are written, for the Modelfile."""

    @property
    def tolerance(self) -> float:
        return GGUF_TOLERANCE[self.gguf] if self.gguf else TOLERANCE[self.precision]


@dataclass(frozen=True, slots=True)
class Likely:
    """The log-probabilities of the likeliest tokens by position, and the tokens: [positions, ``LIKELY``]."""

    values: torch.Tensor
    tokens: torch.Tensor


@dataclass(frozen=True, slots=True)
class Parity:
    """How close an export is to the trained model, over the positions of some prompts."""

    prompts: int
    positions: int
    mean_difference: float
    worst_difference: float
    same_choice: float
    """The share of positions where both have the same likeliest token."""
    tolerance: float


def export_merged(
    trained: Trained,
    output_dir: Path,
    *,
    prompts: Sequence[Sequence[int]],
    form: Form = Form(),
    on_step: OnStep = lambda step: None,
) -> Parity:
    """Write ``trained`` as a whole model to ``output_dir``: safetensors, or one GGUF file with a Modelfile.

    ``prompts`` are token ids. The files are read back and compared before they get their final name.
    ``on_step`` is called with each of ``STEPS`` as it begins.

    Raises NotExported; NotEqual if the files differ from the trained model by more than the form's tolerance;
    InvalidAdapter; BaseModelNotFound.
    """
    on_step("load")
    model, tokenizer = _loaded(trained, form.precision)
    tokenizer = as_trained(tokenizer, trained.variables)
    on_step("answer")
    # Not all log-probabilities: those of Gemma's 262,144 tokens at 512 positions take half a gigabyte.
    expected = [likeliest(log_probabilities(model, ids)) for ids in prompts]
    del model
    on_step("merge")
    merged = _merged(trained, form.precision)
    with beside(output_dir) as folder:
        scratch = folder / output_dir.name
        scratch.mkdir()
        on_step("write")
        factors = _write(merged, tokenizer, trained, scratch, form, first={ids[0] for ids in prompts})
        config = merged.config
        del merged
        on_step("read back")
        again, reader = _read_back(trained, scratch, form, config, factors)
        _demand_same_tokens(tokenizer, reader, prompts)
        parity = compare(expected, (log_probabilities(again, ids) for ids in prompts), form.tolerance)
        _demand_equal(parity)
        scratch.rename(output_dir)  # fails if something was put there in the meantime
    return parity


def as_trained(tokenizer: Any, variables: Mapping[str, bool | float | str]) -> Any:
    """Return a tokenizer whose chat template renders what was trained: with ``variables``, and on the one day
    of all training. An engine that gets the template alone would miss the first and go by the clock."""
    return on_one_day(with_variables(tokenizer, variables))


@contextlib.contextmanager
def beside(directory: Path) -> Iterator[Path]:
    """Create a new folder on the file system of ``directory``, and delete it after the body. Its name is
    unique: a hidden folder named after ``directory`` may exist already (``.venv`` beside ``venv``)."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as made:
        yield Path(made)


def _loaded(trained: Trained, precision: Precision) -> tuple[Any, Any]:
    """Return the trained model as it is served: the whole model, or the base with the adapter beside it."""
    if trained.whole:
        whole = BaseModel(trained.base.name, trained.directory, trained.base.revision)
        return load_base(whole, dtype=precision)
    model, tokenizer = load_base(trained.base, dtype=precision, quantization=trained.quantization)
    return load_adapter(model, trained.directory, "default").eval(), tokenizer


def _merged(trained: Trained, precision: Precision) -> Any:
    if trained.whole:
        return _loaded(trained, precision)[0]
    model, _ = load_base(trained.base, dtype=precision, quantization=trained.quantization)
    return merge_adapter(model, trained.directory)


def _write(
    model: Any, tokenizer: Any, trained: Trained, directory: Path, form: Form, *, first: set[int]
) -> list[float] | None:
    """Return the factors of a GGUF file's rotations; see ``read_factors``.

    ``first``: the tokens with which training prompts begin. Engines write a BOS token for a GGUF file, so
    Ollama's template has none. llama.cpp takes away what the file's own template writes."""
    if form.gguf is None:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        return None
    assert form.programs is not None
    from gguf import GGUFReader

    with tempfile.TemporaryDirectory(dir=directory.parent) as made:
        source = Path(made)
        model.save_pretrained(source)
        tokenizer.save_pretrained(source)
        begun = first == {tokenizer.bos_token_id}
        _tell(source, add_bos_token=begun, add_eos_token=False)
        if (vocabulary := trained.base.path / "tokenizer.model").is_file():
            _lay_vocabulary(vocabulary, tokenizer, source, first)
        write_gguf(form.programs, source, directory / GGUF_FILE, encoding=form.gguf, name=trained.name)
    file = GGUFReader(directory / GGUF_FILE, "r+")  # opened once: that takes 9 s for 128,000 tokens
    tell_engines(file, tokenizer.bos_token_id if begun else None)
    bos = tokenizer.bos_token if begun else ""
    written = modelfile(tokenizer, GGUF_FILE, leave_out=bos, system=form.system, parameters=form.parameters)
    (directory / MODELFILE).write_text(written, "utf-8")
    return read_factors(file)


def _lay_vocabulary(vocabulary: Path, tokenizer: Any, directory: Path, first: set[int]) -> None:
    """Write what llama.cpp takes the vocabulary of Gemma and Mistral from, and transformers 5 does not save:
    the SentencePiece model; which of its pieces are tokens of their own (``<start_of_turn>``); and whether a
    space comes before a text after such a token. Raises NotExported if the ``first`` token would be another.
    """
    shutil.copyfile(vocabulary, directory / vocabulary.name)
    added = {
        str(token_id): {"content": token.content, "special": token.special}
        for token_id, token in tokenizer.added_tokens_decoder.items()
    }
    begin = tokenizer.bos_token or ""
    spaces = any("\u2581" in piece for piece in tokenizer.tokenize(f"{begin}a")[bool(begin) :])
    at_start = any("\u2581" in piece for piece in tokenizer.tokenize("a"))
    if at_start != spaces and not first <= set(tokenizer.added_tokens_decoder):
        raise NotExported(
            "the tokenizer puts a space before a prompt, not behind a special token; llama.cpp treats both "
            "alike; let the chat template begin with the BOS token, or export safetensors"
        )
    _tell(directory, added_tokens_decoder=added, add_prefix_space=spaces)


def _tell(directory: Path, **fields: Any) -> None:
    """Add ``fields`` to the tokenizer's configuration, for llama.cpp."""
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **fields}), "utf-8")


def _read_back(
    trained: Trained, directory: Path, form: Form, config: Any, factors: Sequence[float] | None
) -> tuple[Any, Any]:
    """Return model and tokenizer as they were written. A GGUF file's weights are read into a model of
    ``config``: of some models transformers reads no right one from GGUF (the rope scaling of Llama 3.1 and of
    Gemma 3, heads of Qwen 3 that are not 128 wide)."""
    if form.gguf is None:
        return load_base(BaseModel(trained.base.name, directory, trained.base.revision), dtype=form.precision)
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    source: Mapping[str, Any] = {"gguf_file": GGUF_FILE, "local_files_only": True}
    try:
        config = config.get_text_config(decoder=True)  # the file has no vision tower
        told = read_metadata(directory / GGUF_FILE)
        demand_same_rotations(told, config, factors)
        if told["general.architecture"] == "llama":  # so is Mistral's
            config = LlamaConfig.from_dict({**config.to_dict(), "model_type": "llama"})
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(directory), config=config, dtype=torch.float32, **source
        )
        return model.eval(), AutoTokenizer.from_pretrained(str(directory), **source)
    except (RuntimeError, ValueError, KeyError) as error:
        raise NotExported(
            "transformers cannot read the GGUF file of this architecture, so its answers cannot be compared "
            f"({str(error).splitlines()[0]}); export safetensors"
        ) from error


def _demand_same_tokens(tokenizer: Any, reader: Any, prompts: Sequence[Sequence[int]]) -> None:
    """Raise NotEqual unless the written tokenizer gives the tokens that were trained on."""
    for ids in prompts:
        text = tokenizer.decode(list(ids))
        wanted, found = (one(text, add_special_tokens=False).input_ids for one in (tokenizer, reader))
        if wanted != found:
            raise NotEqual(
                "the exported tokenizer reads a training prompt into other tokens than the base model's; "
                "export safetensors"
            )
    if reader.chat_template != tokenizer.chat_template:
        raise NotEqual("the exported chat template is not the base model's; export safetensors")


def _demand_equal(parity: Parity) -> None:
    if not parity.mean_difference <= parity.tolerance:
        raise NotEqual(
            f"the merged model's log-probabilities differ from the adapter's by {parity.mean_difference:.4f} "
            f"on average, more than {parity.tolerance}; export in float32, or serve the adapter itself"
        )


def log_probabilities(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """[positions, vocabulary] in fp32 on the CPU."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False).logits[0]
    return F.log_softmax(logits.float(), dim=-1).cpu()


def likeliest(given: torch.Tensor) -> Likely:
    """Return the ``LIKELY`` largest of each position, the largest first."""
    return Likely(*given.topk(min(LIKELY, given.shape[-1]), dim=-1))


def compare(expected: Sequence[Likely], found: Iterable[torch.Tensor], tolerance: float) -> Parity:
    """Compare ``found`` with ``expected``, prompt by prompt."""
    differences: list[torch.Tensor] = []
    same: list[torch.Tensor] = []
    for wanted, given in zip(expected, found, strict=True):
        differences.append((given.gather(-1, wanted.tokens) - wanted.values).abs().flatten())
        same.append(wanted.tokens[:, 0] == given.argmax(-1))
    flat, agreed = torch.cat(differences), torch.cat(same)
    return Parity(
        prompts=len(expected),
        positions=len(agreed),
        mean_difference=float(flat.mean()),
        worst_difference=float(flat.max()),
        same_choice=float(agreed.float().mean()),
        tolerance=tolerance,
    )
