"""Signal ``embedding``: a vector of what a sample says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from zip_pipeline.chat_models import model_identity, prepare_environment
from zip_pipeline.errors import UserError, require
from zip_pipeline.samples import Stage, contents_text
from zip_pipeline.settings import Settings
from zip_pipeline.signals import Measure, Signal, Tools

Vectors: TypeAlias = NDArray[np.float32]
VECTOR = pl.List(pl.Float32)
_WORDLLAMA = "wordllama"


class EmbeddingSettings(Settings):
    """Which model gives the vectors: the table ``[signals.embedding]``."""

    model: str = Field(
        default=_WORDLLAMA,
        description="wordllama, whose weights come with its package, or the folder or hub id of a "
        "model of sentence-transformers.",
    )
    revision: str | None = Field(
        default=None, description="Commit of the hub repository, needed with a hub id."
    )


class Embedding(Signal):
    """The normalised vector of the turns of a sample, in single precision; null without a word."""

    name = "embedding"
    description = "a vector of what the sample says"
    settings = EmbeddingSettings
    columns = pl.Schema({"vector": VECTOR})
    block = 4096

    def identity(self, settings: EmbeddingSettings, tools: Tools) -> str:
        """Return the version of the package, or the folder's hash, or the commit."""
        if settings.model == _WORDLLAMA:
            require(_WORDLLAMA, "signal embedding")
            return f"{_WORDLLAMA} {version(_WORDLLAMA)}"
        if not Path(settings.model).is_dir() and settings.revision is None:
            raise UserError(
                f"signals: embedding: model: {settings.model!r} is no folder, so it is taken for a "
                "hub id, which needs a revision: a commit of it"
            )
        return model_identity(settings.model, settings.revision, with_template=True)

    @contextmanager
    def open(self, settings: EmbeddingSettings, stage: Stage, tools: Tools) -> Iterator[Measure]:
        """Load the model."""
        embed = embedder(settings)

        def measure(samples: pl.DataFrame) -> pl.DataFrame:
            texts = samples.select(contents_text(stage))[:, 0]
            vectors = embed(texts.to_list())
            # A model has a vector for the line ends between turns, too.
            has_words = pl.Series(vectors.any(axis=1)) & (texts.str.strip_chars() != "")
            found = pl.Series("vector", vectors.tolist(), VECTOR)
            return pl.select(vector=pl.when(has_words).then(found))

        yield measure


def embedder(settings: EmbeddingSettings) -> Callable[[list[str]], Vectors]:
    """Return what gives the normalised vectors of texts, shape (texts, dimensions)."""
    embed = _wordllama() if settings.model == _WORDLLAMA else _sentence_transformer(settings)
    return lambda texts: normalised(embed(texts))


def vectors_of(table: pl.DataFrame) -> Vectors:
    """Return the vectors of a table of the signal, shape (samples, dimensions); zeros for null."""
    vectors = table["vector"]
    has_vector = vectors.is_not_null().to_numpy()
    known = vectors.drop_nulls()
    num = int(known.list.len().max() or 0)  # type: ignore[arg-type]
    found = np.zeros((len(vectors), num), dtype=np.float32)
    if num:
        found[has_vector] = known.explode(empty_as_null=False).to_numpy().reshape(len(known), num)
    return found


def normalised(vectors: NDArray[Any]) -> Vectors:
    """Return vectors of length 1, those of length 0 as they are."""
    numbers = np.nan_to_num(np.asarray(vectors, dtype=np.float32))
    lengths = np.linalg.norm(numbers, axis=1, keepdims=True)
    return np.asarray(numbers / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _wordllama() -> Callable[[list[str]], NDArray[Any]]:
    require(_WORDLLAMA, "signal embedding")
    import wordllama

    # The weights of its wheel: otherwise it looks for a cache, and fetches what is not there.
    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    return lambda texts: np.asarray(model.embed(texts))


def _sentence_transformer(settings: EmbeddingSettings) -> Callable[[list[str]], NDArray[Any]]:
    require("sentence_transformers", "signal embedding")
    prepare_environment(offline=False)
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
            settings.model, revision=settings.revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"signals: embedding: model: cannot load {settings.model!r} ({error}); give wordllama, "
            "or the folder or hub id of a model of sentence-transformers"
        ) from error
    return lambda texts: np.asarray(model.encode(texts, show_progress_bar=False))


SIGNAL = Embedding()
