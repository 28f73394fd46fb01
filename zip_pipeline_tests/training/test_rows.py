"""Training rows: labels, order, and what is cut or dropped."""

import json
from pathlib import Path

import pytest

from zip_pipeline.samples import PreferencePair, RatedAnswer, Sample, Turn
from zip_pipeline.training.base_model import tiny_tokenizer
from zip_pipeline.training.rows import (
    IGNORED,
    RowCounts,
    answer_rows,
    answer_weights,
    conversation_rows,
    num_targets,
    read_subset,
)
from zip_pipeline_tests.test_chat_tokens import CALL, RICH, SCHEMA, knowing
from zip_pipeline_tests.training.conftest import subset_of

SHORT = Sample((Turn("user", "1+1"), Turn("assistant", "2")))
LONG = Sample((Turn("user", "1+1"), Turn("assistant", "2222")))
LATE = Sample((Turn("user", "1+1+1+1+1+1"), Turn("assistant", "6")))


def test_labels_are_the_answer_and_nothing_else(tmp_path: Path) -> None:
    """A row's labels are its own tokens where the assistant speaks, and ignored elsewhere."""
    tokenizer = tiny_tokenizer()
    subset = read_subset(subset_of([SHORT], tmp_path / "s.parquet"), "sft")
    rows = conversation_rows(subset, "sft", tokenizer, 20)
    bos, user, end, assistant = tokenizer.convert_tokens_to_ids(
        ["<|bos|>", "<|user|>", "<|end|>", "<|assistant|>"]
    )
    one, plus, two = tokenizer.convert_tokens_to_ids(["1", "+", "2"])
    assert rows.input_ids == [[bos, user, one, plus, one, end, assistant, two, end]]
    assert rows.labels == [[IGNORED] * 7 + [two, end]]


def test_rows_cut_or_dropped_by_length_are_counted(tmp_path: Path) -> None:
    """At 9 tokens the long answer is cut, and the row whose prompt fills all is dropped."""
    subset = read_subset(subset_of([SHORT, LONG, LATE], tmp_path / "s.parquet"), "sft")
    rows = conversation_rows(subset, "sft", tiny_tokenizer(), 9)
    assert rows.counts == RowCounts(
        num_samples=3,
        num_rows=2,
        num_tokens=18,
        num_target_tokens=4,
        rows_truncated=1,
        rows_dropped=1,
    )
    with pytest.raises(ValueError, match="at 7 tokens none of the 3 samples"):
        conversation_rows(subset, "sft", tiny_tokenizer(), 7)


def test_the_order_of_picking_does_not_matter(tmp_path: Path) -> None:
    """Two files with the same samples in another order give the same rows."""
    first = read_subset(subset_of([SHORT, LONG, LATE], tmp_path / "a.parquet"), "sft")
    second = read_subset(subset_of([LATE, SHORT, LONG], tmp_path / "b.parquet"), "sft")
    assert first["sample_id"].to_list() == second["sample_id"].to_list()
    assert first["turns"].to_list() == second["turns"].to_list()


PAIR = PreferencePair(
    (Turn("user", "1+1"), Turn("assistant", "2"), Turn("user", "+1")),
    (Turn("assistant", "3"),),
    (Turn("assistant", "44"),),
)


def test_the_loss_of_a_pair_is_that_of_the_chosen_answer(tmp_path: Path) -> None:
    """An answer that stands in the prompt is context; only the chosen one is a target."""
    tokenizer = tiny_tokenizer()
    subset = read_subset(subset_of([PAIR], tmp_path / "p.parquet"), "preference")
    rows = conversation_rows(subset, "preference", tokenizer, 30)
    three, end = tokenizer.convert_tokens_to_ids(["3", "<|end|>"])
    assert rows.labels[0] == [IGNORED] * (len(rows.input_ids[0]) - 2) + [three, end]
    assert num_targets(rows.labels[0]) == 2


def test_each_pair_gives_a_desirable_and_an_undesirable_row(tmp_path: Path) -> None:
    """Rows name prompt, answer, label and length; the counts add up."""
    subset = read_subset(subset_of([PAIR], tmp_path / "p.parquet"), "preference")
    rows = answer_rows(subset, tiny_tokenizer(), 30)
    assert [(row.completion[0]["content"], row.desirable) for row in rows.rows] == [
        ("3", True),
        ("44", False),
    ]
    assert [row.prompt[-1] for row in rows.rows] == [{"role": "user", "content": "+1"}] * 2
    prompt = rows.rows[0].num_prompt_tokens
    assert [row.num_tokens for row in rows.rows] == [prompt + 2, prompt + 3]
    assert rows.counts.num_target_tokens == 5
    cut = answer_rows(subset, tiny_tokenizer(), prompt + 2).counts
    assert (cut.rows_truncated, cut.rows_dropped, cut.num_rows) == (1, 0, 2)
    with pytest.raises(ValueError, match="none of the 1 samples"):
        answer_rows(subset, tiny_tokenizer(), prompt)


