"""The command that shows how a file will be read."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zip_pipeline.cli import app
from zip_pipeline_tests.cli.commands import call_well
from zip_pipeline_tests.ingest.remote_servers import Hub


def test_inspect_prints_what_a_person_needs(tmp_path: Path) -> None:
    """Fields read and not read, the first sample, the reasons, and the sidecar to write."""
    rows = [{"q": "q", "r": "r", "topic": "x"}, {"topic": "y"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(app, ["inspect", str(path), "--stage", "sft"])
    assert done.exit_code == 0
    assert "2 = 0 samples of sft + 2 refused + 0 duplicates" in done.stdout
    assert "2 refused: unknown_format, as a.jsonl, row 1: fields q, r, topic" in done.stdout
    assert 'map = { "user" = "q", "assistant" = "r" }' in done.stdout
    arguments = ["inspect", str(path), "--map", "user=q", "--map", "assistant=r"]
    mapped = CliRunner().invoke(app, arguments).stdout.splitlines()
    assert "Format    prompt_completion (1 sample)" in [line.rstrip() for line in mapped]
    assert "Not read  topic (1 row)" in [line.rstrip() for line in mapped]
    assert mapped[mapped.index("The first sample, as it will be read:") + 1] == "user: q"
    assert any(line.startswith("1 refused: missing_field") for line in mapped)


def test_options_that_are_no_pairs_are_refused(tmp_path: Path) -> None:
    """By the name of the option, with an example."""
    done = CliRunner().invoke(app, ["inspect", str(tmp_path), "--map", "user"])
    assert done.exit_code == 2
    assert "--map: got 'user'; write it as NAME=VALUE, as in --map user=question" in done.output
    done = CliRunner().invoke(app, ["inspect", str(tmp_path), "--role", "agent=boss"])
    assert "--role: got 'boss'; allowed are system, user, assistant, tool" in done.output


@pytest.mark.server
def test_inspect_shows_what_lies_elsewhere(hub: Hub) -> None:
    """Its revision, and the drop file to write."""
    row = b'{"q": "q", "r": "r"}\n'
    sha = hub.commit("org/name", {"train.jsonl": row, "test.jsonl": row})
    address = "hf://datasets/org/name@main"
    shown = call_well("inspect", address, "--stage", "sft")
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[0] == f"From      {address}, {sha}"
    assert "Left out  test.jsonl: of test or validation splits" in lines
    place = lines.index("To drop it: name.drop.toml:")
    assert lines[place + 1] == f'from = "{address}"'
    assert lines[place + 2] == 'map = { "user" = "q", "assistant" = "r" }'


def test_all_pairs_are_an_option(tmp_path: Path) -> None:
    """As in the sidecar; other words are refused."""
    answers = [{"answer": f"{rank}", "rank": rank} for rank in (1, 2, 3)]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "p", "answers": answers}))
    done = CliRunner().invoke(app, ["inspect", str(path), "--pairs", "all"])
    assert "3 = 3 samples of preference + 0 refused + 0 duplicates" in done.stdout
    done = CliRunner().invoke(app, ["inspect", str(path)])
    assert "1 = 1 sample of preference + 0 refused + 0 duplicates" in done.stdout
    assert CliRunner().invoke(app, ["inspect", str(path), "--pairs", "some"]).exit_code == 2
