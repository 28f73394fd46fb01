"""Data roots that share a store: one order of what is published, whoever is killed when."""

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot, VersionStore
from zip_pipeline.entropy_law.table import read_versions, upsert_version, versions_path
from zip_pipeline.errors import UserError
from zip_pipeline.files import files_in, hashing, write_json
from zip_pipeline.pool.batches import is_current, whole_batches, write_state
from zip_pipeline.pool.held_out import read_held_out
from zip_pipeline.pool.parts import Parts
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.settings import training_settings
from zip_pipeline.store import Store
from zip_pipeline.training.tokens import configured_tokens
from zip_pipeline.workflow.integrity import verify
from zip_pipeline.workflow.sharing import (
    clean_store,
    publish_version,
    remove_batch,
    share,
    store_status,
)
from zip_pipeline.workflow.verdicts import probe_version
from zip_pipeline.workflow.versions import read_version, select_version
from zip_pipeline_tests.ingest.remote_servers import GoogleBucket
from zip_pipeline_tests.workflow.writers import (
    CONFIG,
    KilledError,
    Turns,
    Writer,
    as_writer,
    at_once,
    differing,
    disturbed,
    drop,
    entry_of,
    measure,
    new_root,
    night,
    picks,
    rows,
    take_in,
    tree,
)

pytest.importorskip("obstore")


_CONFIGS = [SelectionConfig(strategy="random", budget_samples=3, seed=seed) for seed in (1, 2)]


@contextmanager
def meanwhile(root: DataRoot, act: Callable[[], Any]) -> Iterator[list[Any]]:
    """Let ``act`` happen once a root has written a version that is not published yet.

    The list holds what came of it, if it happened.
    """
    write, told = VersionStore.write, list[Any]()

    def write_before_the_other(store: VersionStore, *arguments: Any) -> int:
        number = write(store, *arguments)
        if store.folder.is_relative_to(root.path) and not told:
            told.append(act())
        return number

    with patch.object(VersionStore, "write", write_before_the_other):
        yield told


