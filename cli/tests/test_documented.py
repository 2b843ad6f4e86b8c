"""Every command is in the README, and explains each of its options; what people are told to type exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tunewheel_cli.frame import load
from tunewheel_cli.reference import written
from tunewheel_cli.table import BY_WORDS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "cli" / "README.md").read_text("utf-8")
TELLING = (
    "*.md", "docs/**/*.md", "deploy/*/*.md", "*/README.md", "services/*/README.md", "*/src/**/*.py",
    "services/*/src/**/*.py",
)  # fmt: skip
"""Pages, and the sources of messages."""
CALL = re.compile(r"(?:^|[$&] )tunewheel (?P<command>[a-z-]+)(?: (?P<inner>[a-z-]+))?(?P<rest>[^#]*)")


FOUND = {tuple(words.split()): load(entry) for words, entry in BY_WORDS.items()}
"""Every command, by the words that call it."""


def test_all_commands_are_seen() -> None:
    assert len(FOUND) >= 20
    assert ("dataset", "diff") in FOUND


def test_the_readme_lists_the_commands_of_the_table() -> None:
    assert written(README) == README
    assert all(f"| `{' '.join(path)}` |" in README for path in FOUND)


def test_every_command_and_option_is_explained() -> None:
    silent = [
        f"{' '.join(path)} {option.name}"
        for path, command in FOUND.items()
        for option in command.params
        if not (getattr(option, "help", None) or "").strip()
    ]
    assert silent == []
    assert [path for path, command in FOUND.items() if not (command.help or "").strip()] == []


def _calls() -> Iterator[tuple[str, str, tuple[str, ...], set[str]]]:
    """Yield (file, line, command, options) of what pages and messages tell people to type."""
    for file in (path for pattern in TELLING for path in ROOT.glob(pattern)):
        text = file.read_text("utf-8")
        blocks = "\n".join(re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL))
        for told in [*re.findall(r"`(tunewheel [^`]+)`", text), *blocks.splitlines()]:
            found = CALL.search(" ".join(told.split()))
            if found is not None:
                inner = (found["command"], found["inner"])
                options = set(re.findall(r"(?<!\S)-{1,2}[a-z][a-z-]*", found["rest"]))
                yield file.name, told, inner if inner in FOUND else inner[:1], options


def test_what_people_are_told_to_type_is_a_command_with_these_options() -> None:
    calls = list(_calls())
    assert len(calls) >= 50
    unknown = [f"{name}: {told}" for name, told, words, _ in calls if words not in FOUND]
    assert unknown == []
    for name, told, words, options in calls:
        params = FOUND[words].params
        known = {spelt for option in params for spelt in (*option.opts, *option.secondary_opts)}
        assert options <= known | {"--help"}, f"{name}: {told}"
        if options:  # else it is named rather than shown
            needed = [set(option.opts) for option in params if option.required and option.opts[0][0] == "-"]
            assert all(options & spelt for spelt in needed), f"{name}: {told}"
