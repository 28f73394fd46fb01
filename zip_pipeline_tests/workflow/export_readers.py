"""A program: read an export with the code of another trainer, and print the rows as JSON.

``python export_readers.py TRAINER LIBRARIES NAME...``, in the folder of the export. LIBRARIES holds
what the trainer is, without what it depends on; each NAME is a configuration or a data set.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import datasets
import yaml


def axolotl(configuration: str) -> list[dict[str, Any]]:
    """Return rows as axolotl's strategies make them, by a configuration that its schema takes."""
    from transformers import AutoTokenizer

    need = {"base_model": "model", "micro_batch_size": 1, "gradient_accumulation_steps": 1}
    need |= {"learning_rate": 1e-5, "num_epochs": 1, "sequence_len": 512}
    asked = import_module("axolotl.utils.dict").DictDefault(
        yaml.safe_load(Path(configuration).read_text(encoding="utf-8")) | need
    )
    told = import_module("axolotl.utils.config").validate_config(asked)
    (described,) = told.datasets
    # As axolotl.utils.data.shared loads a file; that module wants libraries that we do not have.
    rows = datasets.load_dataset("parquet", data_files=described.path, split="train")
    tokenizer = AutoTokenizer.from_pretrained("model")
    if told.rl == "kto":
        write = import_module("axolotl.prompt_strategies.kto").load(described.type, told)
        return list(rows.map(write))
    if told.rl == "dpo":
        load = import_module("axolotl.prompt_strategies.dpo").load
        write, options = load(described.type, told, dataset_idx=0)
        return list(rows.map(write, fn_kwargs={"tokenizer": tokenizer}, **options))
    load = import_module("axolotl.prompt_strategies").load
    strategy = load(described.type, tokenizer, told, described)
    assert strategy.supports_batched
    options = {"batched": True, "remove_columns": rows.column_names}
    found = []
    for row, read in zip(rows, rows.map(strategy.tokenize_prompt, **options), strict=True):
        learnt = [label for label in read["labels"] if label >= 0]
        text = {"text": tokenizer.decode(read["input_ids"]), "learnt": tokenizer.decode(learnt)}
        found.append({"tools": strategy._get_tools(row)} | text)
    return found


def llamafactory(name: str) -> list[dict[str, Any]]:
    """Return rows as LLaMA-Factory aligns them, calls and tools as its formatters read them."""
    package = ModuleType("llamafactory.data")  # which imports all that media need
    package.__path__ = [str(Path(sys.path[-1], "llamafactory", "data"))]
    sys.modules[package.__name__] = package
    loader = import_module("llamafactory.data.loader")
    (described,) = import_module("llamafactory.data.parser").get_dataset_list([name], ".")
    model = SimpleNamespace(cache_dir=None, hf_hub_token=None)
    options = {"dataset_dir": ".", "media_dir": ".", "preprocessing_num_workers": None}
    options |= {"streaming": False, "overwrite_cache": True, "max_samples": None}
    training = SimpleNamespace(local_process_index=0)
    rows = loader._load_single_dataset(described, model, SimpleNamespace(**options), training)
    formatters = import_module("llamafactory.data.formatter")
    calls = formatters.FunctionFormatter(slots=["{{content}}"], tool_format="qwen")
    tools = formatters.ToolFormatter(tool_format="qwen")
    thoughts = ("<think>\n", "\n</think>\n\n")  # of its templates
    found = []
    for row in rows:
        said = [[turn["role"], turn["content"]] for turn in [*row["_prompt"], *row["_response"]]]
        for turn in said:
            if turn[0] == "function":
                (turn[1],) = calls.apply(content=turn[1], thought_words=thoughts)
        (told,) = tools.apply(content=row["_tools"]) if row["_tools"] else [""]
        found.append({"system": row["_system"], "said": said, "tools": told})
    return found


if __name__ == "__main__":
    sys.path.append(sys.argv[2])
    readers = {"axolotl": axolotl, "llamafactory": llamafactory}
    print("\n" + json.dumps([readers[sys.argv[1]](name) for name in sys.argv[3:]]))
