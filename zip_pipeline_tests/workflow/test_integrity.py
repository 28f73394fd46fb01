"""What was damaged is named with its remedy: by ``verify``, and by whatever would have used it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.table import upsert_version
from zip_pipeline.errors import UserError
from zip_pipeline.files import hashing, write_json
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import write_state
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.training.tokens import configured_tokens
from zip_pipeline.workflow.integrity import verify
from zip_pipeline.workflow.versions import current_version, select_version
from zip_pipeline_tests.cli.commands import call, call_well
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl

_CONFIG = SelectionConfig(budget_samples=6, strategy="long_range")
_VERSION = "versions/sft/v000002"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root of two batches, two versions, a probe and a model."""
    root = DataRoot(tmp_path_factory.mktemp("whole"))
    folder = root["sft"]
    folder.raw.mkdir(parents=True)
    for number, batch in enumerate(("a.jsonl", "b.jsonl")):
        write_jsonl(folder.raw / batch, ["{", *sft_records(15, first=15 * number)])
        ingest_drop(folder, batch)
        write_state(folder, batch, tokens=configured_tokens(root.path))
        select_version(folder, _CONFIG, lambda _: None)
    upsert_version(root, {"stage": "sft", "version": 2, "R": 2.0, "verdict": "first"})
    for name in ("probe/loss.json", "training.json", "model/config.json"):
        path = folder.models(2) / name
        with hashing(path.parent if path.parent.name == "model" else path):
            write_json(path, {"L": 1.0})
    return root.path


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> DataRoot:
    """Return a copy of that root, in which a test may damage what it likes."""
    return DataRoot(Path(shutil.copytree(whole, tmp_path / "data")))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _edit(path: Path) -> None:
    manifest = json.loads(path.read_text()) | {"num_picked": 7}
    path.write_text(json.dumps(manifest))


