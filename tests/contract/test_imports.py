"""Who may import whom: that the rules, which `make lint` holds, see every package, and are noticed."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINTER = Path(sys.executable).parent / "lint-imports"
RULES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
PACKAGES = {path.name for below in ("*", "services/*") for path in ROOT.glob(f"{below}/src/tunewheel_*")}
TOKENIZING = {"tunewheel_curate", "tunewheel_console", "tunewheel_cli", "tunewheel_demo"}
"""What uses a base model's tokenizer and never its weights."""


def _lint(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(LINTER), "--no-cache", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_package_is_under_the_rules() -> None:
    assert len(PACKAGES) >= 13
    assert set(RULES["root_packages"]) == PACKAGES
    by_id = {rule["id"]: rule for rule in RULES["contracts"]}
    layered = {name.strip() for layer in by_id["layers"]["layers"] for name in layer.split("|")}
    assert layered == PACKAGES
    generating = {"tunewheel_generation", "tunewheel_eval", "tunewheel_engine"}
    heavy = {"tunewheel_basemodel", "tunewheel_train", *generating}
    for rule in ("torch", "transformers"):
        assert set(by_id[rule]["source_modules"]) == PACKAGES - heavy
    assert set(by_id["basemodel"]["source_modules"]) == PACKAGES - heavy - TOKENIZING
    assert set(by_id["generation"]["source_modules"]) == PACKAGES - generating
    assert set(by_id["acyclic"]["ancestors"]) == PACKAGES


def test_what_shows_tokens_uses_nothing_else_of_the_base_model() -> None:
    (rule,) = [rule for rule in RULES["contracts"] if rule["id"] == "tokenizer"]
    modules = {path.stem for path in (ROOT / "basemodel/src/tunewheel_basemodel").glob("*.py")}
    free = {"__init__", "carried", "chat", "digest", "errors", "gguf_metadata", "hub", "tokenizer"}
    assert set(rule["source_modules"]) == TOKENIZING
    assert {name.rpartition(".")[2] for name in rule["forbidden_modules"]} == modules - free


@pytest.mark.parametrize(
    ("source", "forbidden"), [("tunewheel_runtime", "tunewheel_contracts"), ("tunewheel_contracts", "yaml")]
)
def test_the_linter_notices_a_forbidden_import(tmp_path: Path, source: str, forbidden: str) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        f"""
[tool.importlinter]
root_packages = ["{source}", "tunewheel_basemodel"]
include_external_packages = true
[[tool.importlinter.contracts]]
name = "Known to be broken"
type = "forbidden"
source_modules = ["{source}"]
forbidden_modules = ["{forbidden}"]
""",
        encoding="utf-8",
    )
    done = _lint("--config", str(rules))
    assert done.returncode == 1, done.stdout
    assert "1 broken" in done.stdout


SOURCES = {
    ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path
    for below in ("*", "services/*")
    for source in (path.parent for path in ROOT.glob(f"{below}/src/tunewheel_*"))
    for path in source.rglob("*.py")
}


def imported(path: Path) -> list[tuple[str, str]]:
    """Return (module, name) of every ``from tunewheel_… import …`` in a file, at whatever depth."""
    found = [
        node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)
    ]
    return [
        (node.module, one.name)
        for node in found
        if node.module and node.module.split(".")[0] in PACKAGES
        for one in node.names
    ]


@functools.cache
def names_of(module: str) -> frozenset[str]:
    """Return what a module of ours defines or imports, and its submodules."""
    tree = ast.parse(SOURCES[module].read_text("utf-8"))
    nodes = list(ast.walk(tree))
    names = {
        node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    names |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {
        one.asname or one.name
        for node in nodes
        if isinstance(node, ast.ImportFrom | ast.Import)
        for one in node.names
    }
    return frozenset(names | {one.rpartition(".")[2] for one in SOURCES if one.rpartition(".")[0] == module})


def test_benches_and_scripts_import_what_is_there() -> None:
    """No other test runs them by day."""
    files = [*(ROOT / "tests" / "bench").glob("*.py"), *(ROOT / "scripts").glob("*.py")]
    wanted = {(path.name, module, name) for path in files for module, name in imported(path)}
    assert len(wanted) > 200
    missing = {one for one in wanted if one[1] not in SOURCES or one[2] not in names_of(one[1])}
    assert missing == set()
