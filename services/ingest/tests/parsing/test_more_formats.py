"""Mails, notebooks and pages of Confluence."""

from __future__ import annotations

import contextlib
import json
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.formats.document import EML, IPYNB
from tunewheel_ingest.parsing.document import Unreadable
from tunewheel_ingest.parsing.formats import parse_file
from tunewheel_ingest.parsing.formats.html import parse_html
from tunewheel_ingest.parsing.formats.mail import parse_eml
from tunewheel_ingest.parsing.formats.notebook import parse_notebook


def mail(path: Path, *, html: bool = False) -> Path:
    message = EmailMessage()
    message["Subject"] = "The bell =?utf-8?b?8J+Usg==?="
    message["From"] = "a@b.example"
    if html:
        message.set_content("<p>It is <b>silent</b>.</p><script>x()</script>", subtype="html")
    else:
        message.set_content("It is silent.\n\nWhat now?", charset="utf-8", cte="quoted-printable")
    message.add_attachment(b"MZ", maintype="application", subtype="x-msdownload", filename="run.exe")
    path.write_bytes(message.as_bytes())
    return path


def test_a_mail_is_its_subject_its_text_and_the_names_of_its_attachments(tmp_path: Path) -> None:
    parsed = parse_eml(mail(tmp_path / "a.eml"))
    assert parsed.title.startswith("The bell")
    assert parsed.markdown == (
        f"# {parsed.title}\n\nIt is silent.\n\nWhat now?\n\n"
        "Attachments:\n- run.exe (application/x-msdownload)"
    )
    assert "It is **silent**." in parse_eml(mail(tmp_path / "b.eml", html=True)).markdown


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\xff\xfe\x00",
        b"Subject: x\n\n",
        b"Content-Type: multipart/mixed; boundary=a\n\n" + b"--a\n" * 9_000,
        b"".join(b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (n, n) for n in range(1_500)),
        b"Content-Type: text/plain; charset=nope\n\nx",
        b"Subject: " + b"=?utf-8?q?a?= " * 2_000 + b"\n\nx",
    ],
)
def test_no_bytes_of_a_mail_raise_anything_but_a_refusal(tmp_path: Path, hostile: bytes) -> None:
    (tmp_path / "a").write_bytes(hostile)
    with contextlib.suppress(Unreadable):
        parse_file(tmp_path / "a", EML, "a.eml")


def notebook(path: Path, cells: Any, **more: Any) -> Path:
    path.write_text(json.dumps({"cells": cells, "metadata": {"language_info": {"name": "R"}}, **more}))
    return path


def test_a_notebook_is_its_texts_and_its_code(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Bells\n", "They ring."]},
        {"cell_type": "code", "source": "ring()\n", "outputs": [{"text": "secret"}]},
        {"cell_type": "code", "source": []},
    ]
    parsed = parse_notebook(notebook(tmp_path / "a.ipynb", cells))
    assert parsed.markdown == "# Bells\nThey ring.\n\n```r\nring()\n```"
    assert (parsed.title, [section.kind for section in parsed.sections]) == ("Bells", ["prose", "code"])
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["x = 1"], "language": "python"}]}]}
    (tmp_path / "b.ipynb").write_text(json.dumps(old))
    assert parse_notebook(tmp_path / "b.ipynb").markdown == "```python\nx = 1\n```"


@pytest.mark.parametrize("bad", ["[]", "{}", '{"cells": 3}', '{"cells": [1]}', "[" * 99_999, "x"])
def test_a_file_that_is_no_notebook_is_refused_with_advice(tmp_path: Path, bad: str) -> None:
    (tmp_path / "a").write_text(bad)
    with pytest.raises(Unreadable, match="save it anew"):
        parse_file(tmp_path / "a", IPYNB, "a.ipynb")


WIKI = """<h1>Pump</h1><ac:structured-macro ac:name="toc"/>
<ac:structured-macro ac:name="code"><ac:parameter ac:name="language">bash</ac:parameter>
<ac:parameter ac:name="title">Restart</ac:parameter>
<ac:plain-text-body><![CDATA[sudo systemctl restart pump && echo "<ok>"]]></ac:plain-text-body>
</ac:structured-macro>
<ac:structured-macro ac:name="warning"><ac:parameter ac:name="title">Mind</ac:parameter><ac:rich-text-body>
<p>Never <strong>dry</strong>.</p></ac:rich-text-body></ac:structured-macro>
<ac:task-list><ac:task><ac:task-id>1</ac:task-id><ac:task-status>incomplete</ac:task-status>
<ac:task-body>Close the red valve</ac:task-body></ac:task><ac:task><ac:task-id>2</ac:task-id>
<ac:task-status>complete</ac:task-status><ac:task-body>Drain it</ac:task-body></ac:task></ac:task-list>
<p>See <ac:link><ri:page ri:content-title="Valves"/></ac:link> and
<ac:link><ri:page ri:content-title="Oil"/>
<ac:plain-text-link-body><![CDATA[the oil]]></ac:plain-text-link-body></ac:link>,
<time datetime="2026-01-05"/>.</p>
<ac:layout><ac:layout-section><ac:layout-cell><table><tr><th>light</th></tr><tr><td>red</td></tr></table>
</ac:layout-cell></ac:layout-section></ac:layout>"""


@pytest.mark.parametrize("page", [WIKI, WIKI.encode()])
def test_a_page_of_confluence_keeps_code_tasks_panels_links_and_tables(page: str | bytes) -> None:
    assert parse_html(page).markdown == (
        '# Pump\n\nRestart\n\n```bash\nsudo systemctl restart pump && echo "<ok>"\n```\n\nWarning: Mind\n\n'
        "Never **dry**.\n\n- [ ] Close the red valve\n- [x] Drain it\n\n"
        "See Valves and\nthe oil,\n2026-01-05.\n\n| light |\n| --- |\n| red |"
    )


def test_macros_within_macros_and_without_an_end_are_read() -> None:
    macro = '<ac:structured-macro ac:name="{}"><ac:{}-text-body>{}</ac:{}-text-body></ac:structured-macro>'
    inner = macro.format("code", "plain", "<![CDATA[x = 1]]>", "plain")
    page = macro.format("expand", "rich", inner, "rich")
    assert parse_html(page).markdown == "```\nx = 1\n```"
    assert parse_html("<p>a</p><ac:task-list><ac:task><ac:task-body>b<![CDATA[c").markdown == "a\n\n- [ ] bc"
