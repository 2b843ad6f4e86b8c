"""What cleaning cuts from mails, line by line, on mails whose every line has a label.

A mail is composed: the customer's own lines (public questions of dolly and of IT tickets, and questions in
ten languages that are written here), and around them what mail programs and people add. So the labels hold by
construction: ``own`` lines must stay, ``frame`` lines (attributions, quoted history, signatures, notices) may
go. Traps are texts that look like a frame and belong to the question: logs, shell prompts, forwarded
questions, answers between quoted lines. No mail program wrote these mails; the shapes follow the ones that
mail programs are known to write.

``precision``: the share of cut lines that are frame. ``recall``: the share of frame lines that are cut.
``lost``: mails of which an own line was cut.
"""

from __future__ import annotations

import csv
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from corpus import DATA, require_data
from report import write_report
from tunewheel_contracts.formats.example_formats import CleaningSpec
from tunewheel_curate.cleaning.normalization import normalize_text
from tunewheel_curate.cleaning.tickets import _cuts, _without

MAILS = 600
SEED = 20_261_201
OWN, FRAME = "own", "frame"
Line = tuple[str, str]
QUESTIONS = {
    "de": "Die Klingel bleibt seit gestern stumm.\nWas kann ich tun?"
    "|Wo finde ich die Rechnung von letztem Monat?",
    "fr": "La sonnette ne marche plus depuis hier.\nQue faire ?|Où puis-je trouver ma dernière facture ?",
    "es": "El timbre no suena desde ayer.\n¿Qué puedo hacer?|¿Dónde encuentro mi última factura?",
    "it": "Il campanello non suona da ieri.\nCosa posso fare?|Dove trovo la mia ultima fattura?",
    "nl": "De bel doet het sinds gisteren niet meer.\nWat kan ik doen?|Waar vind ik mijn laatste factuur?",
    "pt": "A campainha não toca desde ontem.\nO que posso fazer?|Onde encontro a minha última fatura?",
    "pl": "Dzwonek nie działa od wczoraj.\nCo mogę zrobić?|Gdzie znajdę ostatnią fakturę?",
    "sv": "Ringklockan har varit tyst sedan i går.\nVad kan jag göra?|Var hittar jag min senaste faktura?",
    "ja": "昨日からベルが鳴りません。\nどうすればよいですか。|先月の請求書はどこにありますか?",
    "zh": "铃铛从昨天开始不响了。\n我该怎么办?|在哪里可以找到上个月的发票?",
}
SIGNATURES = {
    "en": "Best regards,\nAnna Lee|--\nAnna Lee\nLarkspur Mobility\n+44 20 7946 0958"
    "|Thanks!\nTom|Sent from my iPhone",
    "de": "Mit freundlichen Grüßen\nAnna Lehmann|Viele Grüße\nTom"
    "|--\nAnna Lehmann\nLarkspur GmbH\nTel. 030 901820",
    "fr": "Cordialement,\nAnne Leroy|Bien à vous,\nAnne|Envoyé de mon iPhone",
    "es": "Un saludo,\nAna López|Saludos cordiales,\nAna|Enviado desde mi iPhone",
    "it": "Cordiali saluti,\nAnna Rossi|Grazie,\nAnna|Inviato da iPhone",
    "nl": "Met vriendelijke groet,\nAnna de Vries|Groeten,\nAnna|Verstuurd vanaf mijn iPhone",
    "pt": "Atenciosamente,\nAna Silva|Obrigado,\nAna|Enviado do meu iPhone",
    "pl": "Z poważaniem,\nAnna Nowak|Pozdrawiam,\nAnna|Wysłane z iPhone'a",
    "sv": "Med vänliga hälsningar\nAnna Berg|Mvh\nAnna|Skickat från min iPhone",
    "ja": "よろしくお願いいたします。\n山田花子|--\n山田花子\n株式会社ラークスパー\nTEL: 03-1234-5678",
    "zh": "此致\n敬礼\n王芳|谢谢!\n王芳|发自我的iPhone",
}
WROTE = {
    "en": "On Mon, Jan 5, 2026 at 10:02 AM Help Desk <help@larkspur.example> wrote:"
    "|On 5 Jan 2026, at 10:02, Help Desk <help@larkspur.example> wrote:"
    "|On Mon, 5 Jan 2026 at 10:02, The Help Desk of Larkspur Mobility\n"
    "<help-desk-north@larkspur.example> wrote:"
    "|On 05/01/2026 10:02, Help Desk wrote:",
    "de": "Am Mo., 5. Jan. 2026 um 10:02 Uhr schrieb Help Desk <help@larkspur.example>:"
    "|Am 05.01.26 um 10:02 schrieb Help Desk:"
    "|Am 05.01.2026 um 10:02 schrieb Help Desk <help@larkspur.example>:",
    "fr": "Le lun. 5 janv. 2026 à 10:02, Help Desk <help@larkspur.example> a écrit :"
    "|Le 05/01/2026 à 10:02, Help Desk a écrit :",
    "es": "El lun, 5 ene 2026 a las 10:02, Help Desk (<help@larkspur.example>) escribió:"
    "|El 5/1/26 a las 10:02, Help Desk escribió:",
    "it": "Il giorno lun 5 gen 2026 alle ore 10:02 Help Desk <help@larkspur.example> ha scritto:",
    "nl": "Op ma 5 jan 2026 om 10:02 schreef Help Desk <help@larkspur.example>:"
    "|Op 5 jan. 2026 om 10:02 heeft Help Desk <help@larkspur.example> het volgende geschreven:",
    "pt": "Em seg., 5 de jan. de 2026 às 10:02, Help Desk <help@larkspur.example> escreveu:",
    "pl": "pon., 5 sty 2026 o 10:02 Help Desk <help@larkspur.example> napisał(a):"
    "|W dniu 5.01.2026 o 10:02, Help Desk pisze:",
    "sv": "Den mån 5 jan. 2026 kl 10:02 skrev Help Desk <help@larkspur.example>:",
    "ja": "2026年1月5日(月) 10:02 Help Desk <help@larkspur.example>:",
    "zh": "Help Desk <help@larkspur.example> 于2026年1月5日周一 10:02写道:",
}
HEADS = {
    "en": "From: {n}\nSent: Monday, January 5, 2026 10:02 AM\n"
    "To: Anna Lee <anna@mail.example>\nSubject: RE: {s}"
    "|*From:* {n}\n*Sent:* Monday, January 5, 2026 10:02\n*To:* Anna Lee\n*Cc:* Tom\n*Subject:* {s}"
    "|From: {n}\nDate: Monday, 5 January 2026 at 10:02\nTo: Anna Lee\nSubject: Re: {s}",
    "de": "Von: {n}\nGesendet: Montag, 5. Januar 2026 10:02\nAn: Anna Lehmann\nBetreff: AW: {s}",
    "fr": "De : {n}\nEnvoyé : lundi 5 janvier 2026 10:02\nÀ : Anne Leroy\nObjet : RE: {s}",
    "es": "De: {n}\nEnviado el: lunes, 5 de enero de 2026 10:02\nPara: Ana López\nAsunto: RE: {s}",
    "it": "Da: {n}\nInviato: lunedì 5 gennaio 2026 10:02\nA: Anna Rossi\nOggetto: R: {s}",
    "nl": "Van: {n}\nVerzonden: maandag 5 januari 2026 10:02\nAan: Anna de Vries\nOnderwerp: RE: {s}",
    "pt": "De: {n}\nEnviado: segunda-feira, 5 de janeiro de 2026 10:02\nPara: Ana Silva\nAssunto: RE: {s}",
    "pl": "Od: {n}\nWysłano: poniedziałek, 5 stycznia 2026 10:02\nDo: Anna Nowak\nTemat: Odp: {s}",
    "sv": "Från: {n}\nSkickat: den 5 januari 2026 10:02\nTill: Anna Berg\nÄmne: Sv: {s}",
    "ja": "差出人: {n}\n送信日時: 2026年1月5日 10:02\n宛先: 山田花子\n件名: RE: {s}",
    "zh": "发件人: {n}\n发送时间: 2026年1月5日 10:02\n收件人: 王芳\n主题: 回复: {s}",
}
NOTICE = (
    "CONFIDENTIALITY NOTICE: This e-mail is confidential and intended only for the intended recipient. If "
    "you are not the intended recipient, please notify the sender and delete it."
)
DESK = "Help Desk <help@larkspur.example>"


