"""What is told of a file before it is dropped."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.options import ReadOptions
from zip_pipeline.workflow.inspection import NUM_ROWS, inspect_file

MESSAGES = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]


def written(path: Path, *records: Any) -> Path:
    """Write records as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_sound_file_needs_nothing(tmp_path: Path) -> None:
    """Kind, format, fields and the first sample are told, and no sidecar."""
    rows = [{"instruction": f"i{n}", "context": "c" * n, "output": "a", "id": n} for n in range(3)]
    found = inspect_file(written(tmp_path / "a.jsonl", *rows, rows[0]))
    assert found.files == {"a.jsonl": "JSON, utf-8"}
    assert (found.stage, found.num_rows, found.is_whole) == ("sft", 4, True)
    assert (found.num_samples, found.num_duplicates) == (3, 1)
    assert found.formats == {"alpaca": 3}
    assert found.fields_read == {"instruction": 3, "context": 2, "output": 3}
    assert found.fields_not_read == {"id": 4}
    assert found.first_sample == "user: i0\nassistant: a\n"
    assert (found.refusals, found.sidecar, found.advice) == ([], "", [])


def test_refused_rows_are_told_with_one_of_each(tmp_path: Path) -> None:
    """Most frequent first, with what to write into the sidecar."""
    rows = [{"q": f"q{n}", "r": "r"} for n in range(2)]
    path = written(tmp_path / "a.jsonl", {"prompt": "p", "completion": "", "q": "x"}, *rows)
    found = inspect_file(path, "sft")
    assert [(r.reason, r.num_rows, r.place) for r in found.refusals] == [
        ("missing_field", 2, "a.jsonl, row 2"),
        ("empty_final_assistant", 1, "a.jsonl, row 1"),
    ]
    assert found.refusals[0].raw == '{"q": "q0", "r": "r"}'


def test_what_no_format_knows_is_mapped_by_a_sidecar_that_is_proposed(tmp_path: Path) -> None:
    """Written as it is proposed, it makes the rows samples."""
    path = written(DataRoot(tmp_path)["sft"].raw / "a.jsonl", {"title": "t", "q": "q", "r": "r"})
    found = inspect_file(path)
    assert found.sidecar == 'a.jsonl.batch.toml:\nmap = { "user" = "q", "assistant" = "r" }\n'
    name, _, text = found.sidecar.partition(":\n")
    (path.parent / name).write_text(text)
    mapped = inspect_file(path)
    assert (mapped.num_samples, mapped.refusals) == (1, [])


def test_no_mapping_is_proposed_where_no_name_tells(tmp_path: Path) -> None:
    """A wrong one would read wrongly."""
    found = inspect_file(written(tmp_path / "a.jsonl", {"id": "1", "title": "t"}), "sft")
    assert found.sidecar == ""
    assert found.advice == ['say which field is what, as in map = { user = "…", assistant = "…" }']


def test_no_mapping_is_proposed_where_rows_are_read_as_they_are(tmp_path: Path) -> None:
    """It would hold for all rows of the file."""
    rows = [{"instruction": "i", "output": "a"}, {"instruction": "i"}]
    found = inspect_file(written(tmp_path / "a.jsonl", *rows))
    assert [refusal.reason for refusal in found.refusals] == ["missing_field"]
    assert (found.num_samples, found.sidecar, found.advice) == (1, "", [])


def test_the_stage_is_told_by_the_rows(tmp_path: Path) -> None:
    """The one that takes more of them, or knows them at least; unless a person says it."""
    rated = written(tmp_path / "a.jsonl", {"prompt": "p", "completion": "a", "label": False})
    assert inspect_file(rated).stage == "preference"
    told = inspect_file(rated, "sft")
    assert [refusal.reason for refusal in told.refusals] == ["rated_record"]
    assert told.advice == ["drop the file under preference: its records carry ratings"]
    two = written(tmp_path / "b.jsonl", {"prompt": "p", "answer1": "a", "answer2": "b"})
    assert [r.reason for r in inspect_file(two).refusals] == ["no_preference"]


def test_media_are_told_how_to_keep(tmp_path: Path) -> None:
    """The sidecar keeps them."""
    path = written(tmp_path / "a.jsonl", {"prompt": "p", "completion": "c", "images": ["x.png"]})
    assert inspect_file(path).sidecar == 'a.jsonl.batch.toml:\nmedia = "keep"\n'
    assert inspect_file(path, options=ReadOptions(media="keep")).num_samples == 1


def test_an_encoding_is_told_as_it_looks(tmp_path: Path) -> None:
    """Written into the sidecar, it makes all rows samples."""
    path = tmp_path / "a.csv"
    path.write_bytes("prompt,completion\ntea,th\xe9\nmilk,lait\n".encode("cp1252"))
    found = inspect_file(path)
    assert found.sidecar == 'a.csv.batch.toml:\nencoding = "cp1252"\n'
    assert inspect_file(path, options=ReadOptions(encoding="cp1252")).num_samples == 2


