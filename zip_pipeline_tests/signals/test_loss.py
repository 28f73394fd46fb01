"""Signal loss against a plain loop over a transformers model, one conversation at a time."""

import math
from collections.abc import Sequence
from itertools import groupby

import pytest
import torch

from zip_pipeline.chat_tokens import Encoded, encode
from zip_pipeline.samples import PreferencePair, RatedAnswer, Turn
from zip_pipeline.workflow.signals import preset_model
from zip_pipeline_tests.signals.measured import measured, table_of, talk

TALKS = [
    talk("What is 3 times 8?", "3 times 8 is 24."),
    talk("Say it again.", "It is 24.", "And what is it plus one?", "That makes 25, one more."),
    talk("Nobody answers."),
    talk("mañana 東京 " * 30, "so it goes " * 20),
    talk("One letter.", "x"),
]


class Oracle:
    """The packaged tiny model, asked for one row at a time."""

    def __init__(self) -> None:
        model = preset_model("tiny")
        self.tokenizer, self.network = model.tokenizer(), model.network().eval()

    def losses(self, ids: Sequence[int]) -> list[float]:
        """Return the loss of each token but the first, in nats."""
        with torch.no_grad():
            logits = self.network(input_ids=torch.tensor([list(ids)])).logits[0].log_softmax(-1)
        return [-logits[place - 1, ids[place]].item() for place in range(1, len(ids))]

    def encoded(self, turns: Sequence[Turn]) -> Encoded:
        """Return the tokens of one conversation."""
        return encode(self.tokenizer, [turns])[0]

    def loss_and_ifd(
        self, turns: Sequence[Turn], max_length: int = 1024
    ) -> tuple[float | None, float | None, int]:
        """Return what the signal tells of a conversation."""
        encoded = self.encoded(turns)
        ids, mask = encoded.input_ids[:max_length], encoded.assistant_mask[:max_length]
        losses = [0.0, *self.losses(ids)]
        places = [place for place, bit in enumerate(mask) if bit]
        ratios = []
        for speaks, run in groupby(range(len(ids)), key=mask.__getitem__):
            turn = list(run)
            if speaks and len(turn) > 1:
                after = sum(losses[place] for place in turn) / len(turn)
                alone = self.losses([ids[place] for place in turn])
                ratios.append(math.exp(after) / math.exp(sum(alone) / len(alone)))
        if not places:
            return None, None, 0
        mean = sum(losses[place] for place in places) / len(places)
        return mean, sum(ratios) / len(ratios) if ratios else None, len(places)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    """Return the slow way to the same figures."""
    return Oracle()


def is_like(expected: Sequence[tuple[float | None, ...]]) -> list[object]:
    """Return rows that figures of single precision compare equal to."""
    return [tuple(v if v is None else pytest.approx(v, rel=1e-4) for v in row) for row in expected]


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_figures_are_those_of_a_plain_loop(oracle: Oracle, block: int) -> None:
    """Means over answer tokens and over turns, null without an answer, whatever the block."""
    found = measured("loss", table_of(TALKS), block=block).rows()
    expected = [oracle.loss_and_ifd(sample.turns) for sample in TALKS]
    assert found == is_like(expected)
    assert expected[2] == (None, None, 0)


def test_a_conversation_is_cut(oracle: Oracle) -> None:
    """Tokens beyond the maximum length count nowhere, in no turn and in no context."""
    found = measured("loss", table_of(TALKS), max_length=30).rows()
    assert found == is_like([oracle.loss_and_ifd(sample.turns, 30) for sample in TALKS])
    assert found[3] == (None, None, 0)
    assert 0 < found[1][2] < oracle.loss_and_ifd(TALKS[1].turns)[2]


def test_of_a_pair_the_chosen_answer_counts_alone(oracle: Oracle) -> None:
    """Answers in the prompt are context; an undesirable answer has no figures."""
    prompt = (Turn("user", "1?"), Turn("assistant", "It is one."), Turn("user", "2?"))
    chosen, rejected = (Turn("assistant", "Two it is."),), (Turn("assistant", "Three."),)
    rows = [
        PreferencePair(prompt, chosen, rejected),
        RatedAnswer(prompt, chosen, True),
        RatedAnswer(prompt, rejected, False),
    ]
    found = measured("loss", table_of(rows, "preference"), "preference").rows()
    whole, start = oracle.encoded(prompt + chosen), len(oracle.encoded(prompt).input_ids)
    losses = [0.0, *oracle.losses(whole.input_ids)]
    places = [p for p, bit in enumerate(whole.assistant_mask) if bit and p >= start]
    mean = sum(losses[place] for place in places) / len(places)
    alone = oracle.losses([whole.input_ids[place] for place in places])
    ifd = math.exp(mean - sum(alone) / len(alone))
    assert found == [*is_like([(mean, ifd, len(places))] * 2), (None, None, 0)]
