"""The entropy law in the summary of a run."""

import io
from pathlib import Path

from zip_pipeline.cli.console import ReadableConsole
from zip_pipeline.cli.summary import show_law
from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.table import upsert_version


def shown(root: DataRoot) -> str:
    """Return what a person reads."""
    console = ReadableConsole(io.StringIO(), 120)
    show_law(console, root)
    text = console.file
    assert isinstance(text, io.StringIO)
    return text.getvalue()


def measured(root: DataRoot, version: int, **columns: object) -> None:
    """Record a version of sft."""
    row = {"stage": "sft", "version": version, "strategy": "zip", "num_tokens": 1000, "series": "s"}
    upsert_version(root, row | {"R": 3.5, "R_spread": 0.25, "L": 1.5} | columns)


def test_versions_are_shown_with_their_measures_and_verdict(tmp_path: Path) -> None:
    """R, L and Z with their spreads; blocked and overridden versions stand out."""
    root = DataRoot(tmp_path)
    measured(root, 1, verdict="first", Z=-1.25, Z_spread=0.5, reason="nothing before")
    measured(root, 2, verdict="risk", override="Ada said so", reason="up and up")
    measured(root, 3, verdict="risk", reason="R [rose] and L rose.")
    lines = shown(root).splitlines()
    (first,) = [line for line in lines if line.startswith("  1 ")]
    assert first.split() == [
        *("1", "zip", "1,000", "3.500", "±", "0.250", "1.500", "-1.250", "±", "0.500", "first")
    ]
    (second,) = [line for line in lines if line.startswith("  2 ")]
    assert "risk, overridden" in second
    (third,) = [line for line in lines if line.startswith("  3 ")]
    assert "-" in third.split()
    assert "risk: blocked" in third
    assert "R [rose] and L rose." in lines
    assert any(line.startswith("To train it nevertheless, give a reason") for line in lines)
    assert any(line.startswith("Z  quality of the trained model, higher") for line in lines)
    assert any("Z over R: insufficient points: 1 of at least 5" in line for line in lines)


def test_figures_are_named_where_they_lie(tmp_path: Path) -> None:
    """The folder and the files are said once there are some."""
    root = DataRoot(tmp_path)
    measured(root, 1, verdict="first", reason="nothing before")
    assert "Figures" not in shown(root)
    folder = tmp_path / "entropy_law" / "figures"
    folder.mkdir()
    (folder / "sft_versions.png").touch()
    assert f"Figures in {folder}: sft_versions.png" in shown(root)


def test_law_without_versions_is_silent(tmp_path: Path) -> None:
    """A data root of which nothing was probed shows nothing."""
    assert shown(DataRoot(tmp_path)) == ""


def test_values_of_z_that_do_not_compare_are_told_apart(tmp_path: Path) -> None:
    """A reader must not take another held-out set, or another start, for a better model."""
    root = DataRoot(tmp_path)
    for version, name in ((1, "loss, samples a"), (2, "loss, samples b"), (3, "loss, samples b")):
        measured(root, version, stage="preference", Z=-1.25, Z_name=name, reason="so it is")
        measured(root, version, Z=-1.25, Z_name="loss, samples b", reason="so it is")
    text = shown(root)
    assert text.count("Z compares only within one way of measuring.") == 1
    assert "loss, samples a: version 1; loss, samples b: version 2, 3. A preference model" in text


def test_what_goes_against_the_law_is_said(tmp_path: Path) -> None:
    """Version 2 has a higher R and L and a better Z; 3 a worse Z; 4 is of another series."""
    root = DataRoot(tmp_path)
    figures = {
        1: (3.5, 1.0, -1.25),
        2: (3.75, 1.25, -1.0),
        3: (4.0, 1.5, -1.5),
        4: (5.0, 2.0, -1.0),
    }
    for version, (r, loss, z) in figures.items():
        series = "other" if version == 4 else "s"
        more = {"R": r, "L": loss, "Z": z, "Z_name": "loss", "reason": "so", "series": series}
        measured(root, version, **more)
    (line,) = [line for line in shown(root).splitlines() if "against the law" in line]
    assert line == (
        "Version 2 goes against the law: its R and L are higher than those of version 1, and yet "
        "its Z is better. A new source can do that: look at Z by source, in `evaluation`."
    )
