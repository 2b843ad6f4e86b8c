"""Measures the lengths of a dataset version's examples, for a plan."""

from __future__ import annotations

import io
import math
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import InvalidSpec, TunewheelError
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.recipe import PreferenceSpec
from tunewheel_planner.plan import DatasetStats

from tunewheel_cli.datasets.exporting import rows_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from tunewheel_client import Client


CHARACTERS_PER_TOKEN = 4
"""Characters per token if there is no tokenizer: the usual estimate for English, as in curate."""
AROUND = 5
"""Tokens that a chat template adds to each message."""
MOST_COUNTED = 2_000
"""The most conversations that are tokenised. Of more, every n-th counts n times. One takes a millisecond."""
LONGEST = 20
"""The longest conversation in tokens is searched among so many of the longest in characters."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Token counts. ``tokenizer``: the base model's, with which ``stats`` were counted. None: they are
    estimated, for ``reason``."""

    stats: DatasetStats
    tokenizer: str | None
    reason: str | None = None
    pairs: DatasetStats | None = None
    """The counts of the answers for preference training."""


def training_stats(
    client: Client, manifest: DatasetManifest, preference: PreferenceSpec | None = None
) -> Measured:
    """Return statistics of a version's training rows, and of the answers for ``preference``. Rows of erased
    records are left out.

    Raises:
        InvalidSpec: there are no such rows.
        ClientError: the wheel does not give them.
    """
    from tunewheel_basemodel.chat import with_variables

    rows = _read(client, manifest, "train")
    if not rows:
        raise InvalidSpec(field="dataset", reason="has no rows to train on; build the dataset again")
    answers, items = _answers(client, manifest, preference, rows)
    try:
        template = manifest.spec.task.chat_template_kwargs
        tokenizer = with_variables(_tokenizer_of(client, manifest), template)
        pairs = count_tokens(answers, tokenizer) if answers else None
        stats, name, reason = count_tokens(rows, tokenizer), manifest.spec.base_model, None
    except NoTokenizer as error:
        pairs = estimate_tokens([row["messages"] for row in answers]) if answers else None
        stats, name, reason = estimate_tokens([row["messages"] for row in rows]), None, str(error)
    if pairs is not None:  # pairs are trained in padded batches, which share no prefix
        pairs = replace(pairs, examples=items, sequences=len(answers), prefix=0)
    return Measured(stats, name, reason, pairs)


def _read(client: Client, manifest: DatasetManifest, split: str) -> list[dict[str, Any]]:
    return [row.model_dump(mode="json") for row in rows_of(client, manifest, split)]


def _answers(
    client: Client,
    manifest: DatasetManifest,
    preference: PreferenceSpec | None,
    examples: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], int]:
    """Return the conversations for ``preference``, and how many pairs and single answers they make. Only kto
    uses single answers. If it has no pairs, the examples are its better answers."""
    if preference is None:
        return [], 0
    pairs = _read(client, manifest, "preferences")
    found: list[Mapping[str, Any]] = [
        _conversation(row, side) for row in pairs for side in ("chosen", "rejected")
    ]
    if not preference.method.traits.unpaired or manifest.negatives is None:
        return found, len(pairs)
    single = [_conversation(row, "rejected") for row in _read(client, manifest, "negatives")]
    found += single if pairs else [*single, *examples]
    return found, len(found) - len(pairs)