@dataclass(frozen=True)
class Mail:
    shape: str
    language: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Texts:
    """The texts that a mail is composed of."""

    draw: random.Random
    language: str
    question: str
    answer: str
    subject: str

    def choose(self, named: dict[str, str]) -> str:
        return self.draw.choice(named[self.language].split("|"))

    @property
    def head(self) -> str:
        return self.choose(HEADS).format(n=DESK, s=self.subject)

    @property
    def quoted(self) -> str:
        return "\n".join(f"> {line}".rstrip() for line in self.answer.split("\n"))


def own(text: str) -> list[Line]:
    return [(line, OWN) for line in text.split("\n")]


def frame(text: str) -> list[Line]:
    return [(line, FRAME) for line in text.split("\n")]


GAP: list[Line] = [("", FRAME)]
Shape = Callable[[Texts], list[Line]]
SHAPES: dict[str, Shape] = {
    "plain": lambda t: own(t.question),
    "signed": lambda t: [*own(t.question), *GAP, *frame(t.choose(SIGNATURES))],
    "reply_above": lambda t: [*own(t.question), *GAP, *frame(f"{t.choose(WROTE)}\n{t.quoted}")],
    "reply_above_signed": lambda t: [
        *own(t.question), *GAP, *frame(f"{t.choose(SIGNATURES)}\n\n{t.choose(WROTE)}\n\n{t.quoted}"),
    ],
    "reply_above_unmarked": lambda t: [*own(t.question), *GAP, *frame(f"{t.choose(WROTE)}\n\n{t.answer}")],
    "reply_below": lambda t: [*frame(f"{t.choose(WROTE)}\n{t.quoted}"), *GAP, *own(t.question)],
    "reply_below_signed": lambda t: [
        *frame(f"{t.choose(WROTE)}\n{t.quoted}"), *GAP, *own(t.question), *GAP, *frame(t.choose(SIGNATURES)),
    ],
    "outlook": lambda t: [*own(t.question), *GAP, *frame(f"{t.head}\n\n{t.answer}")],
    "outlook_signed": lambda t: [
        *own(t.question), *GAP, *frame(f"{t.choose(SIGNATURES)}\n\n{'_' * 32}\n{t.head}\n\n{t.answer}"),
    ],
    "outlook_original": lambda t: [
        *own(t.question), *GAP, *frame(f"-----Original Message-----\n{t.head}\n\n{t.answer}"),
    ],
    "outlook_twice": lambda t: [
        *own(t.question), *GAP, *frame(f"{t.head}\n\n{t.answer}\n\n{t.head}\n\nDoes it ring?"),
    ],
    "help_desk_line": lambda t: [
        *own(t.question), *GAP, *frame(f"##- Please type your reply above this line -##\n\n{t.answer}"),
    ],
    "notice": lambda t: [*own(t.question), *GAP, *frame(NOTICE)],
    "html_reply": lambda t: [*own(t.question), *GAP, *frame(f"{t.choose(WROTE)}\n\n{t.quoted}\n>")],
    "trap_forwarded": lambda t: own(
        f"Can you help?\n\n---------- Forwarded message ---------\n{t.head}\n\n{t.question}"
    ),
    "trap_forwarded_bare": lambda t: own(f"FYI\n\n{t.head}\n\n{t.question}"),
    "trap_below_original": lambda t: own(
        f"Hi, my answers are below.\n\n-----Original Message-----\n{t.head}\n\n{t.answer}\n{t.question}"
    ),
    "trap_between_quotes": lambda t: [
        *frame(t.choose(WROTE)), *own(f"> Did you oil it?\nYes, twice.\n> Which bell is it?\n{t.question}"),
    ],
    "trap_log": lambda t: own(
        f"The mail server logs this:\nFrom: a@b.example\nTo: c@d.example\nSubject: x\nrelay denied\n"
        f"{t.question}"
    ),
    "trap_shell": lambda t: own(
        f"When I run\n> pip install foo\n> error: no module named foo\nit stops.\n{t.question}"
    ),
    "trap_shell_last": lambda t: own(f"{t.question}\nMy console shows\n\n> npm ci\n> npm ERR! code 1"),
    "trap_wrote": lambda t: own(f"On 3 May the technician wrote:\nreplace the spring.\n\n{t.question}"),
    "trap_wrote_later": lambda t: own(
        f"I called.\n\nOn Monday your colleague wrote:\noil it\n\n{t.question}"
    ),
    "trap_listing": lambda t: own(f"Two things:\n- the bell\n- the light\n\n{t.question}"),
    "trap_ps": lambda t: [*own(t.question), *own("Thanks\nPS: the order is 4711, can you cancel it?")],
    "trap_thanks": lambda t: own(f"Thanks\n\n{t.question}"),
    "trap_dashes": lambda t: own(f"The manual says\n--\npress twice\n--\n{t.question}"),
    "trap_quote_only_question": lambda t: own(f"> {t.subject}\n\n{t.question}"),
}  # fmt: skip