@pytest.mark.server
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_is_a_store(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Over the wire: what is there already, who was first, what is missing, and who may not."""
    bucket = request.getfixturevalue(scheme)
    url = f"{scheme}://pool/team/data"
    a, b = (new_root(tmp_path / name, url) for name in ("a", "b"))
    drop(a, "x.jsonl", rows(9))
    share(b)
    with meanwhile(a, lambda: night(b, _CONFIGS[1])) as told:
        assert night(a, _CONFIGS[0]) == 2
    assert told == [1]
    share(b)
    assert differing(a, b) == []
    names = _names_in(bucket)
    logged = [name for name in names if "/log/" in name]
    assert logged == [f"team/data/log/000000000{n}.json" for n in range(4)]
    assert all(name.startswith(("team/data/log/", "team/data/objects/")) for name in names)
    assert clean_store(a) == (0, 0)
    monkeypatch.setattr("zip_pipeline.store._OLD", timedelta(seconds=-1))
    drop(a, "x.jsonl", rows(7))
    assert clean_store(b) == (0, 4)
    assert len([name for name in _names_in(bucket) if "/aside/" in name]) == 4
    assert clean_store(b) == (4, 0)
    none = new_root(tmp_path / "none", f"{scheme}://none/team")
    with pytest.raises(UserError, match=rf"^{scheme}://none/team: there is no such bucket; make"):
        share(none)
    gone = next(name for name in names if name in _names_in(bucket) and "/objects/" in name)
    if isinstance(bucket, GoogleBucket):
        del bucket.objects[gone]
    else:
        bucket.delete_object(Bucket="pool", Key=gone)
    with pytest.raises(UserError, match=rf"^{url}: .*(is not there|is missing); rest"):
        clean_store(a)


def _names_in(bucket: Any) -> list[str]:
    if isinstance(bucket, GoogleBucket):
        return sorted(bucket.objects)
    return [found["Key"] for found in bucket.list_objects_v2(Bucket="pool")["Contents"]]


_HELD_OUT = "[held_out]\nshare = 0.3\nmin_source_samples = 2\n"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the address of an empty store on disk."""
    (tmp_path / "store").mkdir()
    return f"file://{tmp_path}/store"


@pytest.fixture
def roots(tmp_path: Path, url: str) -> list[DataRoot]:
    """Return two empty data roots that share it."""
    return [new_root(tmp_path / name, url) for name in ("a", "b")]


def test_what_one_publishes_the_other_has(roots: list[DataRoot]) -> None:
    """Batches and versions come whole; the same drop and selection there change nothing."""
    a, b = roots
    drop(a, "x.jsonl", rows(9))
    assert night(a) == 1
    share(b)
    assert tree(b) == tree(a)
    assert len(tree(a)) == 12
    entry = entry_of(a)
    drop(b, "x.jsonl", rows(9))
    assert night(b) == 1
    assert (tree(b), entry_of(b)) == (tree(a), entry)
    assert verify(b).damages == []


def test_versions_selected_at_once_get_two_numbers(roots: list[DataRoot]) -> None:
    """Each writer is told the number that its version has in the end; both are kept as they are."""
    a, b = roots
    drop(a, "x.jsonl", rows(9))
    share(b)
    with meanwhile(a, lambda: night(b, _CONFIGS[1])) as told:
        assert night(a, _CONFIGS[0]) == 2
    assert told == [1]
    share(b)
    assert differing(a, b) == []
    seeds = [a["sft"].versions.manifest(number)["config"]["seed"] for number in (1, 2)]
    assert seeds == [2, 1]
    assert verify(a).damages == []


def test_of_two_like_versions_one_is_kept(roots: list[DataRoot]) -> None:
    """Where both select the same from the same, the second one takes the first one's, as it is."""
    a, b = roots
    drop(a, "x.jsonl", rows(9))
    share(b)
    with meanwhile(a, lambda: [night(b, config) for config in _CONFIGS]) as told:
        assert night(a, _CONFIGS[1]) == 2
    assert told == [[1, 2]]
    assert a["sft"].versions.numbers() == [1, 2]
    assert differing(a, b) == []


def test_what_others_hold_out_is_picked_by_no_version(tmp_path: Path, url: str) -> None:
    """A version that was selected meanwhile is selected again."""
    a, b = (new_root(tmp_path / name, url, _HELD_OUT) for name in ("a", "b"))
    for root, name, first in ((a, "x.jsonl", 0), (b, "y.jsonl", 10)):
        measure(root, name, rows(9, first=first))
    share(a)
    said = list[str]()
    with meanwhile(a, lambda: night(b)) as told:
        assert select_version(a["sft"], CONFIG, said.append) == 2
    assert told == [1]
    assert any("what was selected is not kept, since others held samples out" in s for s in said)
    share(b)
    assert differing(a, b) == []
    held = read_held_out(a["sft"])
    assert held is not None
    assert len(held.samples["source"].unique()) == 4
    for number in (1, 2):
        assert not {*picks(a["sft"], number)} & {*held.samples["sample_id"]}
    assert len(a["sft"].versions.manifest(2)["inputs"]) == 2


def test_a_version_that_picks_what_is_held_out_is_not_kept(tmp_path: Path, url: str) -> None:
    """As one may that was selected for an hour, while the set came in beside it."""
    a, b = (new_root(tmp_path / name, url, _HELD_OUT) for name in ("a", "b"))
    drop(a, "x.jsonl", rows(9))
    night(a)
    share(b)
    held = read_held_out(b["sft"])
    assert held is not None
    version = read_version(b["sft"], 1)
    wrong = pl.concat([version.subset, held.samples[:1]], how="diagonal")
    manifest = {**version.manifest, "created_at": "later"}
    assert publish_version(b["sft"], Parts.of(wrong), version.ledger, manifest) is None
    assert publish_version(b["sft"], Parts.of(version.subset[:1]), version.ledger, manifest) == 2
    share(a)
    assert differing(a, b) == []


def test_a_drop_of_another_content_is_refused_and_the_remedy_helps(roots: list[DataRoot]) -> None:
    """Neither is lost: the first one stays in the store, the other one with whoever has it."""
    a, b = roots
    drop(a, "x.jsonl", rows(9))
    measure(b, "x.jsonl", rows(5, first=20))
    with pytest.raises(UserError) as refusal:
        share(b)
    assert str(refusal.value) == (
        f"{b['sft'].samples('x.jsonl')}: batch 'x.jsonl' of sft was given another content in "
        f"file://{a.path.parent}/store, and has another content here, which is not published. "
        f"Rename the drop {b['sft'].raw / 'x.jsonl'} to have both; to give yours up, remove it. "
        "Either way remove x.jsonl.* of sft from quarantine, duplicates, pool, state as well"
    )
    share(a)
    (b["sft"].raw / "x.jsonl").rename(b["sft"].raw / "x2.jsonl")
    for kind in ("quarantine", "duplicates", "pool", "state"):
        for path in (b.path / kind / "sft").glob("x.jsonl.*"):
            path.unlink()
    take_in(b, "x2.jsonl")
    share(a)
    assert a["sft"].batches() == ["x.jsonl", "x2.jsonl"]
    assert differing(a, b) == []


def test_a_conflict_over_one_batch_holds_up_nothing_else(roots: list[DataRoot]) -> None:
    """It is told each time, and wins nothing by that; versions that rest on it are shared."""
    a, b = roots
    conflict = r"^\S+/b/pool/sft/x.jsonl.parquet: batch 'x.jsonl' of sft was given another content"
    measure(b, "x.jsonl", rows(5, first=20))
    measure(b, "y.jsonl", rows(4, first=40))
    drop(a, "x.jsonl", rows(9))
    with pytest.raises(UserError, match=conflict):
        share(b)
    said = list[str]()
    assert select_version(b["sft"], CONFIG, said.append) == 1
    assert re.search(conflict, said[-1])
    drop(a, "z.jsonl", rows(3, first=60))
    assert a["sft"].batches() == ["x.jsonl", "y.jsonl", "z.jsonl"]
    assert picks(a["sft"], 1) == picks(b["sft"], 1)
    for num in (3, 2):
        measure(b, "y.jsonl", rows(num, first=40))
        with pytest.raises(UserError, match=conflict) as refusal:
            share(b)
        assert "more batch" not in str(refusal.value)
    (b["sft"].raw / "x.jsonl").unlink()
    with pytest.raises(UserError, match=conflict):
        remove_batch(b["sft"], "x.jsonl")
    said.clear()
    assert clean_store(b, said.append) == (0, 8)
    assert [bool(re.search(conflict, line)) for line in said] == [True]
    for rests_on in ("", "sft/", "sft/x.jsonl"):
        with pytest.raises(UserError, match=conflict):
            share(b, rests_on=rests_on)
    for rests_on in (None, "preference/", "sft/x.jsonl2", "sft/x"):
        said.clear()
        share(b, said.append, rests_on)
        assert [bool(re.search(conflict, line)) for line in said] == [True]
    share(a)
    found = store_status(b)
    assert found is not None
    assert found.waiting == ["batch/sft/x.jsonl"]
    assert {Path(name).name.split(".jsonl")[0] for name in differing(a, b)} == {"x"}
    assert pl.read_parquet(a["sft"].samples("x.jsonl")).height == 9
    assert pl.read_parquet(b["sft"].samples("x.jsonl")).height == 5
    for kind in ("quarantine", "duplicates", "pool", "state"):
        for path in (b.path / kind / "sft").glob("x.jsonl.*"):
            path.unlink()
    share(b)
    assert differing(a, b) == []


def test_replaced_and_removed_contents_do_not_come_back(roots: list[DataRoot]) -> None:
    """A drop folder that holds an old one still is told so, and its pool stays as it is shared."""
    a, b = roots
    drop(a, "x.jsonl", rows(9))
    share(b)
    drop(b, "x.jsonl", rows(7))
    share(a)
    assert differing(a, b) == []
    with pytest.raises(UserError, match=r"raw/sft/x.jsonl: this content was replaced in file://"):
        take_in(a, "x.jsonl")
    assert differing(a, b) == []
    (b["sft"].raw / "x.jsonl").unlink()
    remove_batch(b["sft"], "x.jsonl")
    share(a)
    assert (tree(a), tree(b)) == ({}, {})
    with pytest.raises(UserError, match=r"raw/sft/x.jsonl: this content was removed in file://"):
        take_in(a, "x.jsonl")
    assert tree(a) == {}
    drop(a, "x.jsonl", rows(3))
    share(b)
    assert b["sft"].batches() == ["x.jsonl"]


def test_a_batch_is_removed_only_without_its_drop(roots: list[DataRoot]) -> None:
    """Else it would be ingested again; a name that is none is refused."""
    a, _ = roots
    drop(a, "x.jsonl", rows(9))
    with pytest.raises(UserError, match=r"raw/sft/x.jsonl: would be ingested again; remove it"):
        remove_batch(a["sft"], "x.jsonl")
    with pytest.raises(UserError, match=r"'y.jsonl' is not in the pool of sft; it has x.jsonl"):
        remove_batch(a["sft"], "y.jsonl")


def test_a_batch_is_removed_without_a_store_as_well(tmp_path: Path) -> None:
    """With all that was made of it, and nothing else."""
    root = new_root(tmp_path, "")
    for name, first in (("x.jsonl", 0), ("y.jsonl", 10)):
        drop(root, name, rows(5, first=first))
    before = tree(root)
    write_json(root["sft"].ngrams("x.jsonl"), {})
    write_json(root["sft"].signal("loss", "x.jsonl"), {})
    (root["sft"].raw / "x.jsonl").unlink()
    remove_batch(root["sft"], "x.jsonl")
    assert tree(root) == {name: c for name, c in before.items() if "/x.jsonl" not in name}
    assert not list(tmp_path.rglob("x.jsonl.*"))
    assert not (tmp_path / ".store.json").exists()


def test_what_is_gone_here_comes_back(roots: list[DataRoot]) -> None:
    """The store is a backup: of a version, of a batch or a part of it, of the held-out set."""
    a, _ = roots
    drop(a, "x.jsonl", rows(9))
    night(a)
    before = tree(a)
    shutil.rmtree(a["sft"].versions.path(1))
    a["sft"].samples("x.jsonl").unlink()
    share(a)
    assert tree(a) == before
    for kind in ("pool", "state", "quarantine", "duplicates"):
        shutil.rmtree(a.path / kind)
    share(a)
    assert tree(a) == before


def test_a_version_that_was_changed_here_is_not_published(roots: list[DataRoot]) -> None:
    """It is named, and comes back once it is moved away."""
    a, _ = roots
    drop(a, "x.jsonl", rows(9))
    night(a)
    before = tree(a)
    place = a["sft"].versions.path(1)
    (place / "hashes.json").write_text((place / "hashes.json").read_text() + " ")
    with pytest.raises(UserError, match=r"v000001: was changed since it was shared by .*; move it"):
        share(a)
    shutil.rmtree(place)
    share(a)
    assert tree(a) == before


def test_a_table_that_is_written_anew_meanwhile_is_no_damaged_one(roots: list[DataRoot]) -> None:
    """What is published is what lies here then."""
    a, b = roots
    measure(a, "x.jsonl", rows(9))
    add = Store.add

    def add_after_another_ingestion(store: Store, path: Path, sha256: str) -> bool:
        if len(rows_of(a)) == 9:
            measure(a, "x.jsonl", rows(7))
        return add(store, path, sha256)

    def rows_of(root: DataRoot) -> list[object]:
        return pl.read_parquet(root["sft"].samples("x.jsonl"))["sample_id"].to_list()

    with patch.object(Store, "add", add_after_another_ingestion):
        share(a)
    share(b)
    assert differing(a, b) == []
    assert len(rows_of(b)) == 7


def test_a_damaged_table_is_not_published(roots: list[DataRoot]) -> None:
    """What lies here has to be what was written."""
    a, _ = roots
    measure(a, "x.jsonl", rows(9))
    path = a["sft"].duplicates("x.jsonl")
    record = path.with_suffix(".hashes.json")
    record.write_text(re.sub("[0-9a-f]{64}", "0" * 64, record.read_text()))
    with pytest.raises(UserError, match=rf"{path}: is not as it was written; restore"):
        share(a)


def test_measures_of_versions_are_shared_column_by_column(roots: list[DataRoot]) -> None:
    """What one measured and what the other one wrote at once is in both tables."""
    a, b = roots
    drop(a, "x.jsonl", rows(9))
    night(a)
    row = {"stage": "sft", "version": 1, "R": 2.0, "L": 1.5, "verdict": "risk"}
    upsert_version(a, row)
    upsert_version(a, {"stage": "sft", "version": 7, "R": 3.0})
    share(a)
    share(b)
    assert read_versions(b).rows() == read_versions(a).filter(version=1).rows()
    upsert_version(a, {"stage": "sft", "version": 1, "Z": -1.0, "L": 1.4})
    upsert_version(b, {"stage": "sft", "version": 1, "override": "Ada", "L": 1.3})
    share(a)
    share(b)
    share(a)
    (found,) = read_versions(b).to_dicts()
    assert [found[name] for name in ("R", "L", "Z", "override")] == [2.0, 1.4, -1.0, "Ada"]
    assert read_versions(a).filter(version=1).to_dicts() == [found]
    versions_path(b).unlink()
    share(b)
    assert read_versions(b).to_dicts() == [found]


@pytest.mark.parametrize("models", [False, True])
def test_probes_are_shared_and_models_where_they_are_asked_for(
    tmp_path: Path, url: str, models: bool
) -> None:
    """With their hashes, and without what belongs to one machine."""
    setting = f"models = {str(models).lower()}\n"
    a, b = (new_root(tmp_path / name, url, setting) for name in ("a", "b"))
    drop(a, "x.jsonl", rows(9))
    night(a)
    folder = a["sft"].models(1)
    for name in ("probe/loss.json", "training.json", "model/config.json"):
        path = folder / name
        with hashing(path.parent if path.parent.name == "model" else path):
            write_json(path, {"L": 1.0})
    for name in ("probe/job.json", "job.json", "checkpoints/1/whole", "evaluation/loss.json"):
        write_json(folder / name, {})
    share(a)
    share(b)
    place = b["sft"].models(1)
    names = {path.relative_to(place).as_posix() for path in files_in(place)}
    probe = {"probe/loss.json", "probe/loss.hashes.json", "probe/job.json"}
    model = {"training.json", "training.hashes.json", "model/config.json", "model.hashes.json"}
    assert names == (probe | model | {"evaluation/loss.json"} if models else probe)
    assert verify(b).damages == []
    entry = entry_of(b)
    share(a)
    share(b)
    assert (entry_of(a), entry_of(b)) == (entry, entry)


def test_what_another_root_has_probed_is_not_probed_again(roots: list[DataRoot]) -> None:
    """Wherever the roots lie; the verdict is the same one."""
    a, b = roots
    drop(a, "x.jsonl", rows(9))
    night(a)
    training = training_settings(a.path).job()
    loss = {"L": 1.5, "L_spread": 0.1, "series": "s", "num_steps": 3, "num_steps_wanted": 3}

    def run(_: str, jobs: Mapping[Path, Mapping[str, Any]]) -> None:
        for path, job in jobs.items():
            write_json(path, job)
            with hashing(path.with_name("loss.json")):
                write_json(path.with_name("loss.json"), loss)

    def refuse(*_: object) -> None:
        raise AssertionError("probed again")

    found = probe_version(a, read_version(a["sft"], 1), training, run)
    share(a)
    share(b)
    again = probe_version(b, read_version(b["sft"], 1), training, refuse)
    assert (again.loss, again.row) == (loss, found.row)
    entry = entry_of(b)
    share(b)
    assert entry_of(b) == entry


def test_a_root_with_versions_of_its_own_begins_a_store_and_joins_none(
    tmp_path: Path, roots: list[DataRoot], url: str
) -> None:
    """Its numbers are taken there; what was measured of them would be of others."""
    a, _ = roots
    drop(a, "x.jsonl", rows(9))
    night(a)
    other = new_root(tmp_path / "other", "")
    drop(other, "y.jsonl", rows(9, first=20))
    night(other)
    before = tree(other)
    (other.path / "zip_pipeline.toml").write_text(f'[store]\nurl = "{url}"\n')
    with pytest.raises(
        UserError, match=r"v000001: is none of the versions in .*share it by a stor"
    ):
        share(other)
    assert {name: tree(other).get(name) for name in before} == before
    (tmp_path / "second").mkdir()
    (other.path / "zip_pipeline.toml").write_text(f'[store]\nurl = "file://{tmp_path}/second"\n')
    share(other)
    new = new_root(tmp_path / "new", f"file://{tmp_path}/second")
    share(new)
    assert differing(other, new) == []


def test_another_store_under_the_address_is_refused(tmp_path: Path, roots: list[DataRoot]) -> None:
    """An emptied one too: what is here would count as removed, or as new, by accident."""
    a, _ = roots
    drop(a, "x.jsonl", rows(9))
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "store").mkdir()
    with pytest.raises(
        UserError, match=r"store: is empty, and .*/a was shared by one with entries"
    ):
        share(a)
    (a.path / ".store.json").unlink()
    share(a)
    assert (tmp_path / "store" / "log" / "0000000001.json").exists()


