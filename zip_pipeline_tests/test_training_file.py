"""The tables of ``training.toml``."""

from pathlib import Path

import pytest

from zip_pipeline.training_file import TABLES, read_training_table

ALLOWED = "allowed are the tables [training], [held_out], [quality_audit], [mt_bench]"


@pytest.mark.parametrize("table", TABLES)
def test_table_is_given_as_it_stands(tmp_path: Path, table: str) -> None:
    """A table is its keys and values; another one, an empty one and no file differ."""
    assert read_training_table(tmp_path, table) is None
    file = tmp_path / "training.toml"
    file.write_text("")
    assert read_training_table(tmp_path, table) is None
    file.write_text(f'[{table}]\nname = "ä"\n[{table}.inner]\nnumber = 2\n', encoding="utf-8")
    assert read_training_table(tmp_path, table) == {"name": "ä", "inner": {"number": 2}}
    others = [other for other in TABLES if other != table]
    assert [read_training_table(tmp_path, other) for other in others] == [None] * 3
    file.write_text(f"[{table}]\n")
    assert read_training_table(tmp_path, table) == {}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[trainning]\nseed = 1", f"the table [trainning] is not known; {ALLOWED}. Correct or"),
        (b"[mt-bench.judge]\nurl = 'u'", f"the table [mt-bench] is not known; {ALLOWED}"),
        (b"preset = 'p'\n[training]", f"preset, outside the tables, is not known; {ALLOWED}"),
        (b"held_out = 3", "held_out must be a table [held_out], is int. Correct it"),
        (b"[[training]]\nseed = 1", "training must be a table [training], is list. Correct it"),
        (b"[training", "not valid TOML in UTF-8: "),
        (b"[training]\npreset = '\xff'", "not valid TOML in UTF-8: "),
    ],
)
def test_wrong_file_is_refused_by_every_reader(
    tmp_path: Path, table: str, content: bytes, message: str
) -> None:
    """Whichever table is read, the file, what is wrong and what is allowed are named."""
    file = tmp_path / "training.toml"
    file.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_training_table(tmp_path, table)
    assert str(caught.value).startswith(f"{file}: {message}")


def test_misplaced_key_is_not_shown(tmp_path: Path) -> None:
    """A judge's key that stands in the wrong place is not repeated in the message."""
    for line in ("api_key = 'sk-a1b2'", "mt_bench = 'sk-a1b2'", "[judge]\nkey = 'sk-a1b2'"):
        (tmp_path / "training.toml").write_text(line)
        with pytest.raises(ValueError) as caught:
            read_training_table(tmp_path, "mt_bench")
        assert "a1b2" not in str(caught.value)
