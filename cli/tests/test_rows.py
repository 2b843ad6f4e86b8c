"""CSV columns become fields."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunewheel_cli.publishing.items import Found, Refusal, Source, SourceUnusable
from tunewheel_cli.publishing.rows import parse_maps, read_csv
from tunewheel_local.connection import InvalidOption

FIELDS = frozenset({"input", "output", "example_id"})


def rows(folder: Path, content: bytes, *maps: str, max_bytes: int = 1_000) -> Source:
    path = folder / "x.csv"
    path.write_bytes(content)
    return read_csv(path, mapping=parse_maps(maps), fields=FIELDS, max_bytes=max_bytes)


def test_columns_are_mapped_and_dotted_fields_make_objects(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbftext,category,note\n"Where, is\nmy card?",card_arrival,x\nhi,,\n'
    assert list(rows(tmp_path, content, "text=input", "category=output.category")) == [
        Found("line 2", 2, {"input": "Where, is\nmy card?", "output": {"category": "card_arrival"}}),
        Found("line 4", 4, {"input": "hi"}),
    ]


def test_fields_of_several_dots_make_objects_in_objects(tmp_path: Path) -> None:
    found = rows(tmp_path, b"q,a,b\nhi,x,y\n", "q=input", "a=output.place.city", "b=output.place.zip")
    assert [item.fields for item in found if isinstance(item, Found)] == [
        {"input": "hi", "output": {"place": {"city": "x", "zip": "y"}}}
    ]


def test_columns_called_like_fields_need_no_map(tmp_path: Path) -> None:
    assert list(rows(tmp_path, b"input,other\nhi,x\n")) == [Found("line 2", 2, {"input": "hi"})]


@pytest.mark.parametrize(
    ("content", "maps", "words"),
    [
        (b"", ["text=input"], "has no header line"),
        (b"text\nhi\n", ["nope=input"], "no column 'nope'; it has text"),
        (b"text\nhi\n", ["text=nope"], "no field 'nope'; choose from"),
        (b"text\nhi\n", [], "no column is a field"),
        (b"text\nhi\n", ["text"], "is not column=field"),
        (b"a,b\nhi,x\n", ["a=input", "b=input"], "a second time"),
        (b"input,input\nhi,x\n", [], "two columns are 'input'; rename"),
        (b"input,text\nhi,x\n", ["text=input"], "two columns are 'input'"),
        (b"output,cat\nhi,x\n", ["cat=output.category"], "'output' and another 'output.category'"),
        (b"cat,output\nhi,x\n", ["cat=output.category"], "'output' and another 'output.category'"),
        (b"a,b\nhi,x\n", ["a=output.x.y", "b=output.x"], "'output.x' and another 'output.x.y'"),
        (b"input;output\nhi;x\n", [], "parted by ';'; save it with commas"),
        (b"input\toutput\nhi\tx\n", [], r"parted by '\\t'"),
        ("input,output\nhi,x\n".encode("utf-16"), [], "header is not UTF-8; save the file as UTF-8"),
    ],
)
def test_what_cannot_work_says_so_before_anything_is_read(
    tmp_path: Path, content: bytes, maps: list[str], words: str
) -> None:
    with pytest.raises((InvalidOption, SourceUnusable), match=words) as caught:
        list(rows(tmp_path, content, *maps))
    assert isinstance(caught.value, InvalidOption) is str(caught.value).startswith("--"), "exit code 2 or 1"


def test_bad_rows_are_refused_by_themselves(tmp_path: Path) -> None:
    content = b"input,output\na,b\nonly one\n\xff,c\n" + b"x" * 2_000 + b",d\nlast,e\n"
    found = list(rows(tmp_path, content))
    assert [item.line for item in found if isinstance(item, Found)] == [2, 6]
    assert {item.line: item.reason.split(";")[0] for item in found if isinstance(item, Refusal)} == {
        3: "has 1 cells, the header has 2",
        4: "is not UTF-8",
        5: "is over 1000 bytes",
    }
