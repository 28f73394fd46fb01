"""N-gram counts of batches on disk, counted when a selection first asks for them."""

from collections.abc import Callable, Iterator, Sequence

import polars as pl

from zip_pipeline.compression.ngrams import NGRAMS_VERSION, ngram_counts
from zip_pipeline.data_root import StageFolder
from zip_pipeline.files import read_row_groups, scan_table
from zip_pipeline.pool.parts import Parts

_SCHEMA = pl.Schema({"counts": pl.Binary})


def batch_ngrams(
    folder: StageFolder,
    batch: str,
    pool_fingerprint: str,
    texts: Callable[[], Iterator[Sequence[bytes]]],
) -> Iterator[list[bytes]]:
    """Yield the counts (:func:`.ngram_counts`) of the samples of a batch, some megabytes at a time.

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
    else:
        counted = Parts(_SCHEMA.to_frame(), folder.root.cache)
        for part in texts():
            counted.append(pl.DataFrame({"counts": ngram_counts(part)}, schema=_SCHEMA))
        folder.write(path, counted.row_groups(), described)
    for rows in read_row_groups(scan_table(path), path):
        yield rows["counts"].to_list()
