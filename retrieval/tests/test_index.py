"""Building, opening and searching: real vectors, real files, no store."""

from __future__ import annotations

import dataclasses
import io
import itertools
import random
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_embedding.errors import EmbeddingRefused
from tunewheel_embedding.static import StaticEmbedder, Vectors
from tunewheel_retrieval.building import Document, build
from tunewheel_retrieval.files import config_sha256_of, index_id_of, without
from tunewheel_retrieval.index import BrokenIndex, Index

from .conftest import Counting, Make, document, same, stored

BELL = document("sops/bell.md", "The bell rings when the door opens.\n\nReset it by pressing twice.")
LOCKER = document("sops/locker.md", "A locker that jams is opened with the master key.", heading="Lockers")
TAX = document("sops/tax.md", "Inheritance tax is declared by post.", heading="Tax")


def test_a_question_finds_its_passage_by_words_and_by_vectors(make: Make, embedder: Counting) -> None:
    index = make(BELL, LOCKER, TAX)
    question = "my locker will not open"
    hits = index.search(question, embedder.units([question])[0], 2)
    assert hits[0].passage.document_id == "sops/locker.md"
    assert hits[0].passage.heading == "Lockers"
    assert hits[0].ranks == (1, 1)
    assert hits[0].score > hits[1].score
    by_words = index.search(question, None, 4)
    assert [hit.passage.document_id for hit in by_words] == ["sops/locker.md"]
    assert {hit.similarity for hit in by_words} == {None}
    assert index.search("zzz", None, 4) == ()
    assert index.search("zzz", np.zeros(384), 4) == ()


def test_a_similarity_says_how_well_a_passage_fits_whatever_its_place(make: Make, embedder: Counting) -> None:
    index = make(BELL, LOCKER, TAX)
    asked = ("my locker will not open", "who feeds the horses")
    (fits, *_), (hardly, *_) = (index.search(text, embedder.units([text])[0], 3) for text in asked)
    assert fits.similarity is not None
    assert hardly.similarity is not None
    assert fits.similarity > hardly.similarity + 0.2
    assert fits.score == pytest.approx(hardly.score, abs=0.02)


def test_order_does_not_matter_and_content_names_the_version(make: Make) -> None:
    one, other = make(BELL, LOCKER, TAX), make(TAX, BELL, LOCKER)
    assert same(one, other)
    changed = dataclasses.replace(LOCKER, record_id="rec-other")
    assert make(BELL, changed, TAX).manifest.index_id != one.manifest.index_id
    assert index_id_of("1" * 64, {"a": "b"}) != index_id_of("0" * 64, {"a": "b"})
    records = {document.document_id: document.record_id for document in (TAX, LOCKER, BELL)}
    assert index_id_of("0" * 64, records) == one.manifest.index_id


def test_a_change_embeds_what_changed_and_gives_what_a_build_from_nothing_gives(
    make: Make, embedder: Counting
) -> None:
    first = make(BELL, LOCKER, TAX)
    embedder.texts.clear()
    longer = document("sops/bell.md", "The bell rings when the door opens.\n\nReset it by pressing thrice.")
    kept = [dataclasses.replace(one, sections=None) for one in (LOCKER, TAX)]
    second = make(longer, *kept, previous=first)
    assert [text for text in embedder.texts if "thrice" not in text] == []
    assert same(second, make(longer, LOCKER, TAX))
    embedder.texts.clear()
    third = make(dataclasses.replace(LOCKER, sections=None), previous=second)
    assert embedder.texts == []
    assert same(third, make(LOCKER))


def test_a_passage_keeps_its_name_over_versions_of_its_document(make: Make) -> None:
    again = dataclasses.replace(BELL, record_id="rec-2")
    names = [[row.passage_id for row in make(one).rows] for one in (BELL, again)]
    assert names[0] == names[1]
    twice = make(document("a.md", "\n\n".join(["Same words. " * 9] * 3)))
    assert len({row.passage_id for row in twice.rows}) == len(twice.rows) > 1


def test_what_has_no_passage_is_told(make: Make) -> None:
    empty = Document("empty.md", "rec-1", "Nothing", [])
    secret = Document("secret.md", "rec-2", "Secret", [], left_out="pii")
    long = document("z.md", "\n\n".join(f"Paragraph {n} of a long document, with words." for n in range(40)))
    index = make(empty, secret, BELL, long, max_passages=10)
    assert index.manifest.counts.left_out == {"empty": 1, "pii": 1, "too_many_passages": 1}
    assert index.manifest.counts.documents == 1
    again = [dataclasses.replace(one, sections=None) for one in (empty, secret, BELL, long)]
    assert same(make(*again, previous=index, max_passages=10), index)


