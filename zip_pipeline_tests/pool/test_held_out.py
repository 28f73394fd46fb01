"""Rules of the samples that are kept for evaluation."""

import hashlib
import json
import threading

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.files import read_metadata
from zip_pipeline.pool.held_out import (
    HeldOutSettings,
    freeze_held_out,
    held_out_settings,
    is_held_out,
    read_held_out,
)
from zip_pipeline.pool.pool import assemble_pool
from zip_pipeline_tests.pool.files import drop_sums

SMALL = HeldOutSettings(share=0.25, min_source_samples=8)


def drawn(sizes: dict[str, int], settings: HeldOutSettings) -> pl.DataFrame:
    """Return the held-out samples of a pool with so many samples of each source."""
    samples = pl.DataFrame(
        [(f"{source}{n}", source) for source, num in sizes.items() for n in range(num)],
        schema={"sample_id": pl.String, "source": pl.String},
        orient="row",
    )
    return samples.filter(is_held_out(samples, settings))


def num_by_source(samples: pl.DataFrame) -> dict[str, int]:
    """Return how many samples each source has."""
    return dict(samples["source"].value_counts().iter_rows())


def freeze(root: DataRoot, settings: HeldOutSettings = SMALL) -> set[str]:
    """Freeze the set of the pool as it is now; return its ids."""
    frozen = freeze_held_out(root["sft"], assemble_pool(root["sft"]).parts, settings)
    return set(frozen.samples["sample_id"]) if frozen else set()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (HeldOutSettings(), {"large": 200, "middle": 6, "least": 4}),
        (HeldOutSettings(max_source_samples=5), {"large": 5, "middle": 5, "least": 4}),
        (HeldOutSettings(whole_sources=("small",)), {"large": 200, "middle": 6, "least": 4}),
        (HeldOutSettings(share=0), {}),
    ],
)
def test_held_out_is_a_share_of_each_source_that_is_large_enough(settings, expected):
    """Two per cent of a source by default, at most 200, none of one below 200 samples."""
    sizes = {"large": 11_000, "middle": 300, "least": 200, "small": 199}
    whole = {"small": 199} if settings.whole_sources else {}
    assert num_by_source(drawn(sizes, settings)) == expected | whole