def mails(count: int = MAILS) -> Iterator[Mail]:
    """Yield mails of every shape in turn, in English and in the other languages by turns."""
    draw = random.Random(SEED)
    questions, answers = list(_questions()), list(_answers())
    names = list(SHAPES)
    for number in range(count):
        language = "en" if number // len(names) % 2 else draw.choice(list(QUESTIONS))
        question = draw.choice(questions) if language == "en" else draw.choice(QUESTIONS[language].split("|"))
        texts = Texts(draw, language, question, draw.choice(answers), draw.choice(("Bell", "Invoice 4711")))
        shape = names[number % len(names)]
        yield Mail(shape, language, tuple(SHAPES[shape](texts)))


def _questions() -> Iterator[str]:
    with (DATA / "it_tickets_synthetic/train-00000-of-00001.csv").open(encoding="utf-8") as file:
        yield from (normalize_text(row["description"]) for row in csv.DictReader(file))
    with (DATA / "dolly_hh_1k/dolly_hhrlhf_train_small.jsonl").open(encoding="utf-8") as file:
        for line in file:
            asked = re.search(r"### Instruction:\n(.*?)(?=\n\n###|$)", json.loads(line)["prompt"], re.DOTALL)
            if asked and 15 < len(asked[1]) < 600:
                yield normalize_text(asked[1])


