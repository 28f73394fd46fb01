"""N-gram counts of batches on disk, counted when a selection first asks for them."""

from collections.abc import Callable, Iterator, Sequence

import polars as pl

from zip_pipeline.compression.ngrams import NGRAMS_VERSION, ngram_counts
from zip_pipeline.data_root import StageFolder
from zip_pipeline.files import scan_table

_SCHEMA = pl.Schema({"counts": pl.Binary})


def batch_ngrams(
    folder: StageFolder,
    batch: str,
    pool_fingerprint: str,
    texts: Callable[[], Iterator[Sequence[bytes]]],
) -> pl.Series:
    """Return the counts (:func:`.ngram_counts`) of each sample of a batch, in its order.

    Args:
        folder: of the stage, as ``root["sft"]``.
        batch: its name.
        pool_fingerprint: of the form of the batch that is read.
        texts: yields its serialised samples; called where there are no stored counts of that form.
    """
    described = {"pool_fingerprint": pool_fingerprint, "ngrams_version": NGRAMS_VERSION}
    path = folder.ngrams(batch)
    if path.exists() and described.items() <= folder.metadata(path).items():
        folder.check(path)
        return scan_table(path).collect()["counts"]
    counted = [counts for part in texts() for counts in ngram_counts(part)]
    table = pl.DataFrame({"counts": counted}, schema=_SCHEMA)
    folder.write(path, table, described)
    return table["counts"]