def test_held_out_are_the_lowest_seeded_hashes_of_a_source():
    """The fast draw equals sorting each source by the hash of the seed and the id."""
    settings = HeldOutSettings(share=0.1, min_source_samples=10, seed=3)

    def draw(name: str) -> int:
        key = (3).to_bytes(8, "little")
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=key).digest()
        return int.from_bytes(digest, "little")

    sizes = {"a": 200, "b": 70, "c": 9}
    slow = {
        name
        for source, num in sizes.items()
        for name in sorted((f"{source}{n}" for n in range(num)), key=draw)[: num // 10]
    }
    assert len(slow) == 27
    assert set(drawn(sizes, settings)["sample_id"]) == slow


def test_held_out_does_not_depend_on_order_and_does_on_the_seed():
    """A shuffled pool holds out the same samples, another seed others."""
    samples = pl.DataFrame({"sample_id": [str(n) for n in range(400)], "source": ["a"] * 400})
    shuffled = samples.sample(fraction=1, shuffle=True, seed=5)
    settings = HeldOutSettings(share=0.1)
    held, again = (
        set(s.filter(is_held_out(s, settings))["sample_id"]) for s in (samples, shuffled)
    )
    assert len(held) == 40
    assert again == held
    other = samples.filter(is_held_out(samples, HeldOutSettings(share=0.1, seed=1)))
    assert set(other["sample_id"]) != held


def test_source_is_drawn_from_once(tmp_path):
    """Growth, replaced drops and changed settings leave what a source holds out as it is."""
    root = DataRoot(tmp_path)
    drop_sums(root, "a", range(40))
    drop_sums(root, "b", range(100, 104))
    frozen = freeze(root)
    assert len(frozen) == 10
    content = root["sft"].held_out.read_bytes()
    drop_sums(root, "b", range(100, 140))
    drop_sums(root, "a", range(20, 60))
    for settings in (SMALL, HeldOutSettings(share=0.5, min_source_samples=0, seed=9)):
        assert freeze(root, settings) == frozen
    pool = assemble_pool(root["sft"])
    assert not frozen & set(pool.samples["sample_id"])
    left = set(pool.held_out["sample_id"])
    assert left < frozen
    assert pool.samples.height == 80 - len(left)
    assert root["sft"].held_out.read_bytes() == content


def test_source_that_comes_later_is_drawn_from_when_it_comes(tmp_path):
    """The set grows by a new source's share; no sample of the sources before joins or leaves."""
    root = DataRoot(tmp_path)
    drop_sums(root, "a", range(40))
    before = freeze(root)
    drop_sums(root, "b", range(100, 120))
    after = freeze(root)
    assert before < after
    held = read_held_out(root["sft"])
    assert held is not None
    assert num_by_source(held.samples) == {"a": 10, "b": 5}
    assert held.seen_sources == ("a", "b")
    assert set(assemble_pool(root["sft"]).held_out["sample_id"]) == after


def test_pool_accounts_for_held_out_samples_and_their_copies(tmp_path):
    """A copy of a held-out sample is a duplicate, and every row is in one place."""
    root = DataRoot(tmp_path)
    drop_sums(root, "a", range(40))
    drop_sums(root, "b", range(40))
    before = assemble_pool(root["sft"])
    assert (before.frozen, before.num_held_out) == (None, 0)
    frozen = freeze(root)
    pool = assemble_pool(root["sft"])
    counts = (pool.num_rows_read, pool.samples.height, pool.num_duplicates, pool.num_held_out)
    assert counts == (80, 30, 40, 10)
    assert set(pool.held_out["sample_id"]) == frozen
    assert pool.held_out["batch"].unique().to_list() == ["a.jsonl"]


def test_small_pools_hold_out_nothing_until_they_have_grown(tmp_path):
    """No empty set is frozen: a pool that is too small today may hold out tomorrow."""
    root = DataRoot(tmp_path)
    drop_sums(root, "a", range(7))
    assert freeze(root) == set()
    assert not root["sft"].held_out.exists()
    drop_sums(root, "a", range(8))
    assert len(freeze(root)) == 2


def test_whole_sources_stay_out_of_the_pool_for_good(tmp_path):
    """What is dropped later of a source held out whole comes into no pool, and not into the set."""
    root = DataRoot(tmp_path)
    drop_sums(root, "a", range(7))
    drop_sums(root, "b", range(100, 105))
    frozen = freeze(root, HeldOutSettings(whole_sources=("b",)))
    assert len(frozen) == 5
    drop_sums(root, "b", range(100, 109))
    pool = assemble_pool(root["sft"])
    assert num_by_source(pool.samples) == {"a": 7}
    assert num_by_source(pool.held_out) == {"b": 9}
    assert freeze(root) == frozen


def test_whole_sources_must_be_known_to_one_of_the_stages(tmp_path):
    """A misspelt source is an error before anything is frozen; one of the other stage is none."""
    root = DataRoot(tmp_path)
    drop_sums(root, "a", range(7))
    with pytest.raises(
        ValueError, match=r"zip_pipeline\.toml: \[held_out\] whole_sources names 'A'"
    ):
        freeze(root, HeldOutSettings(whole_sources=("A",)))
    assert not root["sft"].held_out.exists()
    samples = assemble_pool(root["preference"]).parts
    settings = HeldOutSettings(whole_sources=("a",))
    assert freeze_held_out(root["preference"], samples, settings) is None


def test_whole_sources_are_found_whatever_their_batches_are_called(tmp_path):
    """A batch's name is no pattern for names of files."""
    root = DataRoot(tmp_path)
    drop_sums(root, "a", range(7))
    drop_sums(root, "b[1]*", range(100, 105))
    assert len(freeze(root, HeldOutSettings(whole_sources=("b[1]*",)))) == 5


def test_the_whole_pool_is_never_held_out(tmp_path):
    """Settings that leave nothing to select from are refused."""
    root = DataRoot(tmp_path)
    drop_sums(root, "a", range(7))
    with pytest.raises(ValueError, match="would hold out all 7 samples of the sft pool; lower"):
        freeze(root, HeldOutSettings(whole_sources=("a",)))


def test_held_out_file_tells_how_it_was_drawn(tmp_path):
    """Settings, hash and number by source are stored with the samples."""
    root = DataRoot(tmp_path)
    drop_sums(root, "a", range(40))
    freeze(root)
    frozen = read_held_out(root["sft"])
    assert frozen is not None
    assert frozen.summary() == {"hash": frozen.hash, "num_samples": 10, "sources": {"a": 10}}
    metadata = read_metadata(root["sft"].held_out)
    assert metadata["hash"] == frozen.hash
    assert json.loads(metadata["sources"]) == {"a": 10}
    assert json.loads(metadata["settings"]) == {
        "share": 0.25,
        "seed": 0,
        "min_source_samples": 8,
        "max_source_samples": 200,
        "whole_sources": [],
    }


def test_callers_at_once_end_with_one_set(tmp_path):
    """Of four that would draw other sets at the same moment one draws, and all return its set."""
    root = DataRoot(tmp_path)
    drop_sums(root, "a", range(40))
    barrier, found = threading.Barrier(4), []

    def draw(seed: int) -> None:
        settings = HeldOutSettings(share=0.25, min_source_samples=8, seed=seed)
        barrier.wait(timeout=10)
        found.append(frozenset(freeze(root, settings)))

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(found[0]) == 10


def test_settings_come_from_their_table_and_have_defaults(tmp_path):
    """Without the file or its table the defaults hold; what other tables say is not looked at."""
    root = DataRoot(tmp_path)
    assert held_out_settings(root) == HeldOutSettings()
    file = tmp_path / "zip_pipeline.toml"
    file.write_text("[training]\nanything = 1\n")
    assert held_out_settings(root) == HeldOutSettings()
    file.write_text('[held_out]\nshare = 0.1\nseed = 4\nwhole_sources = ["a", "b"]\n')
    expected = HeldOutSettings(share=0.1, seed=4, whole_sources=("a", "b"))
    assert held_out_settings(root) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[held_out]\nshares = 0.1",
            "[held_out] shares: unknown; allowed are share, seed, min_source",
        ),
        ("[held_out]\nshare = 1.5", "[held_out] share: got 1.5; allowed are numbers, 0 to 1"),
        ("[held_out]\nshare = nan", "[held_out] share: got nan; allowed are numbers, 0 to 1"),
        ("[held_out]\nshare = true", "[held_out] share: got True; allowed are numbers, 0 to 1"),
        ("[held_out]\nseed = -1", "[held_out] seed: got -1; allowed are whole numbers, 0 to 2^63"),
        (
            "[held_out]\nmax_source_samples = 2.0",
            "[held_out] max_source_samples: got 2.0; allowed are whole numbers, 0 to 2^63",
        ),
        (
            '[held_out]\nwhole_sources = "a"',
            "[held_out] whole_sources: got 'a'; it must be a list",
        ),
        (
            "[held_out]\nwhole_sources = [1]",
            "[held_out] whole_sources.0: got 1; it must be a text",
        ),
        ("held_out = 3", "held_out must be a table [held_out], is int"),
        ("[heldout]\nshare = 0.1", "the table [heldout] is not known; allowed are the tables ["),
        ("[held_out", "not valid TOML in UTF-8: "),
    ],
)
def test_wrong_settings_are_refused_with_the_files_name(tmp_path, text, message):
    """Unknown keys and values out of range name the file and what is allowed."""
    file = tmp_path / "zip_pipeline.toml"
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        held_out_settings(DataRoot(tmp_path))
    assert str(caught.value).startswith(f"{file}: {message}")