def test_a_store_that_went_back_is_refused_and_the_remedy_helps(
    tmp_path: Path, roots: list[DataRoot]
) -> None:
    """What it has lost would stay unpublished, and its numbers would be given to others."""
    a, b = roots
    store = tmp_path / "store"
    drop(a, "x.jsonl", rows(9))
    shutil.copytree(store, tmp_path / "backup")
    night(a)
    share(b)
    shutil.rmtree(store)
    shutil.copytree(tmp_path / "backup", store)
    words = r"store: lacks entry 2, which \S+/a has taken in, as after a restore of an older backup"
    for act in (share, store_status):
        with pytest.raises(UserError, match=words):
            act(a)
    other = new_root(tmp_path / "other", f"file://{store}")
    share(other)
    night(other, _CONFIGS[1])
    with pytest.raises(UserError, match=words):
        share(a)
    (tmp_path / "new").mkdir()
    for root in (a, b):
        (root.path / "zip_pipeline.toml").write_text(f'[store]\nurl = "file://{tmp_path}/new"\n')
        (root.path / ".store.json").unlink()
        share(root)
    assert differing(a, b) == []
    assert a["sft"].versions.numbers() == [1]


def test_what_an_earlier_release_noted_of_a_store_is_enough(roots: list[DataRoot]) -> None:
    """It had no id of the entry; from then on there is one."""
    a, b = roots
    drop(a, "x.jsonl", rows(9))
    share(b)
    path = b.path / ".store.json"
    known = json.loads(path.read_text())
    assert len(known.pop("id")) == 32
    path.write_text(json.dumps(known))
    share(b)
    assert json.loads(path.read_text())["id"]
    (a.path.parent / "store" / "log" / "0000000001.json").unlink()
    path.write_text(json.dumps(known))
    with pytest.raises(UserError, match="lacks entry 1"):
        share(b)


