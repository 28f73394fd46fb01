"""``zip_pipeline.toml``: one file, and what is said of a wrong one."""

import logging
import os
from pathlib import Path

import pytest

from zip_pipeline.errors import UserError
from zip_pipeline.pool.held_out import HeldOutSettings
from zip_pipeline.settings import (
    TABLES,
    Settings,
    TrainingSettings,
    read_settings,
    read_table,
    training_settings,
)

ALLOWED = (
    "allowed are the tables [sft], [preference], [mixture], [signals], [training], [held_out], "
    "[quality_audit], [mt_bench], [comparison], [preference_comparison], [alerts], [store]"
)


@pytest.mark.parametrize("table", TABLES)
def test_table_is_given_as_it_stands(tmp_path: Path, table: str) -> None:
    """A table is its keys and values; another one, an empty one and no file differ."""
    assert read_table(tmp_path, table) is None
    file = tmp_path / "zip_pipeline.toml"
    file.write_text("")
    assert read_table(tmp_path, table) is None
    file.write_text(f'[{table}]\nname = "ä"\n[{table}.inner]\nnumber = 2\n', encoding="utf-8")
    assert read_table(tmp_path, table) == (file, {"name": "ä", "inner": {"number": 2}})
    others = [other for other in TABLES if other != table]
    assert [read_table(tmp_path, other) for other in others] == [None] * len(others)
    file.write_text(f"[{table}]\n")
    assert read_table(tmp_path, table) == (file, {})


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
        (b"training = " + b"[" * 5_000, "tables and lists nest deeper than 64 levels; correct"),
    ],
)
def test_wrong_file_is_refused_by_every_reader(
    tmp_path: Path, table: str, content: bytes, message: str
) -> None:
    """Whichever table is read, the file, what is wrong and what is allowed are named."""
    file = tmp_path / "zip_pipeline.toml"
    file.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_table(tmp_path, table)
    assert str(caught.value).startswith(f"{file}: {message}")


def test_misplaced_key_is_not_shown(tmp_path: Path) -> None:
    """A judge's key that stands in the wrong place is not repeated in the message."""
    for line in ("api_key = 'sk-a1b2'", "mt_bench = 'sk-a1b2'", "[judge]\nkey = 'sk-a1b2'"):
        (tmp_path / "zip_pipeline.toml").write_text(line)
        with pytest.raises(ValueError) as caught:
            read_table(tmp_path, "mt_bench")
        assert "a1b2" not in str(caught.value)


def test_old_files_are_read_with_a_word_on_where_their_tables_belong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each table of the two older files holds, and one line each says where to move it, once."""
    (tmp_path / "selection.toml").write_text("[preference]\nseed = 1\n")
    (tmp_path / "training.toml").write_text('[training]\npreset = "old"\n')
    (tmp_path / "zip_pipeline.toml").write_text("[sft]\nseed = 2\n")
    with caplog.at_level(logging.WARNING):
        tables = [read_table(tmp_path, table) for table in ("preference", "training", "sft")]
    assert [values for _, values in filter(None, tables)] == [
        {"seed": 1},
        {"preset": "old"},
        {"seed": 2},
    ]
    assert caplog.messages == [
        f"{tmp_path}/selection.toml: [preference] belongs into zip_pipeline.toml beside it now; "
        "move it there",
        f"{tmp_path}/training.toml: [training] belongs into zip_pipeline.toml beside it now; "
        "move it there",
    ]


def test_a_table_in_an_old_and_in_the_new_file_is_refused(tmp_path: Path) -> None:
    """Which of the two holds must not be guessed: both files are named."""
    (tmp_path / "selection.toml").write_text("[sft]\nseed = 1\n")
    (tmp_path / "zip_pipeline.toml").write_text("[sft]\nseed = 2\n")
    with pytest.raises(ValueError) as caught:
        read_table(tmp_path, "training")
    assert str(caught.value) == (
        f"{tmp_path}/selection.toml: [sft] stands in {tmp_path}/zip_pipeline.toml as well. Keep "
        "it there, and remove it from selection.toml"
    )


def test_old_files_take_the_tables_that_they_had(tmp_path: Path) -> None:
    """A table of training.toml counts for nothing in selection.toml, so it is refused there."""
    (tmp_path / "selection.toml").write_text("[training]\n")
    with pytest.raises(ValueError, match=r"allowed are the tables \[sft\], \[preference\]\. "):
        read_table(tmp_path, "training")


def test_changes_replace_values_of_a_right_table(tmp_path: Path) -> None:
    """A change of one run wins over the file, which must be right nevertheless."""
    file = tmp_path / "zip_pipeline.toml"
    assert training_settings(tmp_path) == TrainingSettings()
    file.write_text('[training]\npreset = "mine"\nnum_devices = 2\n')
    changed = training_settings(tmp_path, {"num_devices": 3})
    assert changed == TrainingSettings(preset="mine", num_devices=3)
    assert "sft_model" not in changed.job()
    with pytest.raises(ValueError, match=r"^num_devices: got 0; allowed are whole numbers, 1 and"):
        training_settings(tmp_path, {"num_devices": 0})
    file.write_text("[training]\nnum_devices = 0\n")
    with pytest.raises(ValueError, match=r"toml: \[training\] num_devices: got 0; allowed are"):
        training_settings(tmp_path, {"num_devices": 3})


class _Secretive(Settings):
    shows_texts = False

    key: int = 0
    other: int


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "other: missing; needed are other. Add it"),
        ({"other": 1, "an": 2}, "an: unknown; allowed are key, other. Correct or remove it"),
        ({"other": 1, "key": 1.5}, "key: got 1.5; it must be a whole number"),
        ({"other": 1, "key": "sk-1"}, "key: got a value of type str; it must be a whole number"),
        ({"other": 1, "key": ["sk-1"]}, "key: got a value of type list; it must be a whole number"),
    ],
)
def test_wrong_values_are_told_and_secrets_are_not(given: dict, message: str) -> None:
    """What came is said, save where it may be a key."""
    with pytest.raises(ValueError) as caught:
        _Secretive(**given)
    assert str(caught.value) == message


def test_settings_of_no_table_are_the_defaults(tmp_path: Path) -> None:
    """Without the file everything has its default, save what the caller prefers."""
    assert read_settings(tmp_path, "held_out", HeldOutSettings) == HeldOutSettings()
    preferred = read_settings(tmp_path, "held_out", HeldOutSettings, defaults={"seed": 3})
    assert preferred == HeldOutSettings(seed=3)


def test_settings_that_are_no_file_are_refused(tmp_path):
    """A folder or a pipe in their place is named; nobody waits for what comes out of a pipe."""
    place = tmp_path / "zip_pipeline.toml"
    for make in (place.mkdir, lambda: os.mkfifo(place)):
        make()
        with pytest.raises(UserError, match=r"zip_pipeline\.toml: no regular file; put a file"):
            training_settings(tmp_path)
        place.rmdir() if place.is_dir() else place.unlink()
