"""Samples, their ids and their texts."""

import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.samples import (
    AnySample,
    PreferencePair,
    RatedAnswer,
    Sample,
    Stage,
    Turn,
    contents,
    contents_text,
    frame_of,
    normalise_text,
    pool_schema,
    sample_columns,
    sample_id,
    sample_of,
    serialise,
    serialised_texts,
    with_all_columns,
)

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
roles = st.sampled_from(["user", "assistant", "tool"])
turns = st.lists(st.builds(Turn, roles, text, text, text, text, st.booleans()), min_size=1).map(
    tuple
)
samples = (
    st.builds(Sample, turns, text, text)
    | st.builds(PreferencePair, turns, turns, turns, tools=text, media=text)
    | st.builds(RatedAnswer, turns, turns, st.booleans(), text, text)
)
SAMPLE = Sample((Turn("system", "Be brief."), Turn("user", "Hi\n"), Turn("assistant", "Ho")))
PAIR = PreferencePair(
    (Turn("user", "q"),), (Turn("assistant", "good"),), (Turn("assistant", "bad"),), 5.0, 1.0
)


def _row(sample: AnySample) -> dict[str, object]:
    provenance = dict.fromkeys(("batch", "source", "source_file", "format", "raw"), "x")
    return {"sample_id": sample_id(sample), "source_row": 1, **provenance, **sample_columns(sample)}


def test_serialisation_is_one_role_and_content_line_per_turn() -> None:
    """No ids or metadata; a pair gives prompt, chosen and rejected once each."""
    assert serialise(SAMPLE) == "system: Be brief.\nuser: Hi\n\nassistant: Ho\n"
    assert serialise(PAIR) == "user: q\nassistant: good\nassistant: bad\n"
    assert contents(PAIR) == "q\ngood\nbad"


@given(samples)
def test_table_expressions_equal_the_functions(sample: AnySample) -> None:
    """The Polars expressions give the same texts as the functions on one sample."""
    stage: Stage = "sft" if isinstance(sample, Sample) else "preference"
    table = frame_of(stage, [_row(sample)])
    assert serialised_texts(table, stage).to_list() == [serialise(sample)]
    assert table.select(contents_text(stage)).item() == contents(sample)


@given(samples)
def test_a_row_holds_its_whole_sample(sample: AnySample) -> None:
    """What is read from a pool table is what was written, so it has the same id."""
    stage: Stage = "sft" if isinstance(sample, Sample) else "preference"
    (row,) = frame_of(stage, [_row(sample)]).to_dicts()
    assert sample_of(row, stage) == sample


def test_tables_of_older_releases_are_read() -> None:
    """Of turns that had three fields, and no tools, the text is the same and the rest empty."""
    table = frame_of("sft", [_row(SAMPLE)])
    fields = (pl.element().struct.field(name) for name in ("role", "content", "tool_calls"))
    old = table.drop("tools", "media").with_columns(
        pl.col("turns").list.eval(pl.struct(*fields)), rank=pl.lit(1)
    )
    assert serialised_texts(old, "sft").to_list() == [serialise(SAMPLE)]
    new = with_all_columns(old.lazy(), "sft").collect()
    assert new.drop("rank").equals(table)
    assert new["rank"].to_list() == [1]


def test_all_that_is_said_is_in_the_text() -> None:
    """Reasoning, names, calls and tools have a place; media and weights have none."""
    said = (Turn("user", "u", name="Ann"), Turn("assistant", "a", "[f]", "r", loss=False))
    sample = Sample(said, tools='["f"]', media="m")
    assert serialise(sample) == 'tools: ["f"]\nuser Ann: u\nassistant: <think>r</think>\na[f]\n'
    answer = RatedAnswer((Turn("user", "u"),), (Turn("assistant", "a"),), desirable=False)
    assert serialise(answer) == "user: u\nassistant: a\n"


def test_sample_id_ignores_outer_space_line_ends_and_unicode_form() -> None:
    """Only the normalised turns count."""
    one = Sample((Turn("user", "caf\u00e9\r\nx "), Turn("assistant", "y")))
    two = Sample((Turn("user", " cafe\u0301\nx"), Turn("assistant", "y\n")))
    assert sample_id(one) == sample_id(two)
    assert len(sample_id(one)) == 32


@given(
    st.text("a\u00e9\u0301\u0323\u0344\u0f73\u0f71\u05b0\u3099\u304b", min_size=60, max_size=200)
)
def test_many_combining_marks_have_the_form_that_unicode_gives_them(text: str) -> None:
    """Long runs of them are put in order before, and the result is the same."""
    assert normalise_text(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    "other",
    [
        Sample((Turn("user", "a"), Turn("assistant", "B"))),
        Sample((Turn("user", "a b"), Turn("assistant", ""))),
        Sample((Turn("system", "a"), Turn("assistant", "b"))),
        Sample((Turn("user", "a"), Turn("assistant", "b", "[]"))),
        Sample((Turn("user", "a"), Turn("assistant", "b", reasoning="r"))),
        Sample((Turn("user", "a", name="n"), Turn("assistant", "b"))),
        Sample((Turn("user", "a"), Turn("assistant", "b", loss=False))),
        Sample((Turn("user", "a"), Turn("assistant", "b")), tools="[]"),
        Sample((Turn("user", "a"), Turn("assistant", "b")), media="[]"),
        RatedAnswer((Turn("user", "a"),), (Turn("assistant", "b"),), desirable=True),
        RatedAnswer((Turn("user", "a"),), (Turn("assistant", "b"),), desirable=False),
        Sample((Turn("user", "a"),)),
    ],
)
def test_sample_id_tells_different_turns_apart(other: AnySample) -> None:
    """Role, content, tool calls and the borders between turns all count."""
    assert sample_id(other) != sample_id(Sample((Turn("user", "a"), Turn("assistant", "b"))))


def test_sample_ids_are_the_same_on_every_machine() -> None:
    """The hash is fixed: stored ids stay valid."""
    assert sample_id(SAMPLE) == "b3c796020d6124b639c4f9dd2dfc66bc"
    assert sample_id(PAIR) == "1dbf5cea65551aef4c8c21d454cd6e7e"


def test_empty_tables_have_the_stage_schema() -> None:
    """A pool table without rows has all columns."""
    assert frame_of("sft", []).schema == pool_schema("sft")
    assert frame_of("preference", [_row(PAIR)])["chosen_score"].to_list() == [5.0]
