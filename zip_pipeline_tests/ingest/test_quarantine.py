"""Rules of quarantine: every reason is met, and nothing else."""

import json
from pathlib import Path

import pytest

from zip_pipeline.ingest import ingest as ingest_module
from zip_pipeline.ingest.ingest import ingest
from zip_pipeline.ingest.options import ReadOptions
from zip_pipeline.ingest.rows import REASONS, ReadLimits, RejectionError, printable
from zip_pipeline_tests.pool.files import COMPRESSIONS, json_lines, parquet_table, write

LIMITS = ReadLimits(max_row_bytes=30_000, allowance_bytes=1 << 20)
ANSWER = {"role": "assistant", "content": "a"}


def chat(*messages: object) -> bytes:
    """Return a row of messages."""
    return json.dumps({"messages": messages}).encode()


def choice(chosen: object, rejected: object, **more: object) -> bytes:
    """Return a row of a pair."""
    return json.dumps({"chosen": chosen, "rejected": rejected} | more).encode()


SFT_ROWS = {
    "bad_encoding": b'{"prompt": "\\ud800", "completion": "c"}',
    "row_too_long": b'{"prompt": "' + b"x" * 30_000 + b'", "completion": "c"}',
    "nested_too_deep": b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b', "completion": "c"}',
    "invalid_json": b'{"prompt": "p", "completion": ',
    "not_an_object": b'["p", 1]',
    "unknown_format": b'{"text": "t"}',
    "printed_list": b'{"prompt": "[{\'role\': \'user\'...}]", "completion": "c"}',
    "rated_record": b'{"prompt": "p", "completion": "c", "label": false}',
    "no_loss": chat({"role": "user", "content": "u"}, {**ANSWER, "weight": 0}),
    "missing_field": chat({"role": "user"}, ANSWER),
    "wrong_type": chat("hello", ANSWER),
    "unknown_role": chat({"role": "narrator", "content": "n"}, ANSWER),
    "unsupported_content": chat({"role": "user", "content": [{"type": "image_url"}]}, ANSWER),
    "no_user_turn": chat({"role": "system", "content": "s"}, ANSWER),
    "no_final_assistant": chat({"role": "user", "content": "u"}),
    "failed_review": b'{"prompt": {"text": "t", "role": "u", "deleted": true, "replies": []}}',
    "empty_final_assistant": chat({"role": "user", "content": "u"}, {**ANSWER, "content": " \n"}),
}
PREFERENCE_ROWS = {
    "no_preference": b'{"instruction": "i", "output_1": "a", "output_2": "b", "preference": 1.5}',
    "tied_scores": choice("a", "b", prompt="p", score_chosen=1, score_rejected=1),
    "contradicting_scores": choice("a", "b", prompt="p", score_chosen=1, score_rejected=2),
    "step_labels": b'{"prompt": "p", "completions": ["a", "b"], "labels": [true, false]}',
    "equal_responses": choice("a", "a ", prompt="p"),
    "no_common_prompt": choice("Human: p\n\nAssistant: a", "Human: q\n\nAssistant: a"),
}
FILES = {
    "unsupported_file": ("a.txt", b"text"),
    "truncated_archive": ("a.jsonl.gz", COMPRESSIONS[".gz"](b'{"a": 1}\n')[:-9]),
    "corrupt_archive": ("a.jsonl.zst", COMPRESSIONS[".zst"](b"{}")[:4] + b"\xff" * 99),
    "decompression_bomb": ("a.jsonl.gz", COMPRESSIONS[".gz"](b" " * 2_000_000)),
    "corrupt_table": ("a.parquet", parquet_table([{"a": 1}])[:-4]),
    "invalid_csv": ("a.csv", b"prompt,completion\n1,2,3\n"),
    "mixed_object": ("a.json", b'{"train": [{"prompt": "p"}], "data": [{"prompt": "q"}]}'),
}


def reasons_of(path: Path, stage: str, **options: str) -> list[str]:
    """Return why the rows of a file went to quarantine; none may be a sample."""
    result = ingest(path, stage, batch="b", limits=LIMITS, options=ReadOptions(**options))
    assert result.num_rows_read == result.quarantine.height
    return result.quarantine["reason"].to_list()


@pytest.mark.parametrize("reason", SFT_ROWS)
def test_sft_row_is_quarantined(tmp_path, reason):
    """An SFT row that is no sample goes to quarantine with exactly this reason."""
    path = write(tmp_path / "a.jsonl", SFT_ROWS[reason] + b"\n")
    assert reasons_of(path, "sft") == [reason]


@pytest.mark.parametrize("reason", PREFERENCE_ROWS)
def test_preference_row_is_quarantined(tmp_path, reason):
    """A preference row that is no pair goes to quarantine with exactly this reason."""
    path = write(tmp_path / "a.jsonl", PREFERENCE_ROWS[reason] + b"\n")
    assert reasons_of(path, "preference") == [reason]


@pytest.mark.parametrize("reason", FILES)
def test_file_is_quarantined(tmp_path, reason):
    """A file that cannot be read goes to quarantine as one row with exactly this reason."""
    name, content = FILES[reason]
    (tmp_path / name).write_bytes(content)
    assert reasons_of(tmp_path / name, "sft")[-1:] == [reason]


def choke(_: object) -> None:
    """Fail as a library does on a value that it cannot hold."""
    raise OverflowError("int too large to convert to float")


def test_other_reasons_are_met(tmp_path):
    """What needs another setting: a row that a library chokes on, a text that is no dialogue."""
    row = write(tmp_path / "odd.jsonl", b'{"prompt": "p", "completion": "c"}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_module, "check_sample", choke)
        assert reasons_of(row, "sft") == ["unexpected_content"]
    path = write(tmp_path / "a.jsonl", choice("a", "b", prompt="p") + b"\n")
    assert reasons_of(path, "preference", format="dialogue_pair") == ["not_a_dialogue"]


def test_a_user_who_says_nothing_is_no_user(tmp_path):
    """A blank question leaves nothing to answer: its row is quarantined like one without it."""
    path = write(tmp_path / "a.jsonl", b'{"instruction": " ", "output": "Sure."}\n')
    assert reasons_of(path, "sft") == ["no_user_turn"]


def test_every_reason_is_tested():
    """Each documented reason has a row or file above."""
    others = {"unexpected_content", "not_a_dialogue"}
    assert {*SFT_ROWS, *PREFERENCE_ROWS, *FILES, *others} == set(REASONS)


def test_quarantine_keeps_place_detail_and_raw_row(tmp_path):
    """A rejected row is kept as it came, with file, row number and what was wrong."""
    rows = [{"prompt": "p", "completion": "c"}, b'{"prompt":  "p"}', b"{oops"]
    path = write(tmp_path / "a.jsonl", json_lines(rows))
    quarantine = ingest(path, "sft", batch="b").quarantine
    assert quarantine.rows() == [
        ("a.jsonl", 2, "missing_field", "expected completion or response", '{"prompt":  "p"}'),
        (
            "a.jsonl",
            3,
            "invalid_json",
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
            "{oops",
        ),
    ]


def test_rejection_can_always_be_stored():
    """Details lose half surrogate pairs; a reason outside the documented set is a mistake."""
    assert RejectionError("unknown_role", "'\ud800'").detail == "'?'"
    assert printable("é") == "é"
    with pytest.raises(AssertionError, match="unknown quarantine reason 'bad luck'"):
        RejectionError("bad luck")
