"""What is known of a sample besides its text: a registry of what measures it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

import polars as pl

from zip_pipeline.compression.texts import TextFile
from zip_pipeline.errors import UserError
from zip_pipeline.registry import Registry
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.settings import Settings
from zip_pipeline.tables import WholeTable, rows_in_parts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Measure: TypeAlias = Callable[[pl.DataFrame], pl.DataFrame]
"""Takes rows of a pool table, returns a row of the signal's columns for each, in their order."""


class ChatModel(Protocol):
    """A causal language model and the chat template that it is trained with."""

    @property
    def identity(self) -> str:
        """What tells it from any other."""

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Return the tokenizer, with a chat template that marks what the assistant says."""

    def network(self) -> "PreTrainedModel":
        """Return the model, ready to be asked, on the GPU where there is one."""


@dataclass(frozen=True)
class Tools:
    """What signals can ask for.

    Args:
        model: finds a causal language model by the name of a preset, or by its folder.
        folder: the signal's own, of the stage; what it keeps there is kept.
        root: the data root, where relative paths start.
        read_texts: reads a file of samples or of questions: the columns ``row``, ``prompt`` and
            ``answer``, texts that are empty where the row has none.
    """

    model: Callable[[str], ChatModel]
    folder: Path
    root: Path
    read_texts: Callable[[Path], pl.DataFrame]


MARKS = pl.Schema({"evidence": pl.String, "other": pl.String})
"""Why a sample takes no part, in words, and the id of the sample that takes part in its place."""


@dataclass(frozen=True)
class MarkedPool:
    """A pool of whose samples a signal says which ones take no part.

    Args:
        stage: of the samples.
        index: where they come from, as ``sample_id``, ``source``, ``source_file``, ``source_row``.
        table: what the signal told, a row for each of the index.
        texts: the serialised samples.
        said: yields what is said at ascending positions of the index, as columns of the pool table,
            some thousands of rows at a time.
        folder: the signal's own, of the stage; what it keeps there is kept.
        scratch: where temporary files go.
        quality: of each sample, None where the selection asks for none.
    """

    stage: Stage
    index: WholeTable
    table: WholeTable
    texts: TextFile
    said: Callable[[Sequence[int]], Iterator[pl.DataFrame]]
    folder: Path
    scratch: Path
    quality: pl.Series | None = None


class Signal(ABC):
    """Measures samples, each by itself, so that what is known of one is never measured again."""

    name: ClassVar[str]
    """what people type to choose it"""
    description: ClassVar[str]
    """one sentence without the name and without a full stop"""
    settings: ClassVar[type[Settings]] = Settings
    """the table ``[signals.NAME]``"""
    columns: ClassVar[pl.Schema]
    """what it tells of a sample; null where it cannot tell"""
    stages: ClassVar[tuple[Stage, ...]] = STAGES
    """whose samples it can measure"""
    block: ClassVar[int] = 512
    """samples that are measured at a time: what a kill can lose"""
    fate: ClassVar[str] = ""
    """the fate of samples that it marks, such as ``contaminated``; empty: it marks none"""
    checks_held_out: ClassVar[bool] = False
    """whether it is told of samples that are kept for evaluation as well; they stay there"""

    @abstractmethod
    def identity(self, settings: Any, tools: Tools) -> str:  # noqa: ANN401  its own settings
        """Return what changes when the values of a sample do: the model, the way of measuring."""

    @abstractmethod
    def open(
        self,
        settings: Any,  # noqa: ANN401  its own settings
        stage: Stage,
        tools: Tools,
    ) -> AbstractContextManager[Measure]:
        """Load what it needs, and give what measures blocks of samples of a stage.

        Raises:
            UserError: what it needs is not there.
        """

    def cost(self, example: pl.DataFrame, num_samples: int, settings: Any) -> str:  # noqa: ANN401
        """Return in words what measuring so many samples like these takes; empty if unknown."""
        return ""

    def marks(self, table: pl.DataFrame, settings: Any) -> pl.Series:  # noqa: ANN401  its own
        """Return in words why each sample takes no part, shape (samples,); null where it does.

        Args:
            table: what it told of each sample.
            settings: its own, which hold the policy.
        """
        return pl.Series([None] * table.height, dtype=pl.String)

    def mark(self, pool: MarkedPool, settings: Any) -> Iterator[pl.DataFrame]:  # noqa: ANN401
        """Yield :data:`MARKS` of each sample of a pool; of those that take part all is null.

        They come in the order of the index, some thousands at a time. A signal that has to compare
        samples with one another replaces this.

        Raises:
            UserError: the policy of the settings cannot be followed.
        """
        for part in rows_in_parts(pool.table):
            evidence = self.marks(part, settings)
            yield pl.DataFrame({"evidence": evidence, "other": None}, schema=MARKS)

    def by_source(self, sources: pl.Series, table: pl.DataFrame) -> pl.DataFrame:
        """Return what it told of some samples, counted by source; empty where it counts nothing.

        Numbers that stand beside the same words are added up over all samples.

        Args:
            sources: of the samples, shape (samples,).
            table: what it told of each.
        """
        return pl.DataFrame()

    def masked(
        self,
        samples: pl.DataFrame,
        table: pl.DataFrame,
        settings: Any,  # noqa: ANN401  its own
        stage: Stage,
    ) -> pl.DataFrame:
        """Return samples as they are given out, without what the policy hides.

        Args:
            samples: rows of a pool table; their identity stays.
            table: what it told of each of them.
            settings: its own, which hold the policy.
            stage: of the samples.
        """
        return samples


signals: Registry[Signal] = Registry("signal", "zip_pipeline.signals", __name__, default="")


def settings_of(name: str, values: Mapping[str, Any]) -> Settings:
    """Return the settings of a signal.

    Raises:
        UserError: there is no such signal, or a value is unknown or out of range.
    """
    signal = signals[name]
    try:
        return signal.settings(**values)
    except UserError as error:
        raise UserError(f"signals: {name}: {error}") from None


def check_signals(given: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UserError where a signal or one of its settings is unknown or out of range."""
    for name, values in given.items():
        settings_of(name, values)
