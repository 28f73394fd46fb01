"""Samples, their ids and their texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.samples import (
    AnySample,
    PreferencePair,
    Sample,
    Stage,
    Turn,
    contents,
    contents_text,
    frame_of,
    pool_schema,
    sample_columns,
    sample_id,
    serialise,
    serialised_text,
)

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
turns = st.lists(st.builds(Turn, st.sampled_from(["user", "assistant", "tool"]), text, text)).map(
    tuple
)
samples = st.builds(Sample, turns.filter(len)) | st.builds(
    PreferencePair, turns.filter(len), turns.filter(len), turns.filter(len)
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
    row = table.select(serialised_text(stage).alias("a"), contents_text(stage).alias("b")).row(0)
    assert row == (serialise(sample), contents(sample))


def test_sample_id_ignores_outer_space_line_ends_and_unicode_form() -> None:
    """Only the normalised turns count."""
    one = Sample((Turn("user", "caf\u00e9\r\nx "), Turn("assistant", "y")))
    two = Sample((Turn("user", " cafe\u0301\nx"), Turn("assistant", "y\n")))
    assert sample_id(one) == sample_id(two)
    assert len(sample_id(one)) == 32


@pytest.mark.parametrize(
    "other",
    [
        Sample((Turn("user", "a"), Turn("assistant", "B"))),
        Sample((Turn("user", "a b"), Turn("assistant", ""))),
        Sample((Turn("system", "a"), Turn("assistant", "b"))),
        Sample((Turn("user", "a"), Turn("assistant", "b", "[]"))),
        Sample((Turn("user", "a"),)),
    ],
)
def test_sample_id_tells_different_turns_apart(other: Sample) -> None:
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
