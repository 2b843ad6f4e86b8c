"""Cuts Markdown into sections, line by line, in time linear in the text, so that no input can make it slow.

The structure follows CommonMark 0.31 §4.2 (ATX headings), §4.3 (setext headings), §4.5 (fenced code) and the
GFM table extension (§4.10). The text inside a block stays unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from tunewheel_contracts.formats.document import DocumentSection

LONGEST_FRONT_MATTER = 200
"""The most lines of front matter."""
LONGEST_HEADING = 300
"""The most characters of a heading. A longer line is text: every section repeats the headings above it."""


@dataclass(slots=True)
class _Block:
    kind: Literal["prose", "table", "code", "heading"]
    lines: list[str] = field(default_factory=list[str])
    language: str | None = None
    level: int = 0


def sections_of(text: str) -> tuple[DocumentSection, ...]:
    """Return the sections of a Markdown text (LF line ends), each with the headings above it."""
    sections: list[DocumentSection] = []
    path = HeadingPath()
    for block in _blocks(text.split("\n")):
        if block.kind == "heading":
            path.enter(block.level, block.lines[0])
            continue
        body = "\n".join(block.lines)
        body = body if block.kind == "code" else body.strip("\n")
        if body.strip():
            sections.append(
                DocumentSection(path=path.names, text=body, kind=block.kind, language=block.language)
            )
    return tuple(sections)


class HeadingPath:
    """The headings above a place. A heading of level n closes all headings of level n and deeper."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for _, name in self._open)

    def enter(self, level: int, name: str) -> None:
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        if name:
            self._open.append((level, name))


def title_of(text: str) -> str:
    """Return the heading at the start of a text, else its first heading of level 1, else an empty string. A
    deeper heading that follows other text names only a part."""
    begun = False
    for block in _blocks(text.split("\n")):
        if block.kind == "heading" and (block.level == 1 or not begun):
            return block.lines[0]
        begun = begun or block.kind == "heading" or any(line.strip() for line in block.lines)
    return ""


def front_matter_title(text: str) -> str:
    """Return the title from YAML front matter; empty if there is none."""
    lines = text.split("\n")
    for line in lines[: _after_front_matter(lines)]:
        key, _, value = line.partition(":")
        if key.strip() == "title":
            return _plain(value.strip().strip("\"'")[:LONGEST_HEADING])
    return ""


def fence_for(text: str) -> str:
    """Return a code fence that no line of ``text`` can close."""
    longest = 0
    for line in text.split("\n"):
        stripped = line.lstrip()
        longest = max(longest, len(stripped) - len(stripped.lstrip("`")))
    return "`" * max(3, longest + 1)


def fenced(text: str, language: str | None) -> str:
    """Return ``text`` as a fenced code block."""
    fence = fence_for(text)
    return f"{fence}{language or ''}\n{text}\n{fence}"


def _blocks(lines: list[str]) -> Iterator[_Block]:
    prose = _Block("prose")
    number = _after_front_matter(lines)
    while number < len(lines):
        special, after = _special(lines, number)
        if special is None and (level := _underline(lines[number])) and (above := _paragraph(prose.lines)):
            del prose.lines[-len(above) :]
            special = _Block("heading", [_plain(" ".join(above))], level=level)
        if special is None:
            prose.lines.append(lines[number])
        else:
            yield prose
            yield special
            prose = _Block("prose")
        number = after
    yield prose


def _special(lines: list[str], number: int) -> tuple[_Block | None, int]:
    """Return the block that begins on line ``number``, if it is not prose, and the next block's first
    line."""
    line = lines[number]
    if fence := _opening_fence(line):
        end = next((n for n in range(number + 1, len(lines)) if _closes(fence, lines[n])), len(lines))
        words = line.strip().strip(fence[0]).split()
        language = words[0].strip("{}.").lower() if words else ""
        indent = len(line) - len(line.lstrip(" "))
        inside = [_outdented(inner, indent) for inner in lines[number + 1 : end]]
        return _Block("code", inside, language=language or None), end + 1
    if heading := _heading(line):
        return _Block("heading", [heading[1]], level=heading[0]), number + 1
    if "|" in line and number + 1 < len(lines) and _is_delimiter_row(lines[number + 1]):
        end = number + 2
        while end < len(lines) and "|" in lines[end]:
            end += 1
        return _Block("table", lines[number:end]), end
    return None, number + 1


