"""Folders that this package alone empties and removes."""

import threading
from pathlib import Path

import pytest

from zip_pipeline.files import empty_own_folder, own_folder, remove_own_folder


def test_own_folder_goes_when_nothing_was_put_into_it(tmp_path: Path):
    """A folder that was made for nothing is not left behind; one with work in it is."""
    with own_folder(tmp_path / "a" / "work", "a test"):
        pass
    assert not (tmp_path / "a" / "work").exists()
    with own_folder(tmp_path / "work", "a test") as folder:
        (folder / "state").touch()
    assert (tmp_path / "work" / "state").exists()


@pytest.mark.parametrize("kind", ["folder", "link", "link to own"])
def test_own_folder_refuses_what_others_made(tmp_path: Path, kind: str):
    """A folder without the mark, and any link, is an error; nothing is written there."""
    place, other = tmp_path / "work", tmp_path / "other"
    other.mkdir()
    if kind == "link to own":
        with own_folder(other, "a test"):
            (other / "state").touch()
    else:
        (other / "letter").touch()
    if kind == "folder":
        place = other
    else:
        place.symlink_to(other)
    before = sorted(path.name for path in other.iterdir())
    with pytest.raises(ValueError, match="not made by zip-pipeline, and a test would empty it"):
        own_folder(place, "a test").__enter__()
    assert sorted(path.name for path in other.iterdir()) == before


def test_own_folder_is_held_by_one(tmp_path: Path):
    """A second holder is refused; when the first has ended, it may hold the folder."""
    with own_folder(tmp_path / "work", "a test") as folder:
        (folder / "state").touch()
        with (
            pytest.raises(ValueError, match="a test is running already"),
            own_folder(folder, "a test"),
        ):
            pass
    with own_folder(tmp_path / "work", "a test"):
        pass


def test_own_folder_is_held_by_one_however_often_it_is_removed(tmp_path: Path):
    """Who gets the lock of a removed folder has not got the folder: it is made anew."""
    inside: list[int] = []
    most: list[int] = []

    def hold() -> None:
        for _ in range(200):
            try:
                with own_folder(tmp_path / "work", "a test") as folder:
                    inside.append(1)
                    most.append(len(inside))
                    (folder / "state").touch()
                    inside.pop()
                    remove_own_folder(folder)
            except ValueError:
                continue

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) > 10
    assert set(most) == {1}


def test_empty_own_folder_does_not_follow_links(tmp_path: Path):
    """Links in the folder are removed as links, and what is to be kept stays."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter").touch()
    with own_folder(tmp_path / "work", "a test") as folder:
        (folder / "link").symlink_to(tmp_path / "other")
        (folder / "folder").mkdir()
        (folder / "folder" / "file").touch()
        (folder / "kept").touch()
        empty_own_folder(folder, [folder / "kept"])
        assert sorted(path.name for path in folder.iterdir()) == [".zip-pipeline", "kept"]
    assert (tmp_path / "other" / "letter").exists()
