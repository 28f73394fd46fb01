"""Loss and IFD of a real model, SmolLM2-135M-Instruct, against a plain loop over transformers.

The loop takes one conversation at a time, whole and each answer on its own, and knows nothing of
batches or padding. Its tokens are those of the chat template, but where a text holds what looks
like a special token: the model is to read that as text. ``--samples N`` takes other than 300.
"""

import argparse
import math
import time
from collections.abc import Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

import polars as pl
import torch
from transformers import AutoModelForCausalLM

from zip_pipeline.chat_tokens import encode
from zip_pipeline.pool.pool import SelectionPool
from zip_pipeline.samples import Turn, turns_of_column
from zip_pipeline.selection.strategies.random import random_order
from zip_pipeline.workflow.signals import preset_model
from zip_pipeline_tests.benchmarks.machine import report
from zip_pipeline_tests.benchmarks.real_pool import real_pool
from zip_pipeline_tests.signals.measured import measured

PRESET = "smollm2-135m"
MAX_LENGTH = 1024
NUM_SAMPLES = 300
Figures = tuple[float | None, float | None, int]


class PlainLoop:
    """The model of the preset, asked for one text at a time."""

    def __init__(self) -> None:
        model = preset_model(PRESET)
        self.tokenizer = model.tokenizer()
        source = model.preset.source
        self.network = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
        self.special = [str(token) for token in self.tokenizer.added_tokens_decoder.values()]
        self.num_tokens = self.num_with_special = 0

    def losses(self, ids: Sequence[int]) -> list[float]:
        """Return the loss of each token but the first, in nats."""
        self.num_tokens += len(ids)
        with torch.no_grad():
            logits = self.network(torch.tensor([list(ids)])).logits[0].double().log_softmax(-1)
        return [-logits[place - 1, ids[place]].item() for place in range(1, len(ids))]

    def tokens(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        """Return the tokens of a conversation, and which of them the assistant says."""
        said = [{"role": turn.role, "content": turn.content} for turn in turns]
        if any(special in turn["content"] for turn in said for special in self.special):
            self.num_with_special += 1
            (encoded,) = encode(self.tokenizer, [turns])
            return encoded.input_ids, encoded.assistant_mask
        written: Any = self.tokenizer.apply_chat_template(
            said, return_dict=True, return_assistant_tokens_mask=True
        )
        return written["input_ids"], written["assistant_masks"]

    def figures(self, turns: Sequence[Turn]) -> Figures:
        """Return loss, IFD and the number of answer tokens of a conversation."""
        ids, mask = (each[:MAX_LENGTH] for each in self.tokens(turns))
        places = [place for place, bit in enumerate(mask) if bit]
        if not places:
            return None, None, 0
        losses = [math.nan, *self.losses(ids)]
        ifds = []
        for speaks, run in groupby(range(len(ids)), key=mask.__getitem__):
            answer = list(run)
            if speaks and len(answer) > 1:
                after = fmean(losses[place] for place in answer)
                alone = fmean(self.losses([ids[place] for place in answer]))
                ifds.append(math.exp(after) / math.exp(alone))
        mean = fmean(losses[place] for place in places)
        return mean, fmean(ifds) if ifds else None, len(places)


def drawn(pool: SelectionPool, num: int) -> pl.DataFrame:
    """Return samples of the pool, drawn uniformly with seed 0."""
    return pool.rows(random_order(pool.index["sample_id"].to_list(), 0)[:num].tolist())


def largest_difference(found: pl.Series, expected: pl.Series) -> float:
    """Return the largest difference, relative to what is expected; both know the same ones."""
    assert found.is_null().equals(expected.is_null())
    difference = ((found - expected).abs() / expected).max()
    assert isinstance(difference, float)
    return difference


def main() -> None:
    """Measure the same samples in both ways, and compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=NUM_SAMPLES)
    num = parser.parse_args().samples
    with real_pool() as pool:
        samples = drawn(pool, num)
    clocks = [time.process_time()]
    found = measured("loss", samples, model=PRESET, max_length=MAX_LENGTH)
    clocks.append(time.process_time())
    loop = PlainLoop()
    rows = [loop.figures(turns) for turns in turns_of_column(samples["turns"])]
    clocks.append(time.process_time())
    expected = pl.DataFrame(rows, schema=found.schema, orient="row")
    assert found["num_scored"].equals(expected["num_scored"])
    figures: dict[str, object] = {
        "num_samples": samples.height,
        "num_sources": samples["source"].n_unique(),
        "num_with_special_tokens": loop.num_with_special,
        "num_tokens": loop.num_tokens,
        "num_scored": int(found["num_scored"].sum()),
        "signal_cpu_seconds": round(clocks[1] - clocks[0], 1),
        "loop_cpu_seconds": round(clocks[2] - clocks[1], 1),
    }
    for name in ("loss", "ifd"):
        difference = largest_difference(found[name], expected[name])
        figures[f"largest_relative_difference_{name}"] = difference
    for name in ("loss", "ifd"):
        orders = [table[name].rank("ordinal", descending=True) for table in (found, expected)]
        figures[f"num_ranked_otherwise_by_{name}"] = int((orders[0] != orders[1]).sum())
    report("signal_loss", figures)


if __name__ == "__main__":
    main()
