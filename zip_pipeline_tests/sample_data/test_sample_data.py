"""The sample pool: states, formats, redundancy, damage, determinism."""

from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.compression.codecs import compression_ratio
from zip_pipeline.compression.state import texts_of
from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.ingest.ingest import ingest_drop, read_batch
from zip_pipeline.pool.pool import AssembledPool, assemble_pool
from zip_pipeline.sample_data import write_sample_data
from zip_pipeline.sample_data.mixture import pretraining_samples
from zip_pipeline.samples import sample_id

SCALE = 0.25
STATES = ("x1", "x2", "x3", "x4", "x5")


def _pool(folder: StageFolder) -> AssembledPool:
    for drop in sorted(folder.raw.iterdir()):
        ingest_drop(folder, drop.name)
    return assemble_pool(folder)


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AssembledPool]:
    """Return the SFT pool of each state, written one after another into one data root."""
    root = DataRoot(tmp_path_factory.mktemp("states"))
    pools = {}
    for state in STATES:
        write_sample_data(root.path, state=state, scale=SCALE)
        pools[state] = _pool(root["sft"])
    return pools


def _most_answers(pool: AssembledPool) -> int:
    """Return how many different answers the most answered question has, in single turns."""
    dialogues = [turns for turns in pool.samples["turns"].to_list() if len(turns) == 2]
    return Counter(turns[0]["content"] for turns in dialogues).most_common(1)[0][1]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    """Files depend on seed, state and scale alone."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_sample_data(tmp_path / name, seed=seed, scale=0.05)
    same, other = _contents(tmp_path / "b"), _contents(tmp_path / "c")
    assert len(same) == 6
    assert _contents(tmp_path / "a") == same
    assert same.keys() == other.keys()
    assert all(same[name] != other[name] for name in same)


def test_each_state_adds_a_drop_in_another_format(pools: dict[str, AssembledPool]) -> None:
    """x1 to x4 hold one to four drops, each in a format of its own."""
    for number, state in enumerate(STATES[:4], start=1):
        formats = pools[state].samples.group_by("batch").agg(pl.col("format").unique())
        assert len(formats) == number
        assert all(len(names) == 1 for names in formats["format"])
        assert formats["format"].explode().n_unique() == number
    sizes = [len(pools[state].samples) for state in STATES[:4]]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4


def test_x5_replaces_two_drops_under_their_names(tmp_path: Path) -> None:
    """The other drops keep their bytes, and no name is added."""
    write_sample_data(tmp_path, state="x4", scale=0.05)
    before = _contents(tmp_path)
    write_sample_data(tmp_path, state="x5", scale=0.05)
    after = _contents(tmp_path)
    assert after.keys() == before.keys()
    changed = [name for name in before if before[name] != after[name]]
    assert len(changed) == 2
    assert all("/sft/" in name for name in changed)


def test_a_file_that_is_no_sample_drop_is_not_replaced(tmp_path: Path) -> None:
    """A drop of somebody else under the same name stays, and nothing else is written."""
    write_sample_data(tmp_path / "sample", state="x1", scale=0.05)
    name = next((tmp_path / "sample" / "raw" / "sft").iterdir()).name
    mine = tmp_path / "mine" / "raw" / "sft" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ValueError, match=f"{name}: holds something else than the sample drop"):
        write_sample_data(tmp_path / "mine", state="x4", scale=0.05)
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "mine"
    with pytest.raises(ValueError, match="holds something else"):
        write_sample_data(tmp_path / "sample", seed=1, state="x1", scale=0.05)


def test_files_that_would_not_change_are_left_alone(tmp_path: Path) -> None:
    """Writing the same state again touches no file, so nothing is ingested again."""
    paths = write_sample_data(tmp_path, state="x2", scale=0.05)
    times = [path.stat().st_mtime_ns for path in paths]
    assert write_sample_data(tmp_path, state="x2", scale=0.05) == paths
    assert [path.stat().st_mtime_ns for path in paths] == times


def test_the_re_export_is_redundant_and_contradicts_itself(
    pools: dict[str, AssembledPool],
) -> None:
    """x5 is more redundant than every earlier state, and answers one question in many ways."""
    ratios = {s: compression_ratio(b"".join(texts_of(p.samples, "sft"))) for s, p in pools.items()}
    earlier = [ratios[state] for state in STATES[:4]]
    assert ratios["x5"] > max(earlier) + (max(earlier) - min(earlier))
    assert _most_answers(pools["x5"]) >= 5
    assert _most_answers(pools["x4"]) <= 2


def test_the_pool_has_every_flaw_of_a_real_one(pools: dict[str, AssembledPool]) -> None:
    """Broken rows of several kinds, duplicates inside and across drops, and most rows sound."""
    pool = pools["x4"]
    assert pool.num_quarantined >= 8
    assert pool.num_batch_duplicates >= 5
    assert len(pool.duplicates) >= 5
    assert len(pool.samples) > 0.9 * pool.num_rows_read
    assert pool.samples["source"].n_unique() >= 8


def test_multi_turn_system_and_tool_turns_are_there(pools: dict[str, AssembledPool]) -> None:
    """The roles that a chat pool has all occur."""
    turns = pools["x4"].samples["turns"]
    roles = set(turns.explode().struct.field("role"))
    assert roles == {"system", "user", "assistant", "tool"}
    assert (turns.list.len() >= 4).sum() > 20


def test_preference_pairs_come_in_two_drops(tmp_path: Path) -> None:
    """With x1 and x3, in two formats; chosen and rejected differ."""
    root = DataRoot(tmp_path)
    write_sample_data(tmp_path, state="x2", scale=0.1)
    assert len(list(root["preference"].raw.iterdir())) == 1
    write_sample_data(tmp_path, state="x3", scale=0.1)
    pool = _pool(root["preference"])
    assert pool.samples["format"].n_unique() == 2
    assert pool.num_quarantined >= 2
    assert len(pool.samples) > 80
    for name in root["preference"].batches():
        batch = read_batch(root["preference"], name)
        assert (batch["chosen"] != batch["rejected"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": "x6"}, "state: got 'x6'; allowed are x1, x2, x3, x4, x5"),
        ({"scale": 0.0}, "scale: got 0.0; it must be at least 0.02"),
    ],
)
def test_unknown_states_and_scales_are_refused(tmp_path: Path, options, message: str) -> None:
    """The message says what is allowed, and nothing is written."""
    with pytest.raises(ValueError, match=message):
        write_sample_data(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_pretraining_text_shares_no_sample_with_any_pool(pools: dict[str, AssembledPool]) -> None:
    """What the tokenizer and base models are made from is never in a pool."""
    known = {sample_id(sample) for sample in pretraining_samples(0, 3000)}
    assert len(known) > 1000
    for state in STATES[:4]:
        assert known.isdisjoint(pools[state].samples["sample_id"])
