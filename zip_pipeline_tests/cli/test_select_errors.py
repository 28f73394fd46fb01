"""What ``zip-pipeline select`` refuses, and how it says so."""

from pathlib import Path

import pytest

from zip_pipeline_tests.cli.commands import call_badly, call_well
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl
from zip_pipeline_tests.pool.files import BROKEN_FILE, needs_broken_file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.jsonl",), "nowhere.jsonl: no such file or folder"),
        (
            ("in.jsonl", "--budget-samples", "-1"),
            "--budget-samples: got -1; allowed are whole numbers, 1 to 2^63 - 1, or a share of the",
        ),
        (("in.jsonl", "--budget-samples", "0"), "--budget-samples: got 0; allowed are whole"),
        (("in.jsonl", "--budget-samples", "many"), "--budget-samples: got 'many'; allowed are"),
        (
            ("in.jsonl", "--budget-bytes", "5"),
            "give exactly one of --budget-samples, --budget-tokens",
        ),
        (("in.jsonl", "--k3", "500"), "needed is --k1 >= --k2 >= --k3"),
        (("in.jsonl", "--quota", "x"), "--quota: got 'x'"),
        (("in.jsonl", "--quota", "x=2"), "--quota: of source 'x'"),
        (("in.jsonl", "in.jsonl"), "given twice; give each input once"),
        (("in.jsonl", "--format", "no_such"), "no_such"),
        (("in.jsonl", "--level", "99"), "level"),
        (
            ("in.jsonl", "--shards", "1001"),
            "--shards: got 1001; allowed are whole numbers, 1 to 1000",
        ),
        (("in.jsonl", "--ray", "local"), "--ray: is for shards, and there is one; give --shards N"),
        (
            ("in.jsonl", "--strategy", "zip", "--shards", "2", "--ray", "127.0.0.1:1"),
            "--ray: got address '127",
        ),
        (
            ("in.jsonl", "--shards", "2"),
            "leave --shards at 1, or take --strategy zip or long_range",
        ),
        (("in.jsonl", "--shards", "2", "--reference-compat"), "leave --shards at 1"),
        (
            ("in.jsonl", "--tokenizer", "no/such/file.json", "--budget-tokens", "9"),
            "--tokenizer: cannot load 'no/such/file.json'",
        ),
        (("in.jsonl", "--preset", "tiny", "--tokenizer", "x"), "--preset: got one and a token"),
        (("in.jsonl", "-o", "in.jsonl"), "in.jsonl: is or lies in the input in.jsonl"),
        (("in.jsonl", "-o", "x.txt"), "allowed are *.jsonl, *.json, *.parquet"),
        (("empty.jsonl",), "no sample in empty.jsonl: 0 rows read"),
        (("broken.jsonl",), "no sample in broken.jsonl: 1 row read, quarantined: 1 "),
        (("in.jsonl", "--stage", "preference"), "check stage and format"),
        (
            ("in.jsonl", "--reference-compat", "--strategy", "random"),
            "leave --reference-compat off",
        ),
        (("broken.jsonl", "--reference-compat"), "takes every row as it comes"),
        (("empty.jsonl", "--reference-compat"), "no row in empty.jsonl"),
    ],
)
def test_select_refuses_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
):
    """What cannot be used is one readable line and exit code 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("in.jsonl"), sft_records(8))
    write_jsonl(Path("broken.jsonl"), ["{"])
    Path("empty.jsonl").touch()
    before = sorted(tmp_path.iterdir())
    output = () if "-o" in arguments else ("-o", "out.json")
    is_given = {"-1", "0", "many", "--budget-tokens"} & set(arguments)
    budget = () if is_given else ("--budget-samples", "2")
    line = call_badly("select", *arguments, *output, *budget)
    assert message in line
    assert [p for p in sorted(tmp_path.iterdir()) if not p.name.startswith(".")] == before


@needs_broken_file
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize("options", [(), ("--reference-compat",)])
def test_select_refuses_what_cannot_be_read(tmp_path: Path, name: str, options: tuple[str, ...]):
    """What the system withholds is no empty or damaged input: it is named with the remedy."""
    source = tmp_path / name
    source.symlink_to(BROKEN_FILE)
    good = write_jsonl(tmp_path / "good.jsonl", sft_records(8))
    budget = ("--budget-samples", "2")
    line = call_badly("select", good, source, "-o", tmp_path / "x.json", *budget, *options)
    assert line.startswith(f"{source}: cannot be read (")
    assert line.endswith("); nothing of it is taken in. Put that right, then try again")
    assert not (tmp_path / "x.json").exists()


def test_select_follows_named_links_and_refuses_those_that_leave_a_named_folder(tmp_path: Path):
    """A person may name a link; what lies in a named folder does not lead out of it."""
    write_jsonl(tmp_path / "real.jsonl", sft_records(8))
    (tmp_path / "named.jsonl").symlink_to("real.jsonl")
    arguments = ("-o", tmp_path / "x.json", "--budget-samples", "2", "--force")
    call_well("select", tmp_path / "named.jsonl", *arguments)
    (tmp_path / "folder").mkdir()
    link = tmp_path / "folder" / "link.jsonl"
    link.symlink_to("../real.jsonl")
    line = call_badly("select", tmp_path / "folder", *arguments)
    assert line.startswith(f"{link}: the link leads out of {tmp_path / 'folder'}, to")


def test_select_without_a_budget_says_which_there_are(tmp_path: Path):
    """A missing budget is told with the three kinds."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(3))
    line = call_badly("select", source, "-o", tmp_path / "x.json")
    assert line.startswith("budget: got none; give exactly one of --budget-samples, --")
