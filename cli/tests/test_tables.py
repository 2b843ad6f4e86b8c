"""CSV and its kin, and XLSX: columns become fields."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from tunewheel_cli.publishing.items import Found, Item, Kind, Refusal, SourceUnusable
from tunewheel_cli.publishing.sources import open_source
from tunewheel_local.connection import InvalidOption


def rows(
    folder: Path, content: bytes, *maps: str, name: str = "x.csv", kind: Kind | None = Kind.EXAMPLE
) -> list[Item]:
    path = folder / name
    path.write_bytes(content)
    return list(open_source(path, kind=kind, maps=maps, max_bytes=1_000))


def fields(items: list[Item]) -> list[dict[str, object]]:
    return [dict(item.fields) for item in items if isinstance(item, Found)]


def test_columns_are_mapped_and_dotted_fields_make_objects(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbftext,category,note\n"Where, is\nmy card?",card_arrival,x\nhi,,\n'
    label = {"category": "card_arrival"}
    assert rows(tmp_path, content, "text=input", "category=output.category") == [
        Found("line 2", 2, {"input": "Where, is\nmy card?", "output": label}, Kind.EXAMPLE),
        Found("line 4", 4, {"input": "hi"}, Kind.EXAMPLE),
    ]


def test_fields_of_several_dots_make_objects_in_objects(tmp_path: Path) -> None:
    found = rows(tmp_path, b"q,a,b\nhi,x,y\n", "q=input", "a=output.place.city", "b=output.place.zip")
    assert fields(found) == [{"input": "hi", "output": {"place": {"city": "x", "zip": "y"}}}]


def test_columns_called_like_fields_need_no_map(tmp_path: Path) -> None:
    assert fields(rows(tmp_path, b"ticket_id,body,other\n1,hi,x\n", kind=Kind.TICKET)) == [
        {"ticket_id": "1", "body": "hi"}
    ]


def test_question_and_answer_need_neither_map_nor_kind_in_any_of_their_languages(tmp_path: Path) -> None:
    for header in ("question,answer", "Frage,Antwort", "PROMPT,Completion", "Input,Output"):
        (found,) = rows(tmp_path, f"{header}\nhi,x\n".encode(), kind=None)
        assert isinstance(found, Found)
        assert (found.kind, found.fields) == (Kind.EXAMPLE, {"input": "hi", "output": "x"}), header


def test_mapped_fields_tell_the_kind(tmp_path: Path) -> None:
    (found,) = rows(tmp_path, b"text,who\nhi,x\n", "text=body", "who=customer", kind=None)
    assert isinstance(found, Found)
    assert found.kind is Kind.TICKET


@pytest.mark.parametrize(
    ("content", "maps", "words"),
    [
        (b"", ["text=input"], "has no header line"),
        (b"\n\n", ["text=input"], "has no header line"),
        (b"x" * 300 + b",b\nhi,x\n", ["text=input"], "has no header line"),
        (b"text\nhi\n", ["nope=input"], "no column 'nope'; it has text"),
        (b"text\nhi\n", ["text=nope"], "no field 'nope'; choose from"),
        (b"text\nhi\n", ["text"], "is not column=field"),
        (b"a,b\nhi,x\n", ["a=input", "b=input"], "a second time"),
        (b"input,input\nhi,x\n", [], "two columns are 'input'; rename"),
        (b"input,text\nhi,x\n", ["text=input"], "two columns are 'input'"),
        (b"output,cat\nhi,x\n", ["cat=output.category"], "'output' and another 'output.category'"),
        (b"cat,output\nhi,x\n", ["cat=output.category"], "'output' and another 'output.category'"),
        (b"a,b\nhi,x\n", ["a=output.x.y", "b=output.x"], "'output.x' and another 'output.x.y'"),
    ],
)
def test_what_cannot_work_says_so_before_anything_is_read(
    tmp_path: Path, content: bytes, maps: list[str], words: str
) -> None:
    with pytest.raises((InvalidOption, SourceUnusable), match=words) as caught:
        rows(tmp_path, content, *maps)
    assert isinstance(caught.value, InvalidOption) is str(caught.value).startswith("--"), "exit code 2 or 1"


def test_columns_without_a_meaning_are_named_once_and_not_on_every_line(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match=r"--map NAME=input .*columns: text, category") as caught:
        rows(tmp_path, b"text,category\n" + b"hi,x\n" * 50, kind=None)
    assert "\n" not in str(caught.value)


def test_bad_rows_are_refused_by_themselves(tmp_path: Path) -> None:
    content = "input,output\nä,é\n".encode() + b"only one\n\xff,c\n" + b"x" * 2_000 + b",d\nlast,e\n"
    found = rows(tmp_path, content)
    assert [item.line for item in found if isinstance(item, Found)] == [2, 6]
    assert {item.line: item.reason.split(";")[0] for item in found if isinstance(item, Refusal)} == {
        3: "has 1 cells, the header has 2",
        4: "is not UTF-8",
        5: "is over 1000 bytes",
    }


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_separator_line_ends_and_encoding_are_found(
    tmp_path: Path, separator: str, end: str, encoding: str
) -> None:
    lines = ["Frage|Antwort", '"Größe? 1,5; oder 2"|"Über 3€, ja"', '"zwei\nZeilen"|ok', "a|b"]
    content = (end.join(lines) + end).replace("|", separator).encode(encoding)
    assert fields(rows(tmp_path, content, kind=None)) == [
        {"input": "Größe? 1,5; oder 2", "output": "Über 3€, ja"},
        {"input": "zwei\nZeilen", "output": "ok"},
        {"input": "a", "output": "b"},
    ]


def test_a_single_column_has_no_separator(tmp_path: Path) -> None:
    assert fields(rows(tmp_path, b"body\nhello there\nbye\n", kind=Kind.TICKET)) == [
        {"body": "hello there"},
        {"body": "bye"},
    ]


def test_gzip_is_read_and_half_of_it_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"question,answer\n" + b"hi,x\n" * 2_000)
    assert len(rows(tmp_path, whole, name="x.csv.gz", kind=None)) == 2_000
    with pytest.raises(SourceUnusable, match="no whole gzip file"):
        rows(tmp_path, whole[: len(whole) // 2], name="x.csv.gz", kind=None)


def test_a_gzip_that_breaks_off_late_ends_with_a_sentence(tmp_path: Path) -> None:
    lines = [f'{{"question": "{number}", "answer": "{number**9}"}}\n' for number in range(60_000)]
    whole = gzip.compress("".join(lines).encode())
    with pytest.raises(SourceUnusable, match="no whole gzip file"):
        rows(tmp_path, whole[:-20_000], name="x.jsonl.gz", kind=None)


def test_the_first_sheet_of_a_workbook_is_read(tmp_path: Path) -> None:
    pytest.importorskip("python_calamine", reason="python-calamine is not installed: make install")
    table = [["Frage", "Antwort", "n"], ["Wo?", "Dort", 3.0], [None, None, None], ["Wann?", True, 1.5]]
    path = workbook(tmp_path / "x.xlsx", {"empty": [], "Daten": table, "more": [["a"]]})
    source = open_source(path, kind=None, maps=(), max_bytes=1_000)
    assert fields(list(source)) == [
        {"input": "Wo?", "output": "Dort"},
        {"input": "Wann?", "output": "True"},
    ]
    assert source.notes[0] == "only the sheet 'Daten' is read, of 2"
    (tmp_path / "bad.xlsx").write_bytes(b"no zip")
    with pytest.raises(SourceUnusable, match="no workbook"):
        open_source(tmp_path / "bad.xlsx", kind=None, maps=(), max_bytes=1_000)


def workbook(path: Path, sheets: dict[str, list[list[object]]]) -> Path:
    """Write a workbook of inline strings and numbers, as ECMA-376 has it."""
    import zipfile
    from xml.sax.saxutils import escape

    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rel = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"

    def cell(value: object) -> str:
        if value is None:
            return "<c/>"
        if isinstance(value, bool):
            return f'<c t="b"><v>{int(value)}</v></c>'
        if isinstance(value, float):
            return f"<c><v>{value}</v></c>"
        return f'<c t="inlineStr"><is><t>{escape(str(value))}</t></is></c>'

    names = list(enumerate(sheets, 1))
    parts = "".join(
        f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="application/vnd.openxmlformats-'
        'officedocument.spreadsheetml.worksheet+xml"/>'
        for n, _ in names
    )
    files = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.'
        f'spreadsheetml.sheet.main+xml"/>{parts}</Types>',
        "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r" Type="{rel}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{rel}"><sheets>'
        + "".join(f'<sheet name="{name}" sheetId="{n}" r:id="s{n}"/>' for n, name in names)
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": (
            '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        )
        + "".join(
            f'<Relationship Id="s{n}" Type="{rel}/worksheet" Target="worksheets/sheet{n}.xml"/>'
            for n, _ in names
        )
        + "</Relationships>",
    }
    for n, name in names:
        lines = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in sheets[name])
        files[f"xl/worksheets/sheet{n}.xml"] = (
            f'<worksheet xmlns="{main}"><sheetData>{lines}</sheetData></worksheet>'
        )
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path
