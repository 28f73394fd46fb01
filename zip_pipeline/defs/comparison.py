"""Every strategy on the same pool, budget and training: subset, model and what they come to."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import dagster as dg

from zip_pipeline.defs.keys import compression_state_key, model_key, owners, raw_pool_key
from zip_pipeline.defs.metadata import listed, picture, rounded, shown, shown_table
from zip_pipeline.defs.pipes import mendable, run_modules
from zip_pipeline.defs.resources import DataRootResource
from zip_pipeline.files import fingerprint
from zip_pipeline.report.comparison import YARDSTICK, words_of_skips
from zip_pipeline.samples import Stage
from zip_pipeline.selection.strategies import strategies
from zip_pipeline.workflow.comparison import (
    ComparisonResult,
    compare_model,
    compare_result,
    compare_subset,
)
from zip_pipeline.workflow.comparison_plan import MAX_SEEDS, TABLES

COMPARISON_CODE_VERSION = "1"
_OF_SUBSET = (
    "skipped", "num_picked", "picked_tokens", "picked_target_tokens", "pool_fingerprint",
)  # fmt: skip


def comparison_key(stage: Stage, name: str) -> dg.AssetKey:
    """Return the key of the ``subset``, ``model`` or ``result`` of a stage's comparison.

    That of SFT, which there was first, has no stage in its key.
    """
    return dg.AssetKey(["comparison", *(() if stage == "sft" else (stage,)), name])


def comparison_assets(stage: Stage) -> list[dg.AssetsDefinition]:
    """Return ``subset``, ``model`` and ``result`` of a stage's comparison.

    Nothing materialises them by itself: they train as many models as they have partitions.
    """
    return [_subset_asset(stage), _model_asset(stage), _result_asset(stage)]


def _partitions() -> dg.MultiPartitionsDefinition:
    return dg.MultiPartitionsDefinition(
        {
            "strategy": dg.StaticPartitionsDefinition([YARDSTICK, *strategies.names()]),
            "seed": dg.StaticPartitionsDefinition([str(seed) for seed in range(MAX_SEEDS)]),
        }
    )


def _start(stage: Stage) -> list[dg.AssetKey]:
    """Return the model that those of the comparison start from, where the graph makes it."""
    return [model_key("sft")] if stage == "preference" else []


def _subset_asset(stage: Stage) -> dg.AssetsDefinition:
    @dg.asset(
        key=comparison_key(stage, "subset"),
        group_name="comparison",
        owners=owners(),
        kinds={"polars", "parquet"},
        code_version=COMPARISON_CODE_VERSION,
        deps=[
            # A subset is of all drops, which are partitions of another kind.
            *(
                dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())
                for key in (raw_pool_key(stage), compression_state_key(stage))
            ),
            *_start(stage),
        ],
        partitions_def=_partitions(),
        description=f"What a strategy picks of the {stage} pool within the budget of "
        f"[{TABLES[stage]}]; every seed leaves out another tenth. Where it cannot select, the "
        "reason.",
    )
    def subset(
        context: dg.AssetExecutionContext, data_root: DataRootResource
    ) -> dg.MaterializeResult[None]:
        run = _strategy_and_seed(context)
        with mendable():
            manifest = compare_subset(data_root.root, *run, log=context.log.info, stage=stage)
        return _run_result({name: manifest[name] for name in _OF_SUBSET if name in manifest})

    return subset


def _model_asset(stage: Stage) -> dg.AssetsDefinition:
    @dg.asset(
        key=comparison_key(stage, "model"),
        group_name="comparison",
        owners=owners(),
        kinds={"pytorch", "huggingface"},
        code_version=COMPARISON_CODE_VERSION,
        deps=[comparison_key(stage, "subset"), *_start(stage)],
        partitions_def=_partitions(),
        pool="gpu",
        description="The model that is trained on the subset, alike for all but for the seed, with "
        f"its losses on held-out samples, R, L and the diversity of the subset. {_STARTS[stage]}",
    )
    def model(
        context: dg.AssetExecutionContext, data_root: DataRootResource
    ) -> dg.MaterializeResult[None]:
        run, run_jobs = _strategy_and_seed(context), partial(run_modules, context)
        with mendable():
            figures = compare_model(
                data_root.root, *run, run_jobs, log=context.log.info, stage=stage
            )
        return _run_result(figures)

    return model


_STARTS: Mapping[Stage, str] = {
    "sft": "Each starts from the base model.",
    "preference": "Each is trained as preference/model is, and starts from the same SFT model.",
}


def _result_asset(stage: Stage) -> dg.AssetsDefinition:
    @dg.asset(
        key=comparison_key(stage, "result"),
        group_name="comparison",
        owners=owners(),
        kinds={"polars", "parquet"},
        code_version=COMPARISON_CODE_VERSION,
        deps=[comparison_key(stage, "model")],
        description="Mean of every figure by strategy, paired differences to source-balanced "
        "random with 95% intervals over seeds, how Z, R and L hang together over all runs, and "
        "one sentence: what to use on this pool.",
    )
    def result(data_root: DataRootResource) -> dg.MaterializeResult[None]:
        with mendable():
            return _result(compare_result(data_root.root, stage=stage))

    return result


def _strategy_and_seed(context: dg.AssetExecutionContext) -> tuple[str, int]:
    key = context.partition_key
    assert isinstance(key, dg.MultiPartitionKey)
    return key.keys_by_dimension["strategy"], int(key.keys_by_dimension["seed"])


def _run_result(metadata: dict[str, Any]) -> dg.MaterializeResult[None]:
    version = fingerprint([str(sorted(metadata.items()))])
    return dg.MaterializeResult(metadata=rounded(metadata), data_version=dg.DataVersion(version))


# Of ComparisonResult.shown, whose last one is there with scipy alone.
_TABLES = ("losses", "figures", "redundancy_and_diversity", "picks_in_common", "entropy_law")


def _result(found: ComparisonResult) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={
            "conclusion": " ".join([found.conclusion, *found.certainty]),
            **{name: shown(table) for name, table in zip(_TABLES, found.shown, strict=False)},
            "settings": found.settings or "none yet",
            "notes": listed(found.notes),
            "skipped": listed(words_of_skips(found.skipped)),
            **{f"plot_{name}": picture(png, name) for name, png in found.figures.items()},
            "runs": shown_table(found.runs),
            "picked_alone": shown_table(found.alone),
            "path": dg.MetadataValue.path(str(found.folder)),
        },
        data_version=dg.DataVersion(fingerprint([found.runs.write_json()])),
    )