def _holding(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _without_hashes(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return a damage to a version of a release that kept no hashes."""

    def damaged(path: Path) -> None:
        path.with_name("hashes.json").unlink()
        damage(path)

    return damaged


_NESTED = b"[" * 100_000
_OF_MANIFESTS: dict[str, Callable[[Path], object]] = {
    "is missing": Path.unlink,
    "is empty": _holding(b""),
    "holds nothing": _holding(b"{}"),
    "is a list": _holding(b"[]"),
    "is null": _holding(b"null"),
    "is no UTF-8": _holding(b'{"a": "\xff"}'),
    "is nested": _holding(_NESTED),
    "has odd types": _holding(b'{"stage": 1, "config": [], "created_at": null, "inputs": "x"}'),
}
_OF_TABLES: dict[str, Callable[[Path], object]] = {"is missing": Path.unlink, "is cut": _cut}
_DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{f"manifest {n}": (f"{_VERSION}/manifest.json", d) for n, d in _OF_MANIFESTS.items()},
    "manifest is edited": (f"{_VERSION}/manifest.json", _edit),
    **{
        f"old manifest {name}": (f"{_VERSION}/manifest.json", _without_hashes(damage))
        for name, damage in _OF_MANIFESTS.items()
        if name not in ("is missing", "is empty", "is a list", "is no UTF-8")
    },
    **{
        f"{table} {name}": (f"{_VERSION}/{table}.parquet", damage)
        for table in ("ledger", "subset")
        for name, damage in (_OF_TABLES | {"is flipped": _flip}).items()
    },
    **{
        f"old ledger {name}": (f"{_VERSION}/ledger.parquet", _without_hashes(damage))
        for name, damage in _OF_TABLES.items()
    },
    "hashes are a list": (f"{_VERSION}/hashes.json", _holding(b"[]")),
    "hashes are cut": (f"{_VERSION}/hashes.json", _cut),
    "hashes are of a later release": (f"{_VERSION}/hashes.json", _holding(b'{"layout": 99}')),
    "an empty folder is named as a version": ("versions/sft/v000099", Path.mkdir),
    "a folder is nearly named as a version": ("versions/sft/v7", Path.mkdir),
    "a file is named as a version": ("versions/sft/v000003", Path.touch),
    **{
        f"{kind} {name}": (f"{kind}/sft/a.jsonl.parquet", damage)
        for kind in ("pool", "quarantine", "duplicates", "state")
        for name, damage in (_OF_TABLES | {"is flipped": _flip}).items()
    },
    **{
        f"table of the law {name}": ("entropy_law/versions.parquet", damage)
        for name, damage in {"is cut": _cut, "is flipped": _flip}.items()
    },
    "loss is cut": ("models/sft/v000002/probe/loss.json", _cut),
    "loss is a list": ("models/sft/v000002/probe/loss.json", _holding(b"[]")),
}
_COMMANDS = ("versions", "status", "quarantine", "trace", "diff", "report", "export", "train-plan")


def _arguments(root: DataRoot, command: str, sample_id: str) -> list[str | Path]:
    given: dict[str, list[str | Path]] = {
        "trace": [sample_id],
        "diff": ["1", "2"],
        "report": ["2"],
        "export": ["2", root.path / "out", "--to", "messages"],
        "train-plan": ["tiny", "2"],
    }
    return [command, *given.get(command, []), "--data-root", root.path]


@pytest.mark.slow
@pytest.mark.parametrize("name", _DAMAGES)
def test_each_command_names_the_damaged_file_and_its_remedy_or_does_without(
    root: DataRoot, name: str
) -> None:
    """One line and no traceback; ``verify`` always tells, and no version is made of it."""
    file, damage = _DAMAGES[name]
    sample_id = root["sft"].versions.subset(1).collect()["sample_id"][0]
    damage(root.path / file)
    told = [call(*_arguments(root, command, sample_id)) for command in _COMMANDS]
    verified = call("verify", "--data-root", root.path)
    assert verified.exit_code == 2
    lines = []
    for command, result in zip((*_COMMANDS, "verify"), [*told, verified], strict=True):
        assert result.exit_code in (0, 2), (command, result.output, result.exception)
        lines += [(command, line) for line in result.stderr.splitlines() if line]
    assert lines
    for command, line in lines:
        assert line.startswith("Error: "), (command, line)
        assert file.removesuffix("/manifest.json") in line, (command, line)
        assert any(word in line for word in ("restore", "move it away", "release", "ingest")), line
    _select_or_refuse(root, file)


def _select_or_refuse(root: DataRoot, file: str) -> None:
    """Select what a night would: from what is whole, or not at all."""
    config = SelectionConfig(budget_samples=5, strategy="long_range")
    before, number, refusal = root["sft"].versions.numbers(), None, file
    try:
        number = current_version(root["sft"], config)
        number = select_version(root["sft"], config, lambda _: None)
    except UserError as error:
        refusal = str(error)
    assert file.removesuffix("/manifest.json") in refusal or "batch 'a.jsonl' is gone" in refusal
    assert root["sft"].versions.numbers() == [*before, *([] if number is None else [number])]
    if number is not None:
        assert not file.startswith(("pool", "state"))
        assert root["sft"].versions.manifest(number)["num_picked"] == 5


def test_a_whole_root_is_told_as_such(root: DataRoot) -> None:
    """So it is after a restore from a backup, whatever the copy does to times and rights."""
    found = verify(root)
    assert (found.damages, found.not_hashed) == ([], [])
    # Two batches of four tables, two versions of three files, a probe, a record and a model.
    assert found.num_files == 2 * 4 + 2 * 3 + 3
    said = call_well("verify", "--data-root", root.path)
    assert said == "17 files checked: all are as they were written.\n"
    assert "0 files checked" in call_well(
        "verify", "--stage", "preference", "--data-root", root.path
    )


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        (f"{_VERSION}/ledger.parquet", _flip, "was changed since it was written; restore"),
        (f"{_VERSION}/manifest.json", _edit, f"{_VERSION} from a backup, or move it away and sel"),
        (f"{_VERSION}/subset.parquet", Path.unlink, "is missing; restore"),
        (f"{_VERSION}/notes.txt", Path.touch, "was added; move it away"),
        ("versions/sft/v7", Path.mkdir, "was added: it is no version; move it away"),
        ("pool/sft/b.jsonl.parquet", _flip, "or ingest the batch 'b.jsonl' of sft again"),
        ("duplicates/sft/b.jsonl.parquet", Path.unlink, "is missing; restore it from a backup"),
        ("state/sft/a.jsonl.parquet", _flip, "or materialise sft/compression_state for 'a.jsonl'"),
        ("models/sft/v000002/model/config.json", _flip, "v000002/model to train it again"),
        ("models/sft/v000002/model/added.bin", Path.touch, "was added; move it away"),
        ("models/sft/v000002/training.json", _flip, "v000002/model to train it again"),
        ("models/sft/v000002/probe/loss.json", Path.unlink, "or remove it to measure it again"),
        ("entropy_law/versions.parquet", _flip, "the next version starts a new table"),
    ],
)
def test_verify_names_each_file_that_differs_and_the_remedy(
    root: DataRoot, file: str, damage: Callable[[Path], object], words: str
) -> None:
    """The file, what became of it, and what to do; nothing else is told."""
    damage(root.path / file)
    (line,) = verify(root).damages
    assert line.startswith(f"{root.path / file}: ")
    assert words in line


def test_files_without_hashes_are_told_as_such(root: DataRoot) -> None:
    """A root of an earlier release is read as before, and what can be told without hashes is."""
    for record in [*root.path.rglob("*hashes.json")]:
        record.unlink()
    found = verify(root)
    assert (found.damages, found.num_files) == ([], 0)
    assert len(found.not_hashed) == 2 * 4 + 2
    said = call_well("verify", "--data-root", root.path)
    assert "not hashed, since an earlier release wrote it: 10 files: pool/sft/a.jsonl" in said
    assert select_version(root["sft"], _CONFIG, lambda _: None) == 3
    _cut(root.path / f"{_VERSION}/ledger.parquet")
    root["sft"].samples("a.jsonl").unlink()
    cut, gone = sorted(verify(root).damages, key=lambda line: "gone" in line)
    assert "v000002/ledger.parquet: cannot be read" in cut
    assert "batch 'a.jsonl' is gone from the pool of sft" in gone


def test_a_batch_that_comes_again_has_the_hashes_of_its_new_tables(root: DataRoot) -> None:
    """Also where its ingestion was stopped in between: then nothing is claimed of it."""
    folder = root["sft"]
    _flip(folder.samples("a.jsonl"))
    ingest_drop(folder, "a.jsonl")
    assert verify(root).damages == []
    table = pl.read_parquet(folder.samples("a.jsonl"))

    def write_and_stop() -> None:
        with hashing(folder.samples("a.jsonl")):
            table.head(3).write_parquet(folder.samples("a.jsonl"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    found = verify(root)
    assert (found.damages, found.not_hashed) == ([], [folder.samples("a.jsonl")])
