"""The blocks of code on all pages, and what a block must hold by its language."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml
from tunewheel_cli.frame import app
from tunewheel_contracts.formats.source_spec import MappingSpec
from tunewheel_contracts.formats.spec import ProjectSpec, parse_spec
from tunewheel_outputs.lm_eval_yaml import check_config
from tunewheel_runtime.identity.keys import KeyFile
from typer.main import get_command

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"(?:^<!-- (?:(?P<path>path)|not run here: (?P<reason>[^>]+)) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
NAMED = re.compile(r"# (?:a line of \w+ in )?(\S+\.\w+)\n")
DRAWN = re.compile(r"[─│┌▶◀▲▼]")
SHELL = ("bash", "sh", "console")
FREE = ("cat", "cd", "cosign", "echo", "export", "for", "git", "mkdir", "pip", "sed", "sha256sum")
"""Words of the shell that need no check but the shell's own."""
PAGES = (
    "*.md",
    "docs/**/*.md",
    "*/README.md",
    "services/*/README.md",
    "deploy/*/README.md",
    "examples/*/README.md",
)
GUIDE = ROOT / "docs/bring-your-own-project.md"


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    code: str
    reason: str
    """Why it is not run here; empty: it is checked."""
    on_path: bool = False
    """Whether a test of each night runs it, with the others of its page's path, in their order."""

    @property
    def file(self) -> str | None:
        """The path in the first line, if it has one: the block is that file, or lines to add to it."""
        return found[1] if (found := NAMED.match(self.code)) else None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, text: str) -> Iterator[Block]:
    """Yield the blocks of a page. A block without a language is a drawing or commands."""
    for found in BLOCK.finditer(text):
        code, line = found["code"], text.count("\n", 0, found.start("code"))
        indent = found["indent"]
        code = "".join(part.removeprefix(indent) for part in code.splitlines(keepends=True))
        language = found["language"] or ("text" if DRAWN.search(code) else "bash")
        yield Block(page, line, language, code, found["reason"] or "", bool(found["path"]))


class Faulty(Exception):
    """A block says what is not so."""


# Commands


def commands(code: str) -> Iterator[list[str]]:
    """Yield the words of each command in a script, also of those in ``$(…)``.

    Raises:
        Faulty: bash cannot read the script.
    """
    told = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True)
    if told.returncode:
        raise Faulty(told.stderr.strip())
    flat = re.sub(r"(?m)(?:^|(?<=\s))#.*$", "", code.replace("\\\n", " "))
    for inner in re.findall(r"\$\(([^()]*)\)", flat):
        yield from commands(inner)
    lexer = shlex.shlex(re.sub(r"\$\([^()]*\)", "VALUE", flat), posix=True, punctuation_chars=";&|\n<>")
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t", "", True
    words: list[str] = []
    for word in (*lexer, "\n"):
        if word[0] in ";&|\n":
            while words and (words[0] in ("do", "done", "then") or re.match(r"\w+=", words[0])):
                del words[0]
            if words:
                yield words
            words = []
        else:
            words.append(word)


def shell(block: Block) -> None:
    """Check each command of a script by what it calls."""
    code = block.code
    if block.language == "console":
        code = "".join(
            line[2:]
            for line in code.splitlines(keepends=True)
            if line[:2] in ("$ ", "> ") or line[:4] == "    "
        )
    found = [*commands(code)] if not block.reason else _known(code)
    if not found and not re.match(r"\w+=", code):
        raise Faulty("no command is in it")
    for words in found:
        check = COMMANDS.get(words[0].removeprefix("env/bin/")) or (
            _service if words[0].startswith("tunewheel-") else None
        )
        if check is not None:
            check(words[1:] if check is not _service else words)
        elif words[0] not in FREE and not block.reason and not _script_of(block, words[0]):
            raise Faulty(f"nothing checks the command {words[0]}")


def _script_of(block: Block, word: str) -> bool:
    return any((folder / word).is_file() for folder in (ROOT, (ROOT / block.page).parent))


