"""Tokenizers of the two large model families, trained on a few words, and of the tiny model."""

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from zip_pipeline.training.base_model import tiny_tokenizer
from zip_pipeline.training.presets import apply_template

WORDS = [
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions.",
    "USER: ASSISTANT: TOOL: hello there, be brief! 1 + 1 = 2",
]
# How Llama-3 splits text: line ends stay together.
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Return one of Mistral's kind: spaces become part of the token behind them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(WORDS * 9, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def byte_level() -> PreTrainedTokenizerFast:
    """Return one of Llama-3's kind, with its special tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA_3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    names = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id")
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[f"<|{name}|>" for name in names],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [*WORDS * 9, *["system user assistant ipython"] * 9, *["\n\n"] * 9], trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"
    )


def chatml_like() -> PreTrainedTokenizerFast:
    """Return one of SmolLM2's kind, with its special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


def templated(name: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer of the family that a shipped template is for, with that template."""
    makers = {
        "tiny": tiny_tokenizer,
        "vicuna": sentencepiece_like,
        "chatml": chatml_like,
        "llama-3": byte_level,
    }
    tokenizer = makers[name]()
    apply_template(tokenizer, name)
    return tokenizer
