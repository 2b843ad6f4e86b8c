"""Check that the schemas are compatible with those of an earlier commit.

    python -m tunewheel_contracts.compatibility                     against the merge base with main
    python -m tunewheel_contracts.compatibility --against v1.2.0    against any git ref

Events stay on the log, and services are upgraded in any order. So new readers must be able to read old
events, and old readers new ones. Only these changes are allowed; every other difference is a violation:

* documentation (title, description, examples), a new schema, a new optional field;
* in ``x-topic``, more fields in ``identity_when_given``;
* in what people write, also wider values: another enum member, a looser bound, a required field made
  optional. People use a new value only after the readers were upgraded. They write the closed objects
  (``additionalProperties: false``) of the project spec and of upstream events, also where a service copies
  the spec. An old reader could get a new value of what services write at any time, even in a closed object.

A new optional field passes everywhere, because readers leave out unknown fields (``reading.py``). Only the
artifacts of ``STRICTLY_READ`` are read without leaving anything out, because training and verdict follow from
them; there a closed object that services write may not gain a field.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunewheel_contracts.generate import repository_root
from tunewheel_contracts.generation.schemas import all_schemas
from tunewheel_contracts.history import UnknownRef, base_commit, schemas_at
from tunewheel_contracts.topics import BY_NAME

Schema = dict[str, Any]
Tree = dict[str, Schema]

DOCUMENTATION = frozenset({"title", "description", "examples", "$comment", "$id", "$defs", "deprecated"})
LOWER_BOUNDS = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
UPPER_BOUNDS = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
VALUES = frozenset({"enum", "const"})
STRICTLY_READ = frozenset({"dataset-manifest"})
COPIES = frozenset({"#/$defs/ProjectSpec", "#/$defs/TrainSpec"})
"""Objects that services copy from what people wrote."""
ORIGINATORS = frozenset({"serve-gateway", "eval", "curate"})
"""The services that also publish upstream events of their own."""
APPLICATORS = frozenset(
    {"$ref", "properties", "required", "additionalProperties", "items", "prefixItems", "anyOf"}
)


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One incompatible change: the schema, the path of the field, and the reason."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def compare(old: Tree, new: Tree) -> list[Violation]:
    """Return every incompatible change from ``old`` to ``new``. Both map names to schemas."""
    found: list[Violation] = []
    for name, before in sorted(old.items()):
        after = new.get(name)
        if after is None:
            found.append(Violation(name, "schema deleted; keep it, and add a replacement as a new topic"))
        else:
            found += _Comparison(before, after).run(name)
    return sorted(set(found))


class _Comparison:
    """Compares one schema with its earlier version. References are followed in both."""

    def __init__(self, old_root: Schema, new_root: Schema) -> None:
        self._old_root, self._new_root = old_root, new_root
        self._visited: set[tuple[str, str, bool, bool]] = set()
        self._found: list[Violation] = []
        self._by_people = False
        self._is_strict = False

    def run(self, name: str) -> list[Violation]:
        producers = set(BY_NAME[name].producers) if name in BY_NAME else set[str]()
        self._by_people = _is_closed(self._old_root) and not producers & ORIGINATORS
        self._is_strict = name in STRICTLY_READ
        self._schema(name, self._old_root, self._new_root, closed=self._by_people)
        return self._found

    def _report(self, path: str, reason: str) -> None:
        self._found.append(Violation(path, reason))

    def _schema(self, path: str, old: Any, new: Any, *, closed: bool) -> None:
        old_ref, new_ref = _reference(old), _reference(new)
        if old_ref and new_ref:
            self._keywords(path, old, new, closed=closed)  # A reference may have a default beside it.
            seen = (old_ref, new_ref, closed, self._by_people)
            if seen in self._visited:
                return
            self._visited.add(seen)
            old, new = {"$ref": old_ref}, {"$ref": new_ref}
        old, new = _resolve(old, self._old_root), _resolve(new, self._new_root)
        if not isinstance(old, dict) or not isinstance(new, dict):
            if old != new:
                self._report(path, f"changed from {_short(old)} to {_short(new)}")
            return
        before, after = cast(Schema, old), cast(Schema, new)
        by_people, self._by_people = self._by_people, self._by_people or old_ref in COPIES
        if "properties" in before:
            closed = self._by_people and _is_closed(before)
        self._keywords(path, before, after, closed=closed)
        self._properties(path, before, after, closed=closed)
        self._parts(path, before, after, closed=closed)
        self._by_people = by_people

    def _keywords(self, path: str, old: Schema, new: Schema, *, closed: bool) -> None:
        for keyword in sorted((old.keys() | new.keys()) - DOCUMENTATION - APPLICATORS):
            before, after = old.get(keyword), new.get(keyword)
            if keyword in old and keyword in new and _same(before, after):
                continue
            if keyword in VALUES or (keyword == "default" and _extends(before, after)):
                continue
            if closed and (_looser(keyword, before, after) or (keyword == "default" and keyword not in old)):
                continue  # A new default means that a required field was made optional.
            if keyword == "x-topic" and _joins(before, after):
                continue
            self._report(path, f"{keyword} changed from {_short(before)} to {_short(after)}")
        self._values(path, _values(old), _values(new), closed=closed)

    def _values(self, path: str, old: list[Any] | None, new: list[Any] | None, *, closed: bool) -> None:
        if old == new:
            return
        removed = [value for value in old or [] if new is not None and value not in new]
        if old is None or removed:
            self._report(path, f"values narrowed from {_short(old)} to {_short(new)}")
        elif not closed and (new is None or any(value not in old for value in new)):
            self._report(path, f"values widened from {_short(old)} to {_short(new)}; old readers refuse them")

    def _properties(self, path: str, old: Schema, new: Schema, *, closed: bool) -> None:
        before, after = old.get("properties", {}), new.get("properties", {})
        must_before, must_after = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(before.keys() - after.keys()):
            self._report(f"{path}.{name}", "field removed")
        if self._is_strict and not closed and _is_closed(old):
            for name in sorted(after.keys() - before.keys()):
                self._report(f"{path}.{name}", "is new in a closed object that is read strictly")
        for name in sorted(must_after - must_before):
            what = "became required" if name in before else "new field is required; make it optional"
            self._report(f"{path}.{name}", what)
        for name in sorted(must_before - must_after):
            if name in after and not closed:
                self._report(f"{path}.{name}", "became optional; old readers need it")
        for name in sorted(before.keys() & after.keys()):
            self._schema(f"{path}.{name}", before[name], after[name], closed=closed)

    def _parts(self, path: str, old: Schema, new: Schema, *, closed: bool) -> None:
        """Compare the sub-schemas: items, map values, branches of a union."""
        for keyword, place in (("items", "[]"), ("additionalProperties", "{}")):
            if keyword in old and keyword in new:
                self._schema(f"{path}{place}", old[keyword], new[keyword], closed=closed)
            elif (keyword in old) != (keyword in new):
                self._report(path, f"{keyword} changed from {_short(old.get(keyword))} "
                             f"to {_short(new.get(keyword))}")  # fmt: skip
        if not _same(old.get("prefixItems"), new.get("prefixItems")):
            self._report(path, "prefixItems changed")
        self._union(path, old, new, closed=closed)

    def _union(self, path: str, old: Schema, new: Schema, *, closed: bool) -> None:
        if "anyOf" not in old and "anyOf" not in new:
            return
        if "anyOf" not in old or "anyOf" not in new:
            self._report(path, f"type changed from {_kind(old)} to {_kind(new)}")
            return
        before = {self._branch(branch, self._old_root): branch for branch in old["anyOf"]}
        after = {self._branch(branch, self._new_root): branch for branch in new["anyOf"]}
        for kind in sorted(before.keys() - after.keys()):
            self._report(path, f"type narrowed: {kind} no longer accepted")
        for kind in sorted(after.keys() - before.keys()):
            if not closed:
                self._report(path, f"type widened: {kind} accepted; old readers refuse it")
        for kind in sorted(before.keys() & after.keys()):
            self._schema(path, before[kind], after[kind], closed=closed)

    def _branch(self, branch: Any, root: Schema) -> str:
        """Return a name of a union's branch, by which old and new branches are matched."""
        return _reference(branch) or _kind(_resolve(branch, root))