def test_without_a_document_an_index_is_what_a_build_of_the_others_makes(
    make: Make, embedder: Counting
) -> None:
    empty = Document("empty.md", "rec-1", "Nothing", [])
    whole = make(BELL, empty, LOCKER, TAX)
    embedder.texts.clear()
    rest = Index.open(*stored(without(whole, {"sops/locker.md", "unknown.md"})))
    assert embedder.texts == []
    assert same(rest, make(BELL, empty, TAX))
    assert same(Index.open(*stored(without(whole, ()))), whole)
    nothing = without(whole, {"sops/bell.md", "empty.md", "sops/locker.md", "sops/tax.md"})
    assert same(Index.open(*stored(nothing)), make())


def test_an_index_with_a_floor_is_the_same_however_it_is_made(make: Make, embedder: Counting) -> None:
    whole = make(BELL, LOCKER, TAX, floor="calibrated")
    embedder.texts.clear()
    rest = Index.open(*stored(without(whole, {"sops/locker.md"})))
    assert embedder.texts == []
    assert rest.manifest.floors is not None
    assert same(rest, make(BELL, TAX, floor="calibrated"))
    grown = make(BELL, LOCKER, TAX, floor="calibrated", previous=rest)
    assert same(grown, whole)
    assert make(BELL, LOCKER, TAX).manifest.floors is None


class Choosy(Counting):
    """Refuses what holds one of its words, and with it whatever is asked for together."""

    refuses: tuple[str, ...] = ()

    def units(self, texts: Sequence[str]) -> Vectors:
        if any(word in text for word in self.refuses for text in texts):
            raise EmbeddingRefused("too long", may_be_one_text=True)
        return super().units(texts)


def test_a_document_of_which_a_passage_is_refused_is_left_out_whole(static: StaticEmbedder) -> None:
    embedder, spec = Choosy(static), RetrievalSpec(passage_tokens=32)
    long = document(
        "long.md", "\n\n".join(f"Paragraph {n} of a long document, with words." for n in range(9))
    )
    documents = [BELL, long, LOCKER, TAX]

    def made(some: Sequence[Document], previous: Index | None = None) -> Index:
        files = build(some, embedder, spec, previous, project="shop", config_sha256="0" * 64)
        return Index.open(*stored(files))

    embedder.refuses = ("Paragraph 4", "Inheritance")
    index = made(documents)
    assert {row.document_id for row in index.rows} == {"sops/bell.md", "sops/locker.md"}
    assert index.manifest.counts.left_out == {"refused_by_embedder": 2}
    records = {one.document_id: one.record_id for one in documents}
    assert index.manifest.index_id == index_id_of("0" * 64, records, ["long.md", "sops/tax.md"])
    assert index.manifest.index_id != index_id_of("0" * 64, records), "that has their passages"
    embedder.texts.clear()
    assert same(made([dataclasses.replace(one, sections=None) for one in documents], index), index)
    assert embedder.texts == []
    embedder.refuses = ("",)
    with pytest.raises(EmbeddingRefused):
        made(documents)


def test_an_index_of_nothing_can_be_opened_and_finds_nothing(make: Make) -> None:
    index = make()
    assert index.search("anything", np.ones(384), 3) == ()
    assert make(BELL, previous=index).manifest.counts.passages == 1


def test_a_document_that_nobody_knows_any_more_cannot_be_taken_over(make: Make) -> None:
    gone = dataclasses.replace(BELL, sections=None)
    for previous in (None, make(dataclasses.replace(BELL, record_id="rec-2"))):
        with pytest.raises(ValueError, match="has no sections"):
            make(gone, previous=previous)


def test_other_scripts_and_hundreds_of_passages(make: Make) -> None:
    japanese = document("ja.md", "自転車のベルが鳴らないときは、二回押してください。")
    many = document("many.md", "\n\n".join(f"Part {n} costs {n} crowns, sold in pairs." for n in range(500)))
    index = make(japanese, many)
    assert index.manifest.counts.passages > 200
    (best, *_) = index.search("自転車のベル", None, 1)
    assert best.passage.document_id == "ja.md"


