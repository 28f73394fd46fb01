"""The files of a drop: which there are, where their links lead, and what keeps us from them."""

import os
from collections.abc import Iterator
from pathlib import Path

from zip_pipeline.pool.quarantine import printable

LINKS_VARIABLE = "ZIP_PIPELINE_LINKS"
"""Names the folders, besides the drop folder, to which links of drops may lead."""


def unreadable(path: Path, error: OSError | MemoryError) -> ValueError:
    """Return what to tell a person whom the system keeps from a file; next time it may not."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    place = getattr(error, "filename", None)
    if place is not None and str(place) != str(path):
        reason = f"{place}: {reason}"
    return ValueError(
        f"{path}: cannot be read ({reason}); nothing of it is taken in. Put that right, then try "
        "again"
    )


def check_place(path: Path, within: Path) -> Path:
    """Return where a file or folder really lies, whatever links lead to it.

    Raises:
        ValueError: it is gone, or its link leads nowhere, in a circle, or to a place that is
            neither in ``within`` nor in a folder of ``ZIP_PIPELINE_LINKS``.
    """
    place = _place(path)
    named = [name for name in os.environ.get(LINKS_VARIABLE, "").split(os.pathsep) if name]
    if not any(place.is_relative_to(os.path.realpath(name)) for name in (str(within), *named)):
        raise ValueError(
            f"{path}: the link leads out of {within}, to {place}; put a copy in its place, or name "
            f"a folder that holds {place} in {LINKS_VARIABLE}"
        )
    return place


def _place(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path, strict=True))
    except OSError as error:
        if not path.is_symlink():
            raise unreadable(path, error) from error
        raise ValueError(
            f"{path}: the link to {path.readlink()} leads nowhere ({error.strerror}); mend it or "
            "remove it"
        ) from error


def link_bounds(path: Path, within: Path | None) -> Path | None:
    """Return the folder that links of an input may not leave, None for a single named file.

    Args:
        path: a drop, or what a person named.
        within: the drop folder; None for what a person named. That is followed wherever it
            leads, and links inside of it may lead anywhere inside of it.
    """
    return within or (path if path.is_dir() else None)


def list_files(path: Path, within: Path | None = None) -> list[tuple[str, Path]]:
    """Return the files of a drop with their names in it, sorted; hidden ones are left out.

    Linked files and folders are followed. An empty folder has no file.

    Args:
        path: a file or folder.
        within: the folder that links may not leave, see :func:`link_bounds`.

    Raises:
        ValueError: there is no such file or folder, a part of it cannot be read, or a link leads
            nowhere, in a circle or out of bounds.
    """
    if not os.path.lexists(path):
        raise ValueError(f"{path}: no such file or folder; check the name, or drop it again")
    try:
        bounds = link_bounds(path, within)
        # Most drops are plain files, and sensors look at all of them all the time.
        if bounds is None or (path.is_file() and not path.is_symlink()):
            return [(printable(path.name), path)]
        place = check_place(path, bounds)
        if not place.is_dir():
            return [(printable(path.name), path)]
        files = list(_walk(path, place, bounds))
    except OSError as error:
        raise unreadable(Path(error.filename or path), error) from error
    return sorted((printable(file.relative_to(path).as_posix()), file) for file in files)


def _walk(top: Path, place: Path, bounds: Path) -> Iterator[Path]:
    """Yield the files below ``top``, which really lies at ``place``."""
    waiting: list[tuple[Path, tuple[Path, ...]]] = [(top, (place,))]
    while waiting:
        folder, places = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                path = folder / entry.name
                if entry.name.startswith("."):
                    continue
                is_link = entry.is_symlink()
                place = check_place(path, bounds) if is_link else places[-1] / entry.name
                if not entry.is_dir():
                    yield path
                    continue
                if is_link and any(above.is_relative_to(place) for above in places):
                    raise ValueError(
                        f"{path}: the link leads back to {place}, which holds it; remove the link"
                    )
                waiting.append((path, (*places, place)))


def data_files(path: Path, within: Path | None = None) -> list[tuple[str, Path]]:
    """Return the files of a drop as :func:`list_files` does, at least one.

    Raises:
        ValueError: as :func:`list_files`, or the folder holds no file.
    """
    files = list_files(path, within)
    if not files:
        raise ValueError(f"{path}: the folder holds no file; drop files into it, or remove it")
    return files
