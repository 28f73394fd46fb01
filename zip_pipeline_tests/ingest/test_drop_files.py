"""Which files a drop has, and where its links may lead."""

import os
from pathlib import Path

import pytest

from zip_pipeline.ingest.readers import LINKS_VARIABLE, data_files, list_files


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Return a drop folder with the drop ``d``, beside a folder with a secret."""
    for name in ("raw/d/sub/a.jsonl", "raw/other/b.jsonl", "secret/key.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path / "raw"


def names(path: Path, within: Path | None = None) -> list[str]:
    """Return the names of the files of a drop."""
    return [name for name, _ in list_files(path, within)]


def test_links_inside_the_drop_folder_are_followed(raw: Path):
    """Linked files and folders are a part of the drop, and so is a drop that is a link."""
    (raw / "d" / "file.jsonl").symlink_to("../other/b.jsonl")
    (raw / "d" / "folder").symlink_to(raw / "other")
    (raw / "d" / "again").symlink_to("sub")
    (raw / "e").symlink_to("d")
    expected = ["again/a.jsonl", "file.jsonl", "folder/b.jsonl", "sub/a.jsonl"]
    assert names(raw / "d", raw) == names(raw / "e", raw) == expected


@pytest.mark.parametrize("link", ["d/key.jsonl", "d/sub/secrets", "key.jsonl", "secrets"])
def test_links_out_of_the_drop_folder_are_refused(raw: Path, link: str, monkeypatch):
    """Such a link is named with its target and the remedies, until the folder is allowed."""
    target = raw.parent / "secret" / ("key.jsonl" if "key" in link else "")
    (raw / link).symlink_to(target)
    drop = raw / link.partition("/")[0]
    with pytest.raises(ValueError) as caught:
        names(drop, raw)
    assert str(caught.value) == (
        f"{raw / link}: the link leads out of {raw}, to {target}; put a copy in its place, or name "
        f"a folder that holds {target} in ZIP_PIPELINE_LINKS"
    )
    monkeypatch.setenv(LINKS_VARIABLE, os.pathsep.join(["/nowhere", str(raw.parent / "secret")]))
    assert any(name.endswith("key.jsonl") for name in names(drop, raw))


def test_a_folder_whose_name_only_begins_alike_is_outside(raw: Path):
    """``raw-old`` is not in ``raw``."""
    (raw.parent / "raw-old").mkdir()
    (raw / "d" / "old").symlink_to(raw.parent / "raw-old")
    with pytest.raises(ValueError, match="the link leads out of"):
        names(raw / "d", raw)


@pytest.mark.parametrize(
    ("link", "target", "reason"),
    [
        ("d/dead.jsonl", "gone.jsonl", "No such file or directory"),
        ("d/self", "self", "Too many levels of symbolic links"),
        ("dead.jsonl", "gone.jsonl", "No such file or directory"),
    ],
)
def test_links_that_lead_nowhere_are_named(raw: Path, link: str, target: str, reason: str):
    """A dead link or one to itself is an error, not a file that is missing in silence."""
    (raw / link).symlink_to(target)
    with pytest.raises(ValueError) as caught:
        names(raw / link.partition("/")[0], raw)
    assert str(caught.value) == (
        f"{raw / link}: the link to {target} leads nowhere ({reason}); mend it or remove it"
    )


@pytest.mark.parametrize("target", [".", "..", "../d", "../x"])
def test_linked_folders_that_loop_are_named(raw: Path, target: str):
    """A link to a folder that holds the link, directly or by way of another one, is an error."""
    (raw / "d" / "loop").symlink_to(target)
    (raw / "x").mkdir()
    (raw / "x" / "back").symlink_to("../d")
    with pytest.raises(ValueError, match=r"(loop|back): the link leads back to .*; remove the"):
        names(raw / "d", raw)


def test_unreadable_subfolder_fails_the_drop(raw: Path, monkeypatch):
    """A folder that the system does not let us list is named; its files are not passed over."""
    scan = os.scandir

    def refuse(folder: Path):
        if Path(folder).name == "sub":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError) as caught:
        names(raw / "d", raw)
    assert str(caught.value) == (
        f"{raw / 'd' / 'sub'}: cannot be read (Permission denied); nothing of it is taken in. "
        "Put that right, then try again"
    )


def test_what_a_person_names_is_followed_but_not_the_links_inside(raw: Path):
    """A named link leads anywhere; in a named folder, links lead inside of it or are refused."""
    (raw.parent / "named").symlink_to(raw / "d")
    (raw.parent / "named.jsonl").symlink_to(raw / "d" / "sub" / "a.jsonl")
    (raw / "d" / "inside.jsonl").symlink_to("sub/a.jsonl")
    assert names(raw.parent / "named") == ["inside.jsonl", "sub/a.jsonl"]
    assert names(raw.parent / "named.jsonl") == ["named.jsonl"]
    (raw / "d" / "outside.jsonl").symlink_to(raw / "other" / "b.jsonl")
    with pytest.raises(ValueError, match=r"outside\.jsonl: the link leads out of .*named, to"):
        names(raw.parent / "named")


def test_hidden_entries_are_no_files_whatever_they_link_to(raw: Path):
    """What is hidden is left out before anybody looks where it leads."""
    (raw / "d" / ".cache").symlink_to("/")
    (raw / "d" / ".dead.jsonl").symlink_to("gone")
    assert names(raw / "d", raw) == ["sub/a.jsonl"]


def test_a_folder_without_files_is_listed_but_not_read(raw: Path):
    """It has no file yet, and nobody can read it."""
    (raw / "empty").mkdir()
    assert names(raw / "empty", raw) == []
    with pytest.raises(ValueError, match="empty: the folder holds no file; drop files into it"):
        data_files(raw / "empty", raw)
