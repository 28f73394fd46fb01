"""Trains the small tokenizer that ships with the package; run as ``python -m``.

python -m zip_pipeline.sample_data.train_tokenizer [FILE]
"""

import sys
from pathlib import Path

from zip_pipeline.compression.tokens import SHIPPED_TOKENIZERS
from zip_pipeline.files import write_atomically
from zip_pipeline.sample_data.mixture import pretraining_text

SPECIAL_TOKENS = (
    "<|pad|>",
    "<|bos|>",
    "<|eos|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|end|>",
)
_VOCABULARY = 4096
_NUM_SAMPLES = 20_000


def train_tokenizer() -> str:
    """Return the tokenizer as JSON text: byte-level BPE, digits one by one, 4,096 tokens.

    It is trained on the pre-training text of seed 0 and on nothing else; every byte has a
    token, so that any text survives encoding and decoding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pretraining_text(0, _NUM_SAMPLES), trainer)
    return str(tokenizer.to_str(pretty=False)) + "\n"


def main(arguments: list[str]) -> None:
    """Train the tokenizer and write it to the file named, or to where it ships."""
    path = Path(arguments[0]) if arguments else SHIPPED_TOKENIZERS["tiny"]
    text = train_tokenizer()
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    print(f"{path}: {len(text):,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