def test_what_is_half_in_a_data_root_is_named(roots: list[DataRoot]) -> None:
    """As a copy that was broken off leaves it."""
    a, _ = roots
    drop(a, "x.jsonl", rows(9))
    night(a)
    place, state = a["sft"].versions.path(1), a.path / ".store.json"
    for name in ("hashes.json", "subset.parquet"):
        (place / name).unlink()
    with pytest.raises(UserError, match=r"v000001/subset.parquet: the file is missing; restore"):
        share(a)
    shutil.rmtree(place)
    state.write_text("{}")
    with pytest.raises(UserError, match=r"\.store.json: does not tell what was shared; remove it"):
        share(a)
    state.unlink()
    share(a)
    assert a["sft"].versions.numbers() == [1]


@pytest.mark.parametrize(
    ("unit", "content", "words"),
    [
        ("batch/sft/..", {"files": {}}, "batch '..' is no name"),
        ("batch/sft/a/../../b", {"files": {}}, "is no name"),
        ("version/sft/../1", {"files": {}}, "is no name"),
        ("version/sft/1", {"files": {"../x": "0" * 64}, "content": ""}, "has unknown files"),
        ("probe/sft/1", {"files": {"../loss.json": "0" * 64}}, "is no name for a file of a model"),
        ("batch/sft/x", {"files": {"pool": "../../x"}}, "an entry of its log is damaged"),
        ("batch/sft/x", None, "an entry of its log is damaged"),
    ],
)
def test_no_name_in_a_store_leads_out_of_its_folder(
    roots: list[DataRoot], url: str, unit: str, content: Any, words: str
) -> None:
    """Nothing is written but where the kind of a unit belongs."""
    a, b = roots
    drop(a, "x.jsonl", rows(9))
    night(a)
    share(b)
    store = Store(url)
    sha256 = hashlib.sha256(b"x").hexdigest()
    (a.path / "x").write_bytes(b"x")
    store.add(a.path / "x", sha256)
    if content:
        files = content["files"].items()
        content["files"] = {n: sha256 if h == "0" * 64 else h for n, h in files}
    if unit == "version/sft/1":
        unit = "version/sft/2"
    store.claim(entry_of(b) + 1, {"units": {unit: content}})
    before = {path: path.read_bytes() for path in b.path.parent.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=re.escape(words)):
        share(b)
    after = {path: path.read_bytes() for path in b.path.parent.rglob("*") if path.is_file()}
    assert after == before