def _after_front_matter(lines: list[str]) -> int:
    """Return the first line after YAML front matter, which is metadata for a site generator."""
    if lines[0].rstrip() != "---" or len(lines) < 2 or ":" not in lines[1]:
        return 0
    for number in range(1, min(len(lines), LONGEST_FRONT_MATTER)):
        if lines[number].rstrip() in ("---", "..."):
            return number + 1
    return 0


def _opening_fence(line: str) -> str | None:
    stripped = line.lstrip()
    for mark in ("`", "~"):
        length = len(stripped) - len(stripped.lstrip(mark))
        # ```x``` on one line is code within a sentence
        if length >= 3 and not (mark == "`" and "`" in stripped[length:]):
            return mark * length
    return None


def _outdented(line: str, indent: int) -> str:
    """Return a line of code without the indentation of its fence, which comes from the list around it."""
    return line[min(indent, len(line) - len(line.lstrip(" "))) :]


def _closes(fence: str, line: str) -> bool:
    stripped = line.strip()
    return len(stripped) >= len(fence) and not stripped.strip(fence[0])


def _heading(line: str) -> tuple[int, str] | None:
    stripped = line.strip()
    level = len(stripped) - len(stripped.lstrip("#"))
    if not 1 <= level <= 6 or line.startswith("    ") or len(stripped) > LONGEST_HEADING:
        return None
    rest = stripped[level:]
    if rest and rest[0] not in " \t":
        return None
    name = rest.strip()
    bare = name.rstrip("#")
    if bare != name and (not bare or bare[-1] in " \t"):
        name = bare.rstrip()
    return level, _plain(name)


def _underline(line: str) -> int:
    """Return the level of the setext heading that ``line`` underlines; 0 if it is no underline."""
    stripped = line.strip()
    if not stripped or line.startswith("    ") or stripped.strip(stripped[0]):
        return 0
    return {"=": 1, "-": 2}.get(stripped[0], 0)


def _paragraph(lines: list[str]) -> list[str]:
    """Return the one or two lines of text at the end of ``lines``. A longer paragraph cannot be a heading."""
    found: list[str] = []
    for line in reversed(lines[-3:]):
        stripped = line.strip()
        if not stripped:
            break
        if stripped[0] in "-*+>|" or len(found) == 2 or len(stripped) > LONGEST_HEADING // 2:
            return []
        found.insert(0, stripped)
    return found


def _is_delimiter_row(line: str) -> bool:
    stripped = line.strip()
    return "-" in stripped and "|" in stripped and not stripped.strip("|-: \t")


def _plain(name: str) -> str:
    """Return a heading without the marks of emphasis, code and links, and without a trailing {#anchor}."""
    if name.endswith("}") and "{" in name:
        name = name[: name.rindex("{")].rstrip()
    while (start := name.find("](")) >= 0 and (end := name.find(")", start)) >= 0:
        opening = _opening(name, start)
        if opening < 0:
            break
        name = name[:opening].rstrip("!") + name[opening + 1 : start] + name[end + 1 :]
    return " ".join(name.replace("**", "").replace("`", "").split())


def _opening(name: str, end: int) -> int:
    """Return the position of the bracket that the one at ``end`` closes; -1 if there is none."""
    depth = 0
    for place in range(end, -1, -1):
        depth += {"]": 1, "[": -1}.get(name[place], 0)
        if depth == 0:
            return place
    return -1