def _tunewheel(words: list[str]) -> None:
    """Parse the words by the command itself; nothing runs."""
    words = words[: words.index(">")] if ">" in words else words
    command: Any = get_command(app)
    context = command.make_context("tunewheel", [], resilient_parsing=True)
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        name, *words = words
        found = command.get_command(context, name)
        if found is None:
            raise Faulty(f"tunewheel has no command {name}")
        command = found
        context = command.context_class(command, info_name=name, parent=context)
    if hasattr(command, "get_command"):
        if not words or words[0] not in ("--help", "--version"):
            raise Faulty("a command is missing behind tunewheel")
        return
    if "--help" in words:
        return
    try:
        command.parse_args(context, list(words))
    except Exception as error:
        raise Faulty(f"tunewheel {context.info_name}: {error}") from error


@cache
def _targets() -> dict[str, str]:
    text = (ROOT / "Makefile").read_text("utf-8")
    return dict(re.findall(r"^([a-z][a-z-]+):(.*)$", text, re.MULTILINE)) | {"": text}


def _make(words: list[str]) -> None:
    for word in words:
        name, given, _ = word.partition("=")
        if (
            given
            and f"$({name})" not in _targets()[""]
            and not re.search(rf"^{name} \?=", _targets()[""], re.M)
        ):
            raise Faulty(f"the Makefile reads no {name}")
        if not given and not word.startswith("-") and word not in _targets():
            raise Faulty(f"the Makefile has no target {word}")


ADDRESSES: list[tuple[str, str]] = []
"""Method and path of every operation of the services' OpenAPI documents; the test fills it."""


def _curl(words: list[str]) -> None:
    """Look the address up in the services' OpenAPI documents."""
    method, url, at = "", "", iter(words)
    for word in at:
        if word in ("-X", "--request"):
            method = next(at)
        elif word in ("-d", "--json", "--data-binary", "--data"):
            method, _ = method or "POST", next(at)
        elif word in ("-H", "--header", "-o"):
            next(at)
        elif not word.startswith("-"):
            url = word
    path = re.sub(r"^(?:https?://[^/]+|\$\w+_URL)", "", url).partition("?")[0]
    path = path if path.startswith(("/v1", "/health")) else f"/v1{path}"
    if not any(told == (method or "GET") and re.fullmatch(form, path) for told, form in ADDRESSES):
        raise Faulty(f"no service answers {method or 'GET'} {path}")


def pattern(path: str) -> str:
    """Return the regular expression of an OpenAPI path."""
    return re.sub(r"\{[^}]+\}", "[^?]+", path)


def _docker(words: list[str]) -> None:
    """Check the files and build arguments of ``docker build``, and the services of ``docker compose``."""
    files = [word for before, word in pairwise(words) if before == "-f"]
    files += [word[5:] for word in words if word.startswith("LOCK=")]
    if missing := [name for name in files if not (ROOT / name).is_file()]:
        raise Faulty(f"there is no file {missing[0]}")
    for before, word in pairwise(words):
        if before == "--target" and f" AS {word}" not in (ROOT / "deploy/images/Dockerfile").read_text(
            "utf-8"
        ):
            raise Faulty(f"the Dockerfile has no target {word}")
        if word.startswith("SERVICE=") and word != "SERVICE=$service":
            folder = "cli" if word == "SERVICE=cli" else f"services/{word[8:]}"
            if not (ROOT / folder / "pyproject.toml").is_file():
                raise Faulty(f"there is no service {word}")
    if "run" in words:
        rest = words[words.index("run") + 1 :]
        while rest[0].startswith("-"):
            del rest[0]
        compose = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text("utf-8"))
        if rest[0] not in compose["services"]:
            raise Faulty(f"compose has no service {rest[0]}")
        if rest[0] == "cli":
            _tunewheel(rest[1:])


def _python(words: list[str]) -> None:
    if "-c" in words:
        ast.parse(words[words.index("-c") + 1])


def _service(words: list[str]) -> None:
    """Check a service's program and its options."""
    if words[0] == "tunewheel-engine":
        from tunewheel_engine.main import read_settings

        read_settings(words[1:])
        return
    if (
        words[1:]
        or not (ROOT / "services" / words[0].removeprefix("tunewheel-") / "pyproject.toml").is_file()
    ):
        raise Faulty(f"there is no program {' '.join(words)}")