def test_folders_and_long_files(tmp_path: Path) -> None:
    """Splits that are left out are named, and of a long file the first rows are read."""
    rows = [{"prompt": f"{n}", "completion": "c"} for n in range(NUM_ROWS + 5)]
    written(tmp_path / "hub" / "train.jsonl", *rows)
    written(tmp_path / "hub" / "test.jsonl", *rows[:2])
    found = inspect_file(tmp_path / "hub")
    assert list(found.files) == ["train.jsonl"]
    assert found.left_out == ["test.jsonl"]
    assert (found.num_rows, found.is_whole) == (NUM_ROWS, False)


def test_errors_are_for_people(tmp_path: Path) -> None:
    """No file, and a format of the other stage."""
    with pytest.raises(UserError, match="no such file or folder"):
        inspect_file(tmp_path / "a")
    path = written(tmp_path / "a.jsonl", {"prompt": "p", "completion": "c"})
    with pytest.raises(UserError, match="'alpaca' is no format of preference"):
        inspect_file(path, "preference", ReadOptions(format="alpaca"))


def test_rows_under_another_name_are_found_by_the_sidecar_that_is_proposed(tmp_path: Path) -> None:
    """Written as it is proposed, it makes them samples."""
    path = tmp_path / "a.json"
    rows = [{"prompt": "p", "completion": "c"}]
    path.write_text(json.dumps({"result": {"items": rows}, "page": 1}))
    found = inspect_file(path)
    assert found.sidecar == 'a.json.batch.toml:\nrows = "result.items"\n'
    assert inspect_file(path, options=ReadOptions(rows="result.items")).num_samples == 1


def test_a_file_that_both_stages_take_is_told(tmp_path: Path) -> None:
    """Its rows are conversations, and in pairs they are ranked."""
    rows = [{"prompt": "p", "response": f"{n}", "helpfulness": n} for n in range(3)]
    path = written(tmp_path / "a.jsonl", *rows)
    assert inspect_file(path).advice == [
        "preference takes 1 samples of it, too: drop it there for those, and see them with "
        "--stage preference"
    ]
    assert inspect_file(path, "sft").advice == []


def test_fields_that_a_person_may_mean_are_told(tmp_path: Path) -> None:
    """A verdict on the answer, and context that a mapping leaves out."""
    row = {"question": "q", "answer": "a", "is_correct": True, "system": "s"}
    path = written(tmp_path / "a.jsonl", row)
    assert inspect_file(path).advice == [
        "if is_correct says whether the answer is good, train KTO on it: --stage preference --map "
        "label=is_correct, and the same in the sidecar of a drop under preference"
    ]
    rated = inspect_file(path, "preference", ReadOptions(map={"label": "is_correct"}))
    assert (rated.formats, rated.advice) == ({"rated_answer": 1}, [])
    mapped = inspect_file(path, "sft", ReadOptions(map={"user": "question", "assistant": "answer"}))
    assert "the mapping leaves out system; map what belongs to the question" in mapped.advice


def test_a_reward_of_0_and_1_is_a_verdict(tmp_path: Path) -> None:
    """One on another scale is not, nor one that is the same in all rows."""
    row = {"input": "q", "output": "a"}
    for scores, told in ((0, 1), True), ((0.0, 0.5, 1.0), False), ((1, 1), False):
        rows = [row | {"score": score, "step": n} for n, score in enumerate(scores)]
        advice = inspect_file(written(tmp_path / "a.jsonl", *rows)).advice
        assert any("--map label=score" in words for words in advice) == told


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        (
            {"id": 1, "params": {"messages": MESSAGES}},
            {"messages": "params.messages"},
        ),
        (
            {"prompt": "p", "accepted": "a", "rejected": "b"},
            {"user": "prompt", "chosen": "accepted", "rejected": "rejected"},
        ),
    ],
)
def test_the_mapping_that_is_proposed_reads_the_file(
    tmp_path: Path, row: dict[str, Any], mapping: dict[str, str]
) -> None:
    """Conversations deep in a record, and pairs, in the stage that it names."""
    path = written(tmp_path / "a.jsonl", row)
    found = inspect_file(path)
    (line,) = found.sidecar.splitlines()[1:]
    assert tomllib.loads(line) == {"map": mapping}
    is_pair = any("drop the file under preference" in words for words in found.advice)
    mapped = inspect_file(path, "preference" if is_pair else "sft", ReadOptions(map=mapping))
    assert (mapped.num_samples, is_pair) == (1, "chosen" in mapping)
