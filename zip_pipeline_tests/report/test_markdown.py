"""Words of the data between our Markdown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.report.markdown import bullets, inert, markdown
from zip_pipeline_tests.report.rendered import code_of, loads_of

_SIGNS = [
    *"`|\\[]()<>!&*_~#:/\n\r\t ax-",
    *("![x](http://evil.test/p.png)", "[x](http://evil.test)", "<img src=//evil.test>", "[x]: //e"),
    *("http://evil.test", "WWW.evil.test", "me@evil.test", "&lt;", "\u202e", "\u2028", "\x1b]52;"),
]
_HOSTILE = st.lists(st.sampled_from(_SIGNS), max_size=12).map("".join)


@given(st.lists(_HOSTILE, min_size=1, max_size=3))
def test_words_of_the_data_are_words(texts: list[str]) -> None:
    """In a paragraph, in a list and in a table nothing is loaded, and no cell is lost."""
    together = ", ".join(map(inert, texts))
    assert loads_of(f"{together}: 3 of 4 rows") == []
    assert loads_of(bullets(texts)) == []
    table = markdown([(texts, [texts])])
    assert loads_of(table) == []
    assert [line.count("|") for line in table.splitlines()] == [len(texts) + 1] * 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("drop_1.jsonl", "drop_1.jsonl"),
        ("R 3.5 ± 0.2 (zstd), 20% of /data/raw", "R 3.5 ± 0.2 (zstd), 20% of /data/raw"),
        ("a*b*", "`a*b*`"),
        ("a\nb", r"`a\nb`"),
        ("\u202ea", r"`\u202ea`"),
        ("`", "`` ` ``"),
        ("", ""),
    ],
)
def test_words_read_as_they_are_where_they_can(text: str, shown: str) -> None:
    """Else they are code, whole."""
    assert inert(text) == shown


@given(st.text("`\\<[ a|", max_size=12).map(lambda text: f"`{text}"))
def test_code_holds_the_words_whole(text: str) -> None:
    """Whatever fences they have themselves."""
    assert code_of(f"a {inert(text)} b") == [text]