def _uv(words: list[str]) -> None:
    if "tunewheel" in words and words[0] != "pip":
        _tunewheel(words[words.index("tunewheel") + 1 :])


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "tunewheel": _tunewheel, "make": _make, "curl": _curl, "docker": _docker, "python3": _python,
    "uv": _uv, "uvx": _uv,
}  # fmt: skip


def _known(code: str) -> list[list[str]]:
    """Return the commands of a marked block that can be checked all the same."""
    try:
        return [*commands(code)]
    except Faulty:
        return [["echo"]]


# Data


@cache
def guide_spec() -> dict[str, Any]:
    """Return the whole spec of the guide, into which the fragments of other pages must fit."""
    return yaml.safe_load(
        next(b.code for b in blocks(GUIDE.name, GUIDE.read_text("utf-8")) if "returns-desk" in b.code)
    )


def merged(spec: Mapping[str, Any], fragment: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``spec`` with the sections of ``fragment`` laid over it."""
    found = dict(spec)
    for name, value in fragment.items():
        within = found.get(name)
        found[name] = merged(within, value) if isinstance(within, dict) and isinstance(value, dict) else value
    return found


def spec_block(block: Block) -> None:
    """Validate YAML by what it is: a spec or its part, a mapping, keys, values of the chart, or a task."""
    shown = yaml.safe_load(block.code.replace("5f0c…", "a" * 64))
    names = set(shown)
    if {"project", "base_model"} <= names:
        parse_spec(block.code)
    elif names == {"questions"}:  # shown on its own, below the section that it belongs to
        parse_spec(yaml.safe_dump(merged(guide_spec(), {"dataset": {"formats": {"documents": shown}}})))
    elif names <= set(ProjectSpec.model_fields):
        parse_spec(yaml.safe_dump(merged(guide_spec(), shown)))
    elif "keys" in names:
        KeyFile.model_validate(yaml.safe_load(block.code.replace("<hash of its key>", "a" * 64)))
    elif "map" in names:
        MappingSpec.model_validate(shown)
    elif "dataset_path" in names:
        check_config(shown["task"], shown)
    elif all("/" in name for name in names):  # secrets of webhooks, by project and source
        if not all(
            isinstance(one, str)
            for value in shown.values()
            for one in (value if isinstance(value, list) else [value])
        ):
            raise Faulty("a secret is no text")
    else:
        schema = json.loads((ROOT / "deploy/helm/tunewheel/values.schema.json").read_text("utf-8"))
        jsonschema_rs.validator_for(_optional(schema)).validate(shown)


def _optional(schema: Any) -> Any:
    """Return the schema without ``required``: values on a page are laid over the chart's own."""
    if isinstance(schema, dict):
        return {name: _optional(part) for name, part in schema.items() if name != "required"}
    return [_optional(part) for part in schema] if isinstance(schema, list) else schema


def _code(block: Block) -> None:
    try:
        compile(block.code, block.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        raise Faulty(str(error)) from error


def _script(block: Block) -> None:
    told = subprocess.run(
        ["node", "--input-type=module", "--check"], input=block.code, capture_output=True, text=True
    )
    if told.returncode:
        raise Faulty(told.stderr)


def _drawing(block: Block) -> None:
    if block.code.split()[0] not in ("flowchart", "stateDiagram-v2", "sequenceDiagram"):
        raise Faulty("is no diagram of Mermaid")


def _output(block: Block) -> None:
    if re.search(r"^(?:\$ )?(?:tunewheel|make|curl|docker) ", block.code, re.MULTILINE):
        raise Faulty("holds a command; name the language")


CHECKS: dict[str, Callable[[Block], None]] = {
    "python": _code, "js": _script, "json": lambda block: json.loads(block.code), "yaml": spec_block,
    "mermaid": _drawing, "text": _output, **dict.fromkeys(SHELL, shell),
}  # fmt: skip
