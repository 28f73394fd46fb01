"""Signal ``selective_ifd``: by how much the question helps, told by informative tokens alone."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zip_pipeline.errors import require
from zip_pipeline.samples import Stage
from zip_pipeline.signals import Measure, Signal, Tools
from zip_pipeline.signals.loss import ANSWER_COLUMNS, LossSettings, Said, said_in

if TYPE_CHECKING:
    import torch

NUM_NEIGHBOURS = 30
NOISE = 5.0
# What may be chosen as threshold, in nats: 0.004 to 16, each 1.19 times the last.
THRESHOLDS = 2.0 ** (np.arange(-32, 17) / 4)
_TOKENS_AT_A_TIME = 2048


class SelectiveIfd(Signal):
    """What a sample's neighbours tell: it with uniform noise on the vectors of its tokens.

    The difference of an answer token is its loss after all that came before it less its loss in
    the turn on its own, in nats; the first token of a turn has none. It is informative when it is
    above a threshold in size, which depends on the whole pool: so all is told for 49 thresholds.
    ``ifd`` is exp(mean difference), the mean over 30 neighbours; ``means`` and ``deviations`` are
    those over the neighbours of exp(mean informative difference), by threshold; ``num_above`` is
    how many differences of all neighbours are above each. Null where no answer of two or more
    tokens lies within the maximum length. Of a pair the chosen answer counts.

    Source: T-SHIRT (arXiv 2506.01317), section 3, and its code: noise of NEFTune with alpha 5.
    Deviation: the tokens of several turns count together; the first token of an answer counts
    neither with the question nor without.
    """

    name = "selective_ifd"
    description = "by how much the question helps to write informative tokens, and how surely"
    settings = LossSettings
    columns = pl.Schema(
        {
            "ifd": pl.Float64(),
            "means": pl.List(pl.Float64),
            "deviations": pl.List(pl.Float64),
            "num_above": pl.List(pl.Int64),
            "num_differences": pl.Int64(),
        }
    )
    block = 64

    def identity(self, settings: LossSettings, tools: Tools) -> str:
        """Return the model, its template and the maximum length."""
        return f"{tools.model(settings.model).identity}, {settings.max_length} tokens"

    @contextmanager
    def open(self, settings: LossSettings, stage: Stage, tools: Tools) -> Iterator[Measure]:
        """Load the model."""
        require("torch", "signal selective_ifd")
        import torch

        model = tools.model(settings.model)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network: Any = model.network().to(device).eval()  # type: ignore[arg-type]
        tokenizer = model.tokenizer()

        def measure(samples: pl.DataFrame) -> pl.DataFrame:
            said = said_in(samples, ANSWER_COLUMNS[stage], tokenizer, settings.max_length)
            seeds = [int(sample_id[:15], 16) for sample_id in samples["sample_id"]]
            with torch.inference_mode():
                rows = [
                    figures(_differences(network, each, seed))
                    for each, seed in zip(said, seeds, strict=True)
                ]
            return pl.DataFrame(rows, schema=self.columns, orient="row")

        yield measure


def _differences(network: Any, said: Said, seed: int) -> NDArray[np.float64]:  # noqa: ANN401
    """Return the difference of each answer token, shape (neighbours, tokens)."""
    import torch

    spans = [span for span in said.spans if span.stop - span.start > 1]
    if not spans:
        return np.zeros((NUM_NEIGHBOURS, 0))
    ids = torch.tensor(said.input_ids, device=network.device)
    clean = network.get_input_embeddings()(ids)
    # Drawn on the CPU, so that a sample has the same neighbours on every machine.
    drawn = torch.rand(
        (NUM_NEIGHBOURS, *clean.shape), generator=torch.Generator().manual_seed(seed)
    )
    noise = (2 * drawn - 1) * (NOISE / math.sqrt(clean.numel()))
    found = []
    size = max(1, _TOKENS_AT_A_TIME // len(ids))
    for start in range(0, NUM_NEIGHBOURS, size):
        vectors = clean + noise[start : start + size].to(clean)
        parts = []
        for span in spans:
            places = torch.arange(span.start + 1, span.stop, device=ids.device)
            after = _losses(network, vectors, ids, places)
            alone = _losses(network, vectors[:, span], ids[span], places - span.start)
            parts.append(after - alone)
        found.append(torch.cat(parts, dim=1))
    return torch.cat(found).double().cpu().numpy()


def _losses(
    network: Any,  # noqa: ANN401
    vectors: "torch.Tensor",
    ids: "torch.Tensor",
    places: "torch.Tensor",
) -> "torch.Tensor":
    """Return the loss of the tokens at some places, given vectors, shape (rows, places)."""
    import torch

    logits = network(inputs_embeds=vectors, logits_to_keep=places - 1, use_cache=False).logits
    targets = ids[places].expand(len(vectors), -1)
    return torch.nn.functional.cross_entropy(
        logits.float().transpose(1, 2), targets, reduction="none"
    )


def figures(differences: NDArray[np.float64]) -> tuple[Any, ...]:
    """Return a row of the signal, given differences of shape (neighbours, tokens)."""
    if not differences.size:
        return None, None, None, None, None
    # How many thresholds lie below each.
    levels = np.searchsorted(THRESHOLDS, np.abs(differences))
    above = [levels > threshold for threshold in range(len(THRESHOLDS))]
    num_above = [each.sum(axis=1) for each in above]
    ifds = [
        np.exp((differences * each).sum(axis=1) / np.maximum(num, 1))
        for each, num in zip(above, num_above, strict=True)
    ]
    return (
        float(np.exp(differences.mean(axis=1)).mean()),
        [float(ifd.mean()) for ifd in ifds],
        [float(ifd.std()) for ifd in ifds],
        [int(num.sum()) for num in num_above],
        differences.size,
    )


SIGNAL = SelectiveIfd()