def _answers() -> Iterator[str]:
    with (DATA / "dolly_hh_1k/dolly_hhrlhf_train_small.jsonl").open(encoding="utf-8") as file:
        for line in file:
            if 40 < len(text := normalize_text(json.loads(line)["response"])) < 600:
                yield text


def judge(clean: Callable[[str], str], labelled: list[Mail]) -> dict[str, Any]:
    """Return how ``clean`` does on the ``labelled`` mails."""
    cut, lost, total = Counter[str](), Counter[str](), Counter[str]()
    started = time.process_time()
    for mail in labelled:
        left = Counter(line.strip() for line in clean("\n".join(text for text, _ in mail.lines)).split("\n"))
        before = Counter(cut)
        for text, label in sorted(mail.lines, key=lambda line: line[1] == FRAME):  # own lines match first
            if not text.strip():
                continue
            total[label] += 1
            if left[text.strip()]:
                left[text.strip()] -= 1
            else:
                cut[label] += 1
        if cut[OWN] > before[OWN]:
            lost[f"{mail.shape} {mail.language}"] += 1
    return {
        "precision": round(cut[FRAME] / max(1, cut.total()), 4),
        "recall": round(cut[FRAME] / total[FRAME], 4),
        "lost": lost.total(),
        "lost_shapes": dict(lost.most_common(12)),
        "mails_per_cpu_second": round(len(labelled) / (time.process_time() - started)),
    }


def main() -> None:
    require_data("it_tickets_synthetic", "dolly_hh_1k")
    labelled = list(mails())
    cuts = _cuts(CleaningSpec(greetings=False), question=True)
    contenders = {"tunewheel": judge(lambda text: _without(text, cuts, []), labelled)}
    contenders |= {name: judge(clean, labelled) for name, clean in _libraries()}
    ours = contenders["tunewheel"]
    write_report(
        "mail", packages=(), contenders=contenders, mails=len(labelled), shapes=len(SHAPES),
        ratios={name: ours[name] for name in ("precision", "recall", "lost")},
    )  # fmt: skip


def _libraries() -> Iterator[tuple[str, Callable[[str], str]]]:
    """Yield the libraries for replies that are installed; none is a dependency."""
    try:
        from mailparser_reply import EmailReplyParser
    except ImportError:
        print("mail-parser-reply is not installed", file=sys.stderr)
    else:
        parser = EmailReplyParser(
            languages=["en", "de", "fr", "es", "it", "nl", "pl", "sv", "ja", "zh", "pt"]
        )
        yield "mail-parser-reply", lambda text: parser.read(text).replies[0].body
    try:
        import quotequail
    except ImportError:
        print("quotequail is not installed", file=sys.stderr)
    else:
        yield "quotequail", lambda text: "\n".join(part for shown, part in quotequail.quote(text) if shown)


if __name__ == "__main__":
    main()
