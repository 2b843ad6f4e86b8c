"""Constrains answers to a grammar. llguidance computes for each row which tokens may come next.

The allowed tokens depend only on the row's own tokens, so a constrained answer does not depend on its
neighbours in the batch. They are computed between two steps of the batch. This takes microseconds; to wake a
separate thread would take longer.

Properties must appear in the order of the schema. Between two parts of a JSON text only one space, or a line
break with up to sixteen spaces, is allowed. Otherwise a model could fill its token limit with white space.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from copy import copy
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from llguidance import LLMatcher, LLTokenizer
    from transformers import PreTrainedTokenizerBase

KEPT_GRAMMARS = 64
"""Most compiled grammars in the cache. The least recently used one is dropped first."""
_LIMITS = {"max_grammar_size": 100_000, "max_lexer_states": 50_000, "verbose_errors": False}
"""llguidance's own limits are five times higher; a state of the lexer takes 1 to 2 kB."""
_LONGEST_REASON = 300
LARGEST_SCHEMA = 64 << 10
"""Most bytes of a schema, counted without white space."""
_OPTIONS = {"whitespace_pattern": r"(\x20|\x0A\x20{0,16})", "coerce_one_of": False, "lenient": False}
"""https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md, "whitespace handling"."""


class InvalidGrammar(Exception):
    """The grammar cannot be compiled at all, or not for this tokenizer. ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = " ".join(reason.split())[:_LONGEST_REASON]
        super().__init__(self.reason)


class GrammarBroken(Exception):
    """An answer cannot be continued under its grammar. ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def guided(schema: Mapping[str, Any]) -> str:
    """Return ``schema`` as JSON, with these settings of llguidance in place of the schema's own."""
    return json.dumps({**schema, "x-guidance": _OPTIONS})


def json_grammar(schema: Mapping[str, Any]) -> str:
    """Return the source of a grammar for JSON texts that fit ``schema``."""
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(guided(schema))


def schema_bytes(schema: Mapping[str, Any]) -> int:
    """Return the bytes of ``schema`` as JSON without white space. Raises RecursionError."""
    return len(json.dumps(schema, separators=(",", ":")))


def unenforceable(schema: Mapping[str, Any]) -> str | None:
    """Return why no grammar can hold answers to ``schema``; None: one can."""
    from llguidance import LLMatcher, LLParserLimits

    if (size := schema_bytes(schema)) > LARGEST_SCHEMA:
        return f"it has {size} bytes, and {LARGEST_SCHEMA} can be enforced"
    reason = LLMatcher.validate_grammar(json_grammar(schema), limits=LLParserLimits(**_LIMITS))
    return InvalidGrammar(reason).reason or None


class Grammars:
    """Compiles grammars for one tokenizer and caches them by their hash. Several threads may use it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._end_tokens = sorted(end_tokens)
        self._vocabulary: LLTokenizer | None = None
        self._compiled: OrderedDict[str, Grammar] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()

    def __len__(self) -> int:
        return len(self._compiled)

    def compile(self, source: str) -> Grammar:
        """Return the grammar of ``source``, which is in Lark's syntax or llguidance's JSON.

        Takes milliseconds, or up to a second for a large schema. The first call also reads the vocabulary.
        Raises InvalidGrammar.
        """
        name = sha256(source.encode()).hexdigest()
        with self._lock:
            if name in self._compiled:
                self._compiled.move_to_end(name)
                return self._compiled[name]
        grammar = self._compile(source)
        with self._lock:
            self._compiled[name] = grammar
            while len(self._compiled) > KEPT_GRAMMARS:
                self._compiled.popitem(last=False)
        return grammar

    def _compile(self, source: str) -> Grammar:
        from llguidance import LLMatcher, LLParserLimits

        vocabulary = self._read_vocabulary()
        matcher = LLMatcher(vocabulary, source, log_level=0, limits=LLParserLimits(**_LIMITS))
        if matcher.is_error():
            raise InvalidGrammar(matcher.get_error())
        return Grammar(matcher, self._end_tokens)

    def _read_vocabulary(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        with self._loading:
            if self._vocabulary is None:
                if not self._end_tokens:
                    raise InvalidGrammar("the model has no end token, so a grammar could not end its answer")
                backend: Any = copy(self._tokenizer.backend_tokenizer)
                backend.no_padding()
                backend.no_truncation()
                try:
                    self._vocabulary = LLTokenizer(backend.to_str(), eos_token=self._end_tokens)
                except ValueError as error:
                    raise InvalidGrammar(f"the model's tokenizer cannot be constrained: {error}") from error
            return self._vocabulary


class Grammar:
    """A compiled grammar, which any number of answers may use."""

    def __init__(self, matcher: LLMatcher, end_tokens: list[int]) -> None:
        self._matcher = matcher
        self._end_tokens = end_tokens

    def start(self) -> GrammarConstraint:
        """Return the constraint of a new answer."""
        return GrammarConstraint(self._matcher.deep_copy(), self._end_tokens)


class GrammarConstraint:
    """The position of one answer in its grammar.

    ``ended``: the grammar allows no further token, or the answer has its end token. ``failure``: why the
    answer cannot be continued, for example because the grammar exceeded llguidance's limits; None: it can.
    """

    def __init__(self, matcher: LLMatcher, end_tokens: list[int]) -> None:
        self.ended = False
        self.failure: str | None = None
        self._matcher = matcher
        self._end_tokens = end_tokens

    def allowed(self, size: int) -> torch.Tensor:
        """Return the tokens below ``size`` that may come next. After a failure these are the end tokens."""
        import numpy as np
        import torch

        words = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        tokens = np.flatnonzero(np.unpackbits(words, bitorder="little")[:size])
        self._look_for_failure()
        if not len(tokens) and self.failure is None:
            self.failure = "the grammar allows no token of the vocabulary to follow"
        return torch.from_numpy(tokens) if len(tokens) else torch.tensor(self._end_tokens)

    def accept(self, token: int) -> None:
        """Advance by ``token``."""
        self._matcher.consume_token(token)
        self._look_for_failure()
        self.ended = self._matcher.is_stopped()

    def _look_for_failure(self) -> None:
        if self.failure is None and self._matcher.is_error():
            self.failure = InvalidGrammar(self._matcher.get_error()).reason
