"""A version, or what was selected from files, to a folder that a trainer reads, and to the hub."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError, require
from zip_pipeline.files import write_atomically, write_bytes, write_json
from zip_pipeline.hub import without_secrets
from zip_pipeline.report.exports import Table, card, format_named, tables_of, write_rows
from zip_pipeline.samples import TURN_COLUMNS, Stage, sample_of, with_all_columns
from zip_pipeline.workflow.versions import read_version

RECORD = "export.json"
"""What stands in the folder of an export, and of which samples."""
CARD = "README.md"
# All names that an export may write; of a hub repository no others are ever removed.
_NAMES = (
    *(f"{name}.{kind}" for name in ("train", "pairs", "unpaired") for kind in ("jsonl", "parquet")),
    *(f"{trainer}_{how}.yaml" for trainer in ("trl", "axolotl") for how in ("sft", "dpo", "kto")),
    "dataset_info.json",
)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Export:
    """A folder that was written.

    Args:
        folder: where it is.
        title: what it holds, as ``sft version 3``.
        files: the names of the files, the record of the export last.
        tables: the rows of each, with what was refused and dropped.
        unread: fields of the records that no format reads, and in how many rows of the pool.
        uses: for each table with rows the command, or the line of Python, that takes them.
    """

    folder: Path
    title: str
    files: tuple[str, ...]
    tables: tuple[Table, ...] = field(repr=False)
    unread: Mapping[str, int]
    uses: dict[str, str]

    @property
    def num_rows(self) -> dict[str, int]:
        """The number of rows by table: ``train``, or ``pairs`` and ``unpaired``."""
        return {table.name: len(table.rows) for table in self.tables}

    @property
    def refused(self) -> dict[str, dict[str, int]]:
        """How many samples the format has no place for, by table and reason."""
        return {table.name: table.reasons() for table in self.tables if table.refused}

    @property
    def dropped(self) -> dict[str, dict[str, int]]:
        """What rows were written without, by table, and how many samples have it."""
        return {table.name: table.dropped for table in self.tables if table.dropped}

    def push(self, repository: str, *, dry_run: bool = False) -> str:
        """Upload the export to a data set repository of the Hugging Face hub, in one commit.

        A repository that is made for it is private. What an earlier export wrote there, and this
        one does not, is removed in the same commit; other files stay.

        Args:
            repository: ``ORG/NAME``.
            dry_run: only check; nothing is sent, and no network is needed.

        Returns:
            The address of the commit, or of the repository in a dry run.

        Raises:
            UserError: no such name of a repository, or the hub cannot be reached or refuses.
        """
        check_repository(repository)
        if dry_run:
            return f"https://huggingface.co/datasets/{repository}"
        from huggingface_hub import HfApi

        api = HfApi()
        try:
            api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                repo_type="dataset",
                folder_path=self.folder,
                allow_patterns=list(self.files),
                delete_patterns=list(_NAMES),
                commit_message=self.title,
            )
        except Exception as error:  # noqa: BLE001 - its library has many kinds
            reason = without_secrets(str(error).strip().partition("\n")[0])
            raise UserError(
                f"--push: {repository} cannot be written ({reason}); log in with hf auth login, or "
                f"name a repository that you may write. The export is in {self.folder}"
            ) from None
        return str(commit.commit_url)


def export_version(
    root: DataRoot | Path | str,
    stage: Stage,
    version: int,
    format: str,
    folder: Path | str,
    *,
    force: bool = False,
) -> Export:
    """Write a version as the rows that a trainer takes, as ``zip-pipeline export`` does.

    Personal data that the version masks is masked: rows are made of the turns that are trained
    on, never of the records as they came.

    Args:
        root: the data root.
        stage: ``sft`` or ``preference``.
        version: the number of the version.
        format: ``messages``, ``sharegpt``, ``alpaca``, ``trl``, ``axolotl``, ``llamafactory`` or
            ``datasets``.
        folder: where to write; made where there is none.
        force: replace an earlier export, and write beside other files.

    Returns:
        What was written, and what of it the format could not carry.

    Raises:
        UserError: no such version or format, the format has no place for any sample, or something
            lies in the folder.
    """
    data_root = root if isinstance(root, DataRoot) else DataRoot(Path(root))
    check_folder(Path(folder), force=force)
    stored = read_version(data_root[stage], version)
    title = f"{stage} version {version}"
    return export_subset(
        stored.subset, stage, format, Path(folder), title, stored.manifest, force=force
    )


def export_subset(
    subset: pl.DataFrame,
    stage: Stage,
    format: str,
    folder: Path,
    title: str,
    manifest: Mapping[str, Any],
    *,
    force: bool = False,
) -> Export:
    """Write the picks of a selection as :func:`export_version` does.

    The record of the export appears last and goes first, so where it is there it is right.
    """
    kind = format_named(format)
    if not set(TURN_COLUMNS[stage]) <= set(subset.columns):
        raise UserError(f"format: {format} is made of samples of {stage}, these rows are none")
    rows = with_all_columns(subset.lazy(), stage).collect().iter_rows(named=True)
    samples = [(row["sample_id"], sample_of(row, stage)) for row in rows]
    tables = tables_of(kind, samples, stage)
    filled = [table for table in tables if table.rows]
    if not filled:
        reasons = {why: num for table in tables for why, num in table.reasons().items()}
        words = ", ".join(f"{num:,} with {why}" for why, num in reasons.items()) or "there are none"
        raise UserError(f"format: {format} has no place for any sample: {words}; take another one")
    check_folder(folder, force=force)
    _remove_earlier(folder)
    for table in filled:
        write_atomically(folder / f"{table.name}{kind.suffix}", partial(write_rows, table=table))
    texts = kind.ready(filled, title) | {CARD: card(kind, filled, title, manifest)}
    for name, text in texts.items():
        write_bytes(folder / name, text.encode())
    files = [*(f"{table.name}{kind.suffix}" for table in filled), *texts]
    write_json(folder / RECORD, _record(title, format, files, tables))
    uses = {table.name: kind.use(table, title) for table in filled}
    unread = manifest.get("unread_fields") or {}
    return Export(folder, title, (*files, RECORD), tuple(tables), unread, uses)


def _record(title: str, format: str, files: list[str], tables: list[Table]) -> dict[str, object]:
    return {
        "title": title,
        "format": format,
        "files": files,
        "tables": {
            table.name: {
                "num_rows": len(table.rows),
                "refused": dict(table.refused),
                "dropped": table.dropped,
                "sample_ids": table.sample_ids,
            }
            for table in tables
        },
    }


def check_repository(name: str) -> None:
    """Raise UserError where this is no name of a repository, or the hub's library is missing."""
    if not _REPOSITORY.fullmatch(name):
        raise UserError(f"--push: got {name!r}; write it as ORG/NAME")
    require("huggingface_hub", "--push")


def check_folder(folder: Path, *, force: bool = False) -> None:
    """Raise UserError where something lies in the folder, unless a person says so."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"{folder}: is not empty; name another folder, or give --force to replace an earlier "
            "export there (files of other names stay)"
        )


def is_export(folder: Path) -> bool:
    """Return whether an export lies in the folder."""
    return (folder / RECORD).is_file()


def _remove_earlier(folder: Path) -> None:
    """Remove what an earlier export wrote, its record first; nothing else in the folder."""
    try:
        written = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    (folder / RECORD).unlink()
    for name in written:
        # The record may be anybody's: it names none but files that exports write.
        if name in (*_NAMES, CARD):
            (folder / name).unlink(missing_ok=True)
