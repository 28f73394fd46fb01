"""Signal selective_ifd against a plain loop over neighbours, thresholds and tokens."""

import math

import numpy as np
import pytest
import torch

from zip_pipeline.chat_tokens import encode
from zip_pipeline.samples import Sample, sample_id
from zip_pipeline.signals.selective_ifd import NUM_NEIGHBOURS, THRESHOLDS
from zip_pipeline.workflow.signals import preset_model
from zip_pipeline_tests.signals.measured import measured, table_of, talk

TALKS = [
    talk("What is 3 times 8?", "3 times 8 is 24."),
    talk("Say it.", "It is 24.", "And plus one?", "That makes 25, one more."),
    talk("Nobody answers."),
    talk("One letter.", "x"),
]


def differences_of(sample: Sample, max_length: int) -> list[list[float]]:
    """Return the differences of each neighbour, by passes over all logits of one row at a time."""
    model = preset_model("tiny")
    tokenizer, network = model.tokenizer(), model.network().eval()
    (encoded,) = encode(tokenizer, [sample.turns])
    ids = torch.tensor(encoded.input_ids[:max_length])
    mask = encoded.assistant_mask[:max_length]
    clean = network.get_input_embeddings()(ids).detach()
    generator = torch.Generator().manual_seed(int(sample_id(sample)[:15], 16))
    drawn = torch.rand((NUM_NEIGHBOURS, *clean.shape), generator=generator)
    found = []
    for one in drawn:
        vectors = clean + (2 * one - 1) * 5 / math.sqrt(clean.shape[0] * clean.shape[1])

        def losses(start: int, end: int, vectors: torch.Tensor = vectors) -> dict[int, float]:
            with torch.no_grad():
                logits = network(inputs_embeds=vectors[None, start:end]).logits[0]
            logs = logits.log_softmax(-1)
            return {p: -logs[p - 1 - start, ids[p]].item() for p in range(start + 1, end)}

        after, own = losses(0, len(ids)), []
        begin = 0
        for place in range(len(ids)):
            if mask[place] and not mask[place - 1]:
                begin = place
            if mask[place] and (place + 1 == len(ids) or not mask[place + 1]):
                alone = losses(begin, place + 1)
                own += [after[p] - alone[p] for p in alone]
        found.append(own)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("max_length", [1024, 25])
def test_figures_are_those_of_a_plain_loop(max_length: int) -> None:
    """Mean and deviation over 30 neighbours for every threshold; null without an answer."""
    found = measured("selective_ifd", table_of(TALKS[1:]), max_length=max_length, block=2)
    row, differences = found.row(0, named=True), differences_of(TALKS[1], max_length)
    whole = [math.exp(sum(own) / len(own)) for own in differences]
    assert row["ifd"] == pytest.approx(sum(whole) / len(whole), rel=1e-4)
    assert row["num_differences"] == sum(map(len, differences))
    for number in (0, 12, 24, 30, 48):
        chosen = [[d for d in own if abs(d) > THRESHOLDS[number]] for own in differences]
        ifds = [math.exp(sum(own) / max(len(own), 1)) for own in chosen]
        # A difference that lies on a threshold may fall to either side.
        assert row["num_above"][number] == pytest.approx(sum(map(len, chosen)), abs=2)
        assert row["means"][number] == pytest.approx(sum(ifds) / len(ifds), rel=5e-3)
        assert row["deviations"][number] == pytest.approx(np.std(ifds), abs=5e-3)
    assert found["ifd"].is_null().to_list() == [False, True, False]


def test_neighbours_belong_to_the_sample() -> None:
    """They are the same whatever is measured beside it."""
    pair = measured("selective_ifd", table_of([TALKS[3], TALKS[0]]))
    single = measured("selective_ifd", table_of(TALKS[:1]))
    assert pair["means"][1].to_list() == pytest.approx(single["means"][0].to_list())
