from __future__ import annotations

from tunewheel_curate.cleaning.languages import keep_languages

ENGLISH = "The bell of my bicycle does not ring any more, and I would like to have a new one."
GERMAN = "Die Klingel an meinem Fahrrad läutet nicht mehr, ich hätte gern eine neue."
ARABIC = "جرس دراجتي لا يعمل منذ يوم الأحد وأود الحصول على جرس جديد من فضلكم"


def test_a_language_is_wanted_by_any_name_of_those_alike(records) -> None:
    norwegian = "Skriveren virker ikke etter oppdateringen i går, og jeg får en feilmelding hver gang."
    assert keep_languages(records({"input": norwegian}), ("nb",)).funnel.reasons == {}
    assert keep_languages(records({"input": norwegian}), ("en",)).funnel.reasons == {"language: no": 1}


def test_only_what_is_certainly_another_language_goes(records) -> None:
    frame = records({"input": ENGLISH}, {"input": GERMAN}, {"input": ARABIC}, {"input": "bell?"})
    stage = keep_languages(frame, ("en", "ar"))
    assert stage.funnel.reasons == {"language: de": 1}
    assert stage.kept["input"].to_list() == [ENGLISH, ARABIC, "bell?"]
    assert stage.counts == {"unsure": 1}