def test_a_turn_without_loss_has_no_labels(tmp_path: Path) -> None:
    """Of three answers in a row, the middle one is context, label by label."""
    tokenizer = tiny_tokenizer()
    said = [Turn("assistant", "1"), Turn("assistant", "2", loss=False), Turn("assistant", "3")]
    path = subset_of([Sample((Turn("user", "+"), *said))], tmp_path / "s.parquet")
    rows = conversation_rows(read_subset(path, "sft"), "sft", tokenizer, 30)
    one, two, three, plus, bos, user, end, assistant = tokenizer.convert_tokens_to_ids(
        ["1", "2", "3", "+", "<|bos|>", "<|user|>", "<|end|>", "<|assistant|>"]
    )
    turns = [[assistant, one, end], [assistant, two, end], [assistant, three, end]]
    assert rows.input_ids == [[bos, user, plus, end, *turns[0], *turns[1], *turns[2]]]
    labels = [[IGNORED, one, end], [IGNORED] * 3, [IGNORED, three, end]]
    assert rows.labels == [[IGNORED] * 4 + labels[0] + labels[1] + labels[2]]


def test_what_no_template_shows_is_counted(tmp_path: Path) -> None:
    """Media never reach the model, names do where the template knows them or a user speaks."""
    answer = Turn("assistant", "2")
    samples = [
        Sample((Turn("user", "1"), answer), media='{"image": "a.png"}'),
        Sample((Turn("user", "1", name="ann"), answer)),
        Sample(
            (Turn("user", "1"), Turn("tool", "2", name="f"), Turn("tool", "", name="g"), answer)
        ),
        Sample((Turn("user", "1"), Turn("assistant", "2", name="bob")), media="[1]"),
    ]
    path = subset_of(samples, tmp_path / "s.parquet")
    counts = conversation_rows(read_subset(path, "sft"), "sft", tiny_tokenizer(), 30).counts
    assert (counts.media_not_shown, counts.names_not_shown) == (2, 2)
    assert counts.not_shown() == "media of 2 samples, names of 2 samples"
    counts = conversation_rows(read_subset(path, "sft"), "sft", knowing(), 30).counts
    assert counts.not_shown() == "media of 2 samples"
    rated = RatedAnswer((Turn("user", "1"),), (Turn("assistant", "2", name="bob"),), False)
    path = subset_of([rated, PAIR], tmp_path / "p.parquet")
    counts = answer_rows(read_subset(path, "preference"), tiny_tokenizer(), 30).counts
    assert counts.not_shown() == "names of 1 samples"


GOOD = RatedAnswer((Turn("user", "1+1"),), (Turn("assistant", "2"),), True)
BAD = RatedAnswer((Turn("user", "1+1"),), (Turn("assistant", "3"),), False)


def test_a_rated_answer_gives_one_row(tmp_path: Path) -> None:
    """Its label is its rating; pairs beside it give two rows as ever."""
    path = subset_of([GOOD, BAD, PAIR], tmp_path / "p.parquet")
    subset = read_subset(path, "preference")
    rows = answer_rows(subset, tiny_tokenizer(), 30)
    found = {(row.completion[0]["content"], row.desirable, len(row.prompt)) for row in rows.rows}
    assert found == {("2", True, 1), ("3", False, 1), ("3", True, 3), ("44", False, 3)}
    assert (rows.counts.num_samples, rows.counts.num_rows) == (3, 4)


def test_an_undesirable_answer_is_nothing_to_learn_to_write(tmp_path: Path) -> None:
    """It is dropped and counted; the desirable one has the labels of its answer."""
    tokenizer = tiny_tokenizer()
    subset = read_subset(subset_of([GOOD, BAD], tmp_path / "p.parquet"), "preference")
    rows = conversation_rows(subset, "preference", tokenizer, 30)
    two, end = tokenizer.convert_tokens_to_ids(["2", "<|end|>"])
    assert rows.labels == [[IGNORED] * 7 + [two, end]]
    assert (rows.counts.num_samples, rows.counts.rows_dropped) == (2, 1)


