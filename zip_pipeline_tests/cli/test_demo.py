"""``zip-pipeline demo``: five states of a sample pool, one after the other."""

import json
from pathlib import Path

import pytest

from zip_pipeline.cli import run
from zip_pipeline.data_root import DataRoot
from zip_pipeline.pool.held_out import held_out_settings
from zip_pipeline.selection.config import stage_selection
from zip_pipeline_tests.cli.commands import call, call_badly, call_well


class FakeGraph:
    """Stands for the graph's process: notes what lies in the drop folder at each call."""

    def __init__(self, *exit_codes: int) -> None:
        self.exit_codes = list(exit_codes)
        self.drops: list[list[str]] = []
        self.sizes: list[int] = []
        self.until: list[str] = []

    def __call__(self, data_root: Path, until: str) -> tuple[int, list[str]]:
        """Return the next exit code, and a reason where it is one of a failure."""
        files = sorted((data_root / "raw" / "sft").iterdir())
        self.drops.append([path.name[:2] for path in files])
        self.sizes.append(files[0].stat().st_size)
        self.until.append(until)
        code = self.exit_codes.pop(0)
        return code, [] if code in (0, 3) else ["sft/zip_subset: why"]


@pytest.fixture(autouse=True)
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write sample pools of a few rows."""
    write = run.write_sample_data

    def small(folder: Path, *, seed: int, state: str) -> list[Path]:
        return write(folder, seed=seed, state=state, scale=0.02)

    monkeypatch.setattr(run, "write_sample_data", small)


def fake_graph(monkeypatch: pytest.MonkeyPatch, *exit_codes: int) -> FakeGraph:
    """Put a fake in the place of the graph."""
    fake = FakeGraph(*exit_codes)
    monkeypatch.setattr(run, "run_graph", fake)
    return fake


def test_demo_takes_each_state_through_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four states add a drop each, the fifth replaces some; a blocked version is no failure."""
    fake = fake_graph(monkeypatch, 0, 0, 0, 0, 3)
    text = call_well("demo", "--data-root", tmp_path)
    assert fake.drops == [["01"], ["01", "02"], ["01", "02", "03"], *[["01", "02", "03", "04"]] * 2]
    assert fake.sizes[4] != fake.sizes[3]
    assert fake.until == ["law"] * 5
    assert [text.index(f"x{n}: ") for n in range(1, 6)] == sorted(
        text.index(f"x{n}: ") for n in range(1, 6)
    )
    assert stage_selection(tmp_path, "sft").budget_tokens == 122_000
    assert stage_selection(tmp_path, "preference").budget_tokens == 73_000
    assert held_out_settings(DataRoot(tmp_path)).share == 0.05


def test_stopped_demo_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that failed is tried again; a finished walk stays at its last state."""
    fake = fake_graph(monkeypatch, 0, 1, 0, 0, 0, 3, 3)
    result = call("demo", "--data-root", tmp_path, "--until", "probe")
    assert result.exit_code == 1
    assert result.stderr == "Error: state x2: sft/zip_subset: why\n"
    (tmp_path / "zip_pipeline.toml").write_text("[sft]\nbudget_samples = 3\n")
    call_well("demo", "--data-root", tmp_path)
    assert [len(names) for names in fake.drops] == [1, 2, 2, 3, 4, 4]
    assert (tmp_path / "zip_pipeline.toml").read_text() == "[sft]\nbudget_samples = 3\n"
    text = call_well("demo", "--data-root", tmp_path)
    assert len(fake.drops) == 7
    assert text.startswith("The demonstration is finished")
    assert "broken re-export" not in text
    diary = json.loads((tmp_path / "demo.json").read_text())
    assert diary == {"seed": 0, "state": "x5", "is_finished": True}


def test_demo_leaves_drops_of_other_people_alone(tmp_path: Path) -> None:
    """A folder that holds drops is refused with a remedy, and nothing is written."""
    drop = DataRoot(tmp_path)["preference"].raw / "mine.jsonl"
    drop.parent.mkdir(parents=True)
    drop.write_text("{}\n")
    line = call_badly("demo", "--data-root", tmp_path)
    assert "holds drops already, such as 'mine.jsonl'" in line
    assert line.endswith(f"zip-pipeline run --data-root {tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_demo_keeps_to_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another seed in the middle of a walk would mix two pools: it is refused."""
    fake_graph(monkeypatch, 1)
    assert call("demo", "--data-root", tmp_path, "--seed", "4").exit_code == 1
    line = call_badly("demo", "--data-root", tmp_path)
    assert "a demonstration with seed 4 began here; got --seed 0" in line
