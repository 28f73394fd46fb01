"""Signal ``embedding``: a vector of what a sample says."""

from collections.abc import Callable, Iterator, Sequence
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
            found = pl.Series("vector", vectors).cast(VECTOR)
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

    def of_pieces(text: str) -> NDArray[Any]:
        pieces = [text[n : n + _PIECE] for n in range(0, len(text), _PIECE)]
        means = [model.embed([piece])[0] for piece in pieces]
        return np.average(means, axis=0, weights=list(map(len, pieces)))[None]

    def embed(texts: list[str]) -> NDArray[Any]:
        groups = list(_of_like_memory(texts))
        found = [of_pieces(*g) if len(g[0]) > _PIECE else model.embed(g) for g in groups]
        return np.concatenate(found) if found else np.asarray(model.embed([]))

    return embed


# A vector is the mean over the tokens of a text. Those of texts that are looked at together take
# 1 kB each, as many for every text as the longest one has.
_PIECE = 1 << 16
_MOST_CHARACTERS = 1 << 18


def _of_like_memory(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield texts in order, some at a time; alone what is longer than a piece."""
    group: list[str] = []
    longest = 0
    for text in texts:
        longest = max(longest, len(text))
        is_full = longest > _PIECE or longest * (len(group) + 1) > _MOST_CHARACTERS
        if group and is_full:
            yield group
            group, longest = [], len(text)
        group.append(text)
    if group:
        yield group


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
