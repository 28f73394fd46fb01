"""``export`` and ``select --output-format``: what is written where, and what people are told."""

import json
from pathlib import Path

import pytest

from zip_pipeline_tests.cli.commands import call_badly, call_well
from zip_pipeline_tests.cli.pools import read_jsonl, sft_records, write_jsonl
from zip_pipeline_tests.workflow.test_exports import root_of

SELECT = ("--budget-samples", "4", "--strategy", "random")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data root with one version of two conversations, one of which calls a tool."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"n": 1}}}
    asked = {"role": "user", "content": "Go"}
    rows = [
        {"messages": [asked, {"role": "assistant", "content": "Gone"}]},
        {"messages": [asked, {"role": "assistant", "content": "", "tool_calls": [call]}]},
    ]
    rows[1]["messages"].append({"role": "tool", "content": "1", "tool_call_id": "c"})
    rows[1]["messages"].append({"role": "assistant", "content": "Gone"})
    return root_of(tmp_path / "data", rows).path


def test_export_says_what_it_wrote_and_what_not(root: Path, tmp_path: Path) -> None:
    """Rows, refusals with their reason, and the command that takes the rows."""
    out = tmp_path / "out"
    said = call_well("export", "1", out, "--to", "alpaca", "--data-root", root)
    assert "sft version 1 to" in said
    assert "1 rows" in said
    assert "refused: 1 with tools or tool calls" in said
    assert 'load_dataset("FOLDER", "train"' in said
    row = {"instruction": "Go", "input": "", "output": "Gone"}
    assert json.loads((out / "train.jsonl").read_text()) == row
    message = call_badly("export", "1", out, "--to", "messages", "--data-root", root)
    assert message.endswith("export there (files of other names stay)")
    call_well("export", "1", out, "--to", "messages", "--data-root", root, "--force")
    assert len((out / "train.jsonl").read_text().splitlines()) == 2
    told = call_well("export", "1", out, "--to", "trl", "--data-root", root, "--force")
    for words in (told, (out / "README.md").read_text()):
        assert "written without: tool_call_id of tools of 1 row" in words.replace("\\", "")
        assert "1 field: messages[].tool_call_id (1 row)" in words.replace("\\", "")


def test_a_dry_run_of_a_push_shows_files_and_card(root: Path, tmp_path: Path) -> None:
    """And sends nothing; a dry run of nothing is refused before anything is written."""
    command = ("export", "1", tmp_path / "out", "--to", "llamafactory", "--data-root", root)
    message = call_badly(*command, "--dry-run")
    assert message == "--dry-run: is for --push ORG/NAME, which is not given"
    message = call_badly(*command, "--push", "chats")
    assert message == "--push: got 'chats'; write it as ORG/NAME"
    assert not (tmp_path / "out").exists()
    said = call_well(*command, "--push", "org/chats", "--dry-run")
    assert "Would upload to https://huggingface.co/datasets/org/chats" in said
    assert "the commit 'sft version 1'" in said
    for name in ("train.jsonl", "dataset_info.json", "README.md", "export.json"):
        assert name in said
    assert 'configs: [{"config_name": "train", "data_files": "train.jsonl"' in said
    assert "llamafactory-cli train --stage sft" in said


def test_export_of_no_version_names_those_that_there_are(root: Path, tmp_path: Path) -> None:
    """As other commands do; nothing is written."""
    message = call_badly("export", "7", tmp_path / "out", "--to", "trl", "--data-root", root)
    assert "no version 7; there are: 1" in message
    assert not (tmp_path / "out").exists()


def test_select_writes_an_export_beside_out(tmp_path: Path) -> None:
    """A second selection of that name replaces it; what is no export is refused beforehand."""
    given = write_jsonl(tmp_path / "in.jsonl", sft_records(12))
    command = ("select", given, "-o", tmp_path / "picked.jsonl", *SELECT)
    said = call_well(*command, "--output-format", "sharegpt")
    assert "sft selection to" in said
    folder = tmp_path / "picked.sharegpt"

    def answers() -> list[str]:
        return [row["conversations"][1]["value"] for row in read_jsonl(folder / "train.jsonl")]

    before = answers()
    assert before == [record["output"] for record in read_jsonl(tmp_path / "picked.jsonl")]
    call_well(*command, "--output-format", "sharegpt", "--seed", "3", "--force")
    assert answers() != before
    assert answers() == [record["output"] for record in read_jsonl(tmp_path / "picked.jsonl")]
    (folder / "export.json").unlink()
    (tmp_path / "picked.jsonl").unlink()
    assert "is not empty" in call_badly(*command, "--output-format", "sharegpt", "--force")
    assert not (tmp_path / "picked.jsonl").exists()


def test_rows_that_are_no_samples_have_no_format(tmp_path: Path) -> None:
    """The paper's mode takes any records."""
    given = write_jsonl(tmp_path / "in.jsonl", sft_records(12))
    options = ("--reference-compat", "--budget-samples", "4", "--output-format", "trl")
    message = call_badly("select", given, "-o", tmp_path / "o.jsonl", *options)
    assert message == "--output-format: is for samples; --reference-compat takes any rows"
