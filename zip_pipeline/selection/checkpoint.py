"""A selection killed at any moment goes on where its last checkpoint stands."""

import zipfile
from pathlib import Path

import numpy as np

from zip_pipeline.compression.codecs import codec_versions
from zip_pipeline.compression.text_file import TextFile
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.progress import Run
from zip_pipeline.storage import fingerprint, write_atomically

ROUNDS_BETWEEN = 3


class Checkpoint:
    """The stored state of one selection; a file of another pool or configuration is ignored.

    Args:
        path: the file, None for no checkpoints.
        key: hash of all that the picks depend on.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path = path
        self._key = key

    @classmethod
    def of_texts(cls, path: Path | None, config: SelectionConfig, texts: TextFile) -> "Checkpoint":
        """Return the checkpoint of a selection over ``texts`` (hashed only when needed)."""
        if path is None:
            return cls(None, "")
        parts = [config.fingerprint(), *codec_versions().values(), texts.fingerprint()]
        return cls(path, fingerprint(parts))

    def save(self, run: Run) -> None:
        """Store ``run`` if its round is due."""
        if run.num_rounds % ROUNDS_BETWEEN == 0:
            self.save_now(run)

    def save_now(self, run: Run) -> None:
        """Store ``run``."""
        if self._path is None:
            return
        arrays = {
            "key": np.array(self._key),
            "pi": run.pi,
            "fate": run.fate,
            "round_of": run.round_of,
            "picks": np.array(run.picks, dtype=np.int64),
            "num_rounds": np.array(run.num_rounds),
        }

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)

        write_atomically(self._path, write)

    def load(self) -> Run | None:
        """Return the stored state, None where there is none for this pool and configuration."""
        if self._path is None or not self._path.exists():
            return None
        try:
            with np.load(self._path, allow_pickle=False) as stored:
                if str(stored["key"]) != self._key:
                    return None
                return Run(
                    stored["pi"],
                    stored["fate"],
                    stored["round_of"],
                    stored["picks"].tolist(),
                    int(stored["num_rounds"]),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def remove(self) -> None:
        """Remove the stored state."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


NOWHERE = Checkpoint(None, "")