def test_what_begins_an_answer_without_loss_belongs_to_the_prompt(tmp_path: Path) -> None:
    """KTO's loss falls on all of an answer, so turns without loss go; one of nothing else goes."""
    call, rest = Turn("assistant", "add", loss=False), Turn("assistant", "2")
    pair = PreferencePair(PAIR.prompt, (call, rest), (call,))
    subset = read_subset(subset_of([pair], tmp_path / "p.parquet"), "preference")
    rows = answer_rows(subset, tiny_tokenizer(), 30)
    assert [[m["content"] for m in row.prompt] for row in rows.rows] == [["1+1", "2", "+1", "add"]]
    assert rows.rows[0].completion == [{"role": "assistant", "content": "2"}]
    assert (rows.counts.rows_dropped, rows.counts.num_target_tokens) == (1, 2)


def test_answers_bring_their_tools(tmp_path: Path) -> None:
    """For a template that knows them they are schemas, else text of the system turn."""
    tools = json.dumps([SCHEMA])
    rated = RatedAnswer(RICH[:3], RICH[1:2], True, tools=tools)
    subset = read_subset(subset_of([rated], tmp_path / "p.parquet"), "preference")
    (row,) = answer_rows(subset, knowing(), 200).rows
    assert json.loads(row.tools) == [SCHEMA]
    assert row.prompt[0] == {"role": "user", "content": "1+1", "name": "ann"}
    assert row.completion == [
        {
            "role": "assistant",
            "content": "well",
            "reasoning_content": "add them",
            "tool_calls": [CALL],
        }
    ]
    (row,) = answer_rows(subset, tiny_tokenizer(), 200).rows
    assert row.tools == ""
    assert row.prompt[0] == {"role": "system", "content": f"Tools: {tools}"}


@pytest.mark.parametrize(
    ("num_good", "num_bad", "weights"),
    [
        (3, 3, (1, 1)),
        (4, 3, (1, 1)),
        (12, 4, (1, 3)),
        (5, 3, (1, 5 / 3)),
        (3, 4, (4 / 3, 1)),
        (2, 10, (5, 1)),
        (2, 0, (1, 1)),
        (0, 2, (1, 1)),
    ],
)
def test_the_rarer_answers_weigh_more(
    num_good: int, num_bad: int, weights: tuple[float, float]
) -> None:
    """Weight times number is in the range of the paper: from equal to a third more."""
    found = answer_weights([True] * num_good + [False] * num_bad)
    assert (found.desirable, found.undesirable) == weights
    assert (found.num_desirable, found.num_undesirable) == (num_good, num_bad)
    if num_good and num_bad:
        ratio = num_good * found.desirable / (num_bad * found.undesirable)
        assert 1 - 1e-9 <= ratio <= 4 / 3


def test_an_unreadable_subset_is_refused(tmp_path: Path) -> None:
    """What is no Parquet file, or a damaged one, is named with what to give instead."""
    whole = subset_of([SHORT, LONG], tmp_path / "s.parquet").read_bytes()
    middle = len(whole) // 4
    damaged = whole[:middle] + b"\xff" * middle + whole[2 * middle :]
    path = tmp_path / "wrong"
    for content in (b"", b'[{"turns": []}]', whole[:-9], damaged):
        path.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            read_subset(path, "sft")
        assert str(caught.value).startswith(f"{path}: cannot be read as Parquet (")
        assert "). Give the subset.parquet of a version, or what select wrote" in str(caught.value)


def test_a_folder_name_is_no_pattern(tmp_path: Path) -> None:
    """Brackets in a path stand for themselves."""
    folder = tmp_path / "data[1]"
    folder.mkdir()
    assert read_subset(subset_of([SHORT], folder / "s.parquet"), "sft").height == 1


def test_a_wrong_subset_is_refused(tmp_path: Path) -> None:
    """No file, the other stage's file, and a file without rows are errors."""
    with pytest.raises(ValueError, match="does not exist"):
        read_subset(tmp_path / "none.parquet", "sft")
    path = subset_of([SHORT], tmp_path / "s.parquet")
    with pytest.raises(ValueError, match="column prompt is missing"):
        read_subset(path, "preference")
    empty = tmp_path / "e.parquet"
    read_subset(path, "sft").clear().write_parquet(empty)
    with pytest.raises(ValueError, match="no rows"):
        read_subset(empty, "sft")
