"""Reads a mail (RFC 5322) as Markdown: subject, body, and the names of its attachments."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

from tunewheel_contracts.formats.document import EML

from tunewheel_ingest.normalising import normalise
from tunewheel_ingest.parsing.document import ParsedDocument, Parser, refusing_damage
from tunewheel_ingest.parsing.formats.html import parse_mail
from tunewheel_ingest.parsing.markdown import sections_of


def parse_eml(path: Path) -> ParsedDocument:
    """Return a mail as Markdown. Attachments are named, and not opened.

    Raises:
        Unreadable: the file is no mail.
    """
    from email import message_from_bytes
    from email.policy import default

    with refusing_damage("mail", "save it anew as .eml"):
        mail = message_from_bytes(path.read_bytes(), policy=default)
        assert isinstance(mail, EmailMessage)
        subject = " ".join(normalise(str(mail.get("subject", ""))).split())
        body = mail.get_body(("plain", "html"))
        text = str(body.get_content()) if body is not None else ""
        if body is not None and body.get_content_subtype() == "html":
            text = parse_mail(text)
        names = [
            f"- {part.get_filename() or 'without a name'} ({part.get_content_type()})"
            for part in mail.iter_attachments()
        ]
    parts = [f"# {subject}" if subject else "", text, "\n".join(["Attachments:", *names]) if names else ""]
    markdown = normalise("\n\n".join(part for part in parts if part.strip()))
    return ParsedDocument(markdown=markdown, sections=sections_of(markdown), title=subject)


MAIL = Parser(EML, lambda path, name: parse_eml(path), libraries=("email.policy", "bs4", "markdownify"))