def test_the_state_of_a_root_and_its_store_is_told(roots: list[DataRoot]) -> None:
    """What is behind, and what waits; looking changes nothing."""
    a, b = roots
    drop(a, "x.jsonl", rows(9))
    share(b)
    night(a)
    measure(b, "y.jsonl", rows(5, first=20))
    before = tree(b)
    found = store_status(b)
    assert found is not None
    assert (found.entry, found.num_behind, found.waiting) == (1, 1, ["batch/sft/y.jsonl"])
    assert tree(b) == before


def test_files_of_replaced_batches_can_be_removed_from_the_store(
    tmp_path: Path, roots: list[DataRoot]
) -> None:
    """Days later; what the newest contents name stays, and a new root can take it in."""
    a, b = roots
    drop(a, "x.jsonl", rows(9))
    drop(a, "x.jsonl", rows(7))
    for found in ((0, 4), (0, 4), (4, 0)):
        assert clean_store(a) == found
        for path in (tmp_path / "store").rglob("?" * 64):
            os.utime(path, (0, 0))
    share(b)
    assert differing(a, b) == []


_NAMES = ("w.jsonl", "x.jsonl", "y.jsonl", "z.jsonl")


class _Life:
    """What a writer does, and what it was told."""

    def __init__(self, writer: Writer, draw: random.Random) -> None:
        self.writer, self.draw, self.root = writer, draw, writer.root
        self.told: dict[int, list[str]] = {}

    def live(self) -> None:
        """Drop, remove and select; go on after each kill."""
        for _ in range(4):
            kind = self.draw.choice(["none", "none", "store", "file"])
            count = self.draw.randint(1, 60 if kind == "file" else 25)
            if kind == "store":
                self.writer.store_operations = self.draw.choice((count, -count))
            self.writer.file_operations = count if kind == "file" else 0
            try:
                with as_writer(self.writer, 0 if self.root.path.name == "a" else 1):
                    self.act()
            except KilledError:
                pass

    def act(self) -> None:
        """Do one thing; where others gave a drop another content, give up one's own."""
        name, what = self.draw.choice(_NAMES[1:]), self.draw.random()
        folder = self.root["sft"]
        try:
            if what < 0.3:
                drop(
                    self.root,
                    name,
                    rows(self.draw.randint(4, 6), first=10 * self.draw.randrange(3)),
                )
            elif what < 0.37 and len(folder.batches()) > 1 and name in folder.batches():
                (folder.raw / name).unlink(missing_ok=True)
                remove_batch(folder, name)
            elif folder.batches():
                number = night(self.root, self.draw.choice(_CONFIGS))
                self.told[number] = picks(folder, number)
        except UserError as error:
            self.give_up(str(error), is_patient=True)

    def give_up(self, words: str, *, is_patient: bool = False) -> None:
        """Do what a refusal says, at once or some day."""
        folder = self.root["sft"]
        name = next((name for name in _NAMES if name in words), "")
        assert name, words
        if "another content here" in words and is_patient and self.draw.random() < 0.5:
            # A person takes their time, and selects meanwhile.
            with suppress(UserError):
                select_version(folder, self.draw.choice(_CONFIGS), lambda _: None)
            return
        if "another content here" in words or "this content was" in words:
            (folder.raw / name).unlink(missing_ok=True)
        else:
            # Of a killed ingestion: the next one does all.
            assert "no compression state" in words or "ingest" in words, words
        if "another content here" in words:
            for kind in ("quarantine", "duplicates", "pool", "state"):
                for path in (self.root.path / kind / "sft").glob(f"{name}.*"):
                    path.unlink()