def _conversation(row: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    return {"messages": [*row["messages"], {"role": "assistant", "content": row[side]}]}


def count_tokens(rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> DatasetStats:
    """Return statistics of ``rows`` (``messages`` and maybe ``format``) in tokens, encoded as in training.

    Raises NoTokenizer if the chat template refuses all rows.
    """
    every = math.ceil(len(rows) / MOST_COUNTED)
    by_characters = sorted(rows, key=lambda row: sum(len(turn["content"]) for turn in row["messages"]))
    counted = [found for row in rows[::every] if (found := _encoded(row, tokenizer)) is not None]
    long = [found for row in by_characters[-LONGEST:] if (found := _encoded(row, tokenizer)) is not None]
    if not counted:
        raise NoTokenizer("the base model's chat template takes none of the examples")
    conversations = [ids for ids, _ in counted]
    scale = len(rows) / len(counted)
    return DatasetStats(
        examples=len(rows),
        tokens=round(scale * sum(map(len, conversations))),
        longest=max(len(ids) for ids, _ in (*counted, *long)),
        learnt=round(scale * sum(sum(mask) for _, mask in counted)),
        prefix=_shared(min(conversations), max(conversations)) if len(rows) > 1 else 0,
    )


def _encoded(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[int]] | None:
    """Return ``encode_row``; None: the chat template refuses the row."""
    from tunewheel_basemodel.chat import encode_row
    from tunewheel_basemodel.errors import InvalidChat

    try:
        return encode_row(tokenizer, row)
    except InvalidChat:
        return None


def estimate_tokens(conversations: Sequence[Sequence[Mapping[str, Any]]]) -> DatasetStats:
    """Estimate the statistics by four characters per token. The last answer of each conversation has a loss.
    A system prompt at the start of all conversations is shared."""
    lengths = [sum(_tokens(message["content"]) for message in turns) for turns in conversations]
    learnt = sum(_tokens(turns[-1]["content"]) for turns in conversations)
    first = [turns[0]["content"] if turns[0]["role"] == "system" else "" for turns in conversations]
    return DatasetStats(
        examples=len(lengths), tokens=sum(lengths), longest=max(lengths), learnt=learnt,
        prefix=_shared(min(first), max(first)) // CHARACTERS_PER_TOKEN,
    )  # fmt: skip


def _shared(least: Sequence[Any], most: Sequence[Any]) -> int:
    """Return the length of the common prefix of two sequences. All sequences between them in order share
    it."""
    pairs = enumerate(zip(least, most, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(least), len(most)))


def _tokens(content: str) -> int:
    return math.ceil(len(content) / CHARACTERS_PER_TOKEN) + AROUND


class NoTokenizer(TunewheelError):
    """The base model's tokenizer is not available here, or cannot be used. The message gives the reason."""


def _tokenizer_of(client: Client, manifest: DatasetManifest) -> PreTrainedTokenizerBase:
    """Return the tokenizer that a version was built with, else its base model's if it is on this machine.

    Raises NoTokenizer, ClientError.
    """
    from tunewheel_basemodel.digest import sha256_directory
    from tunewheel_basemodel.errors import ModelFilesError
    from tunewheel_basemodel.tokenizer import import_library, open_tokenizer
    from tunewheel_client import NotFound

    import_library()
    with tempfile.TemporaryDirectory(prefix="tunewheel-tokenizer-") as folder:
        try:
            packed = client.datasets.tokenizer(manifest.project, manifest.dataset_id)
            zipfile.ZipFile(io.BytesIO(packed)).extractall(folder)
            use = manifest.tokenizer
            if use is not None and sha256_directory(Path(folder)) == use.sha256:
                return open_tokenizer(Path(folder))
        except ModelFilesError as error:
            raise NoTokenizer(error.reason) from error
        except NotFound:
            pass  # its tokens were estimated
    return local_tokenizer(manifest.spec.base_model)


def local_tokenizer(base_model: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a base model that is on this machine. No hub is asked. Raises NoTokenizer."""
    from tunewheel_basemodel.errors import ModelFilesError
    from tunewheel_basemodel.tokenizer import import_library, open_tokenizer, save_tokenizer

    import_library()
    with tempfile.TemporaryDirectory(prefix="tunewheel-tokenizer-") as name:
        try:
            save_tokenizer(base_model, Path(name), ask_hub=False)
            return open_tokenizer(Path(name))
        except ModelFilesError as error:
            raise NoTokenizer(error.reason) from error