def _reference(schema: Any) -> str | None:
    return cast(Schema, schema).get("$ref") if isinstance(schema, dict) else None


def _resolve(schema: Any, root: Schema) -> Any:
    """Return ``schema`` with its reference replaced by the target. Other keywords are kept."""
    reference = _reference(schema)
    if reference is None:
        return schema
    target: Any = root
    for part in reference.removeprefix("#/").split("/"):
        target = target[part]
    beside = {keyword: value for keyword, value in schema.items() if keyword != "$ref"}
    return {**_resolve(target, root), **beside}


def _is_closed(schema: Schema) -> bool:
    return schema.get("additionalProperties") is False


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _looser(keyword: str, old: Any, new: Any) -> bool:
    """Return whether a bound became wider or was removed."""
    if keyword not in LOWER_BOUNDS | UPPER_BOUNDS or old is None:
        return False
    return new is None or (new < old if keyword in LOWER_BOUNDS else new > old)


def _extends(old: Any, new: Any) -> bool:
    """Return whether ``new`` equals ``old``, or is the same object with more fields. Defaults may gain the
    defaults of new optional fields."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return _same(old, new)
    before, after = cast(Schema, old), cast(Schema, new)
    return all(name in after and _extends(value, after[name]) for name, value in before.items())


def _joins(old: Any, new: Any) -> bool:
    """Return whether two ``x-topic`` differ only by additional ``identity_when_given``. Earlier events lack
    those fields and keep their ids."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return False
    before, after = dict(cast(Schema, old)), dict(cast(Schema, new))
    had, has = before.pop("identity_when_given", []), after.pop("identity_when_given", [])
    return _same(before, after) and has[: len(had)] == had


def _same(old: Any, new: Any) -> bool:
    """Return whether two values are equal as JSON, where True differs from 1."""
    return json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)


def _kind(schema: Any) -> str:
    if not isinstance(schema, dict):
        return _short(schema)
    described = cast(Schema, schema)
    return "union" if "anyOf" in described else str(described.get("type", "any"))


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0, 1 after an incompatible change, 2 if the ref is unknown."""
    parser = argparse.ArgumentParser(prog="python -m tunewheel_contracts.compatibility")
    parser.add_argument("--against", metavar="REF", help="default: the merge base with main, else HEAD~1")
    parser.add_argument("--root", type=Path, default=repository_root(), help="the repository's root")
    options = parser.parse_args(arguments)
    ref = options.against or base_commit(options.root)
    if ref is None:
        print("no earlier commit to compare with: passed")
        return 0
    try:
        old = schemas_at(options.root, ref)
    except UnknownRef as error:
        print(error, file=sys.stderr)
        return 2
    violations = compare(old, all_schemas())
    for violation in violations:
        print(f"incompatible: {violation}", file=sys.stderr)
    compared = f"{len(old)} schemas of {ref[:12]} compared" if old else f"{ref[:12]} has no schemas"
    print(f"{compared}, {len(violations)} incompatible changes")
    return 1 if violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