def _settle(root: DataRoot, life: _Life) -> None:
    """Take in each drop until nothing is refused, as the next runs and a person would."""
    folder = root["sft"]
    for _ in range(10):
        try:
            share(root)
            for name in sorted({path.name for path in folder.raw.iterdir()}):
                take_in(root, name)
            for name in whole_batches(folder):
                if not is_current(folder, name):
                    write_state(folder, name, tokens=configured_tokens(root.path))
            share(root)
        except UserError as error:
            life.give_up(str(error))
        else:
            return
    raise AssertionError("refused again and again")


def _interleave(folder: Path, seed: int) -> int:
    (folder / "store").mkdir(parents=True)
    url, draw = f"file://{folder}/store", random.Random(seed)
    turns = Turns(draw)
    writers = [Writer(new_root(folder / name, url, _HELD_OUT)) for name in ("a", "b")]
    lives = [_Life(writer, draw) for writer in writers]
    drop(writers[0].root, "w.jsonl", rows(8, first=50))
    with disturbed(turns):
        at_once(turns, [life.live for life in lives], writers)
    for _ in range(2):
        for life in lives:
            _settle(life.root, life)
    a, b = (life.root for life in lives)
    assert (found := differing(a, b)) == [], found
    numbers = a["sft"].versions.numbers()
    assert numbers == list(range(1, len(numbers) + 1))
    for life in lives:
        for number, told in life.told.items():
            assert picks(a["sft"], number) == told
    made = [{**a["sft"].versions.manifest(n), "version": 0} for n in numbers]
    assert all(one != other for n, one in enumerate(made) for other in made[:n])
    held = read_held_out(a["sft"])
    ids = set(held.samples["sample_id"]) if held else set()
    assert all(not ids & set(picks(a["sft"], number)) for number in numbers)
    assert [line for line in verify(a).damages if "gone from the pool" not in line] == []
    return len(numbers)


# All 200 that have been tried: ZIP_INTERLEAVINGS=200, some six minutes on two cores.
NUM_INTERLEAVINGS = int(os.environ.get("ZIP_INTERLEAVINGS", "40"))


@pytest.mark.slow
@pytest.mark.parametrize("tens", range(NUM_INTERLEAVINGS // 10))
def test_no_version_is_lost_doubled_or_half_whoever_is_killed_when(
    tmp_path: Path, tens: int
) -> None:
    """Two writers take turns at each word with the store, and die before or after any of them."""
    assert sum(_interleave(tmp_path / str(seed), seed) for seed in range(10 * tens, 10 * tens + 10))