@pytest.mark.parametrize("field", ["passages", "vectors", "lexical", "documents"])
def test_a_file_that_is_gone_or_other_breaks_the_version_by_name(embedder: Counting, field: str) -> None:
    files = build([BELL], embedder, RetrievalSpec(), project="shop", config_sha256="0" * 64)
    manifest, by_path = stored(files)
    ref = getattr(manifest, field)
    ref = ref[0] if isinstance(ref, tuple) else ref
    for data in (None, b"other", by_path[ref.path][:-1]):
        with pytest.raises(BrokenIndex) as broken:
            Index.open(manifest, lambda asked, data=data: data if asked == ref else by_path[asked.path])
        assert broken.value.field == field
    claimed = ArtifactRef(path=ref.path, sha256=content_sha256(b"other"), size_bytes=5)
    update = {field: (claimed,) if field == "lexical" else claimed}
    with pytest.raises(BrokenIndex, match="is no"):
        Index.open(manifest.model_copy(update=update), by_path | {ref.path: b"other"})


def test_files_of_two_versions_do_not_fit_together(embedder: Counting) -> None:
    made = [
        stored(build(some, embedder, RetrievalSpec(), project="shop", config_sha256="0" * 64))
        for some in ([BELL], [BELL, TAX])
    ]
    (one, files), (other, more) = made
    for field in ("vectors", "lexical"):
        mixed = one.model_copy(update={field: getattr(other, field)})
        with pytest.raises(BrokenIndex, match=field):
            Index.open(mixed, files | more)
    with pytest.raises(BrokenIndex, match="vectors"):
        Index.open(one.model_copy(update={"dimensions": 5}), files)


def test_the_configuration_is_what_decides_the_content() -> None:
    spec, pii = RetrievalSpec(), PiiPolicy()
    told = config_sha256_of(spec, pii, "static-1")
    assert told == config_sha256_of(RetrievalSpec(top_k=9), pii, "static-1", secret="a key that keys nothing")
    others = [
        config_sha256_of(RetrievalSpec(passage_tokens=99), pii, "static-1"),
        config_sha256_of(spec, PiiPolicy(action="keep"), "static-1"),
        config_sha256_of(spec, pii, "static-2"),
        config_sha256_of(spec, PiiPolicy(action="pseudonymise"), "static-1", secret="one"),
        config_sha256_of(spec, PiiPolicy(action="pseudonymise"), "static-1", secret="two"),
    ]
    assert len({told, *others}) == 6


def test_no_question_finds_a_passage_that_is_for_other_groups(make: Make, embedder: Counting) -> None:
    rng = random.Random(7)
    words = [
        "bell",
        "door",
        "locker",
        "tax",
        "post",
        "key",
        "press",
        "open",
        "gym",
        "desk",
        "badge",
        "refund",
    ]
    teams = ("legal", "sales", "board", "hr")
    texts = [" ".join(rng.choices(words, k=12)) for _ in range(60)]
    allowed: list[tuple[str, ...] | None] = [
        rng.choice([None, (), *itertools.combinations(teams, 2)]) for _ in texts
    ]
    index = make(
        *(
            dataclasses.replace(document(f"{at}.md", text), allowed_groups=groups)
            for at, (text, groups) in enumerate(zip(texts, allowed, strict=True))
        ),
        floor="calibrated",
    )
    for _ in range(300):
        question, own = " ".join(rng.choices(words, k=3)), frozenset(rng.sample(teams, rng.randrange(3)))
        vector = rng.choice([None, embedder.units([question])[0]])
        hits = index.search(question, vector, 8, own)
        may = {f"{at}.md" for at, groups in enumerate(allowed) if groups is None or own & {*groups}}
        assert {hit.passage.document_id for hit in hits} <= may
        everything = index.search(question, vector, 60, teams)
        expected = [hit.passage for hit in everything if hit.passage.document_id in may]
        assert len(hits) == min(8, len(expected))


def test_groups_are_taken_over_by_later_versions_and_old_versions_have_none(make: Make) -> None:
    secret = dataclasses.replace(LOCKER, allowed_groups=("legal",))
    nobody = dataclasses.replace(TAX, allowed_groups=())
    index = make(BELL, secret, nobody)
    assert index.groups == {"sops/locker.md": ("legal",), "sops/tax.md": ()}
    again = [dataclasses.replace(one, sections=None) for one in (BELL, secret, nobody)]
    assert same(make(*again, previous=index), index)
    assert Index.open(*stored(without(index, {"sops/bell.md"}))).groups == index.groups
    assert len(index.manifest.lexical) == 2, "an earlier release, which knows no groups, refuses it"
    public = make(BELL, LOCKER, TAX)
    assert public.groups == {}
    assert len(public.manifest.lexical) == 1
    (table,) = (data for path, data in stored(without(public, ()))[1].items() if "documents" in path)
    assert "allowed_groups" not in pl.read_parquet(io.BytesIO(table)).columns  # as earlier releases wrote it
