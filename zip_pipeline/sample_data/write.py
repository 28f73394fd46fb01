"""Writes the sample drops into the drop folders of a data root."""

from pathlib import Path
from random import Random

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.files import write_bytes
from zip_pipeline.sample_data.drops import (
    PREFERENCE_DROPS,
    SFT_DROPS,
    Drop,
    broken_re_export,
    drop_tasks,
    preference_file,
    sft_file,
)
from zip_pipeline.sample_data.task import Task

STATES = ("x1", "x2", "x3", "x4", "x5")


def _random(seed: int, drop: Drop, purpose: str) -> Random:
    """Return the source of chance of one step, which no other drop can disturb."""
    return Random(f"{seed} {drop.stage} {drop.name} {purpose}")


def _sft_files(seed: int, scale: float, state: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    earlier: list[Task] = []
    for drop in (drop for drop in SFT_DROPS if drop.state <= state):
        num_rows = round(drop.num_rows * scale)
        tasks = drop_tasks(drop, _random(seed, drop, "tasks"), num_rows, earlier)
        earlier += tasks
        if state == len(STATES) and drop.re_exported:
            tasks = broken_re_export(_random(seed, drop, "re-export"), tasks)
        files[drop.name] = sft_file(drop, _random(seed, drop, "file"), tasks)
    return files


def _preference_files(seed: int, scale: float, state: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for drop in (drop for drop in PREFERENCE_DROPS if drop.state <= state):
        num_rows = round(drop.num_rows * scale)
        tasks = drop_tasks(drop, _random(seed, drop, "tasks"), num_rows, ())
        files[drop.name] = preference_file(drop, _random(seed, drop, "file"), tasks)
    return files


def write_sample_data(
    folder: Path, *, seed: int = 0, state: str = "x4", scale: float = 1.0
) -> list[Path]:
    """Write the sample drops of one state of the pool below a data root.

    States x1 to x4 add one SFT drop each, every one in another format; x5 replaces the first
    and the third under their own names by a broken re-export. Preference pairs come with x1
    and x3. A file that is already there with the same content is left alone, and so are files
    of later states and all others. A file of that name that is not ours is never replaced.

    Args:
        folder: the data root; files go to ``raw/sft`` and ``raw/preference`` below it.
        seed: the same seed gives the same bytes.
        state: ``x1`` to ``x5``.
        scale: factor on the number of rows, at least 0.02; 1 gives about 4,100 conversations
            and 1,000 pairs in x4.

    Returns:
        The files of the state, SFT first, in the order of the drops.

    Raises:
        UserError: unknown state, a scale below 0.02, or a file of that name that is no sample
            drop of this seed and scale; nothing is written then.
    """
    if state not in STATES:
        raise UserError(f"state: got {state!r}; allowed are {', '.join(STATES)}")
    if not scale >= 0.02:
        raise UserError(f"scale: got {scale}; it must be at least 0.02 (1 is about 4,100 rows)")
    root = DataRoot(folder)
    contents = _drops(root, seed, scale, state)
    changed = [path for path, content in contents.items() if not _holds(path, content)]
    _refuse_foreign([path for path in changed if path.exists()], root, seed, scale)
    for path in changed:
        write_bytes(path, contents[path])
    return list(contents)


def _drops(root: DataRoot, seed: int, scale: float, state: str) -> dict[Path, bytes]:
    """Return the files of a state with their content."""
    number = STATES.index(state) + 1
    contents = {root["sft"].raw / n: c for n, c in _sft_files(seed, scale, number).items()}
    pairs = _preference_files(seed, scale, number).items()
    return contents | {root["preference"].raw / name: content for name, content in pairs}


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _refuse_foreign(found: list[Path], root: DataRoot, seed: int, scale: float) -> None:
    """Raise UserError where one of the files is no sample drop of any state."""
    # Drops change in the last state only.
    states = [_drops(root, seed, scale, state) for state in STATES[-2:]] if found else []
    for path in found:
        if not any(_holds(path, contents[path]) for contents in states):
            raise UserError(
                f"{path}: holds something else than the sample drop of this seed and scale, and "
                "would be replaced; move it away, or name another folder"
            )
