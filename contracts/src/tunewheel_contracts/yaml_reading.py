"""Reads YAML that people write. A duplicate key is refused; PyYAML would silently keep the last value.

libyaml parses the text into events, five times as fast as PyYAML. The nodes are composed in Python. libyaml
could compose them too, but in one call that blocks all other threads: half a second for ten thousand API
keys.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import yaml
from yaml._yaml import CParser
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver


class DuplicateKey(yaml.YAMLError):
    """A mapping has the same key twice. ``field``: the dotted path of the key. ``reason``: names both
    lines."""

    def __init__(self, field: str, first_line: int, second_line: int) -> None:
        self.field = field
        self.reason = f"is given in line {first_line} and again in line {second_line}; keep one of them"
        super().__init__(f"{field} {self.reason}")


class _Loader(Composer, CParser, SafeConstructor, Resolver):
    """``Composer`` comes first, so that it composes nodes from the events of ``CParser``."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)


def read_yaml(text: str) -> Any:
    """Return the content of a YAML document; None if it is empty.

    Raises:
        DuplicateKey: a mapping has the same key twice (forbidden by YAML 1.2.2 §3.2.1.3).
        yaml.YAMLError: the text is not YAML, or asks for Python objects.
        ValueError: the text has a date that does not exist.
        RecursionError: the document is nested too deeply.
    """
    loader: Any = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _require_single_keys(root)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _require_single_keys(root: yaml.Node) -> None:
    waiting: deque[tuple[yaml.Node, str]] = deque([(root, "")])
    seen: set[int] = set()  # An alias refers to the same node again.
    while waiting:
        node, path = waiting.popleft()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(
                (item, f"{path}{number}.")
                for number, item in enumerate(node.value)
                if not isinstance(item, yaml.ScalarNode)
            )
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue  # SafeLoader refuses such keys later.
                line = key.start_mark.line + 1
                if (key.tag, key.value) in lines:
                    raise DuplicateKey(f"{path}{key.value}", lines[key.tag, key.value], line)
                lines[key.tag, key.value] = line
                if not isinstance(value, yaml.ScalarNode):
                    waiting.append((value, f"{path}{key.value}."))
