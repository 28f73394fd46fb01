"""``zip-pipeline sample-data``: a small pool to try the pipeline on."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from zip_pipeline.cli.console import new_table, output, words_of_bytes
from zip_pipeline.sample_data import write_sample_data

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="Data root to fill: drops go to DIR/raw/sft and DIR/raw/preference."
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="The same seed gives the same bytes.")]
State = Annotated[
    Literal["x1", "x2", "x3", "x4", "x5"],
    typer.Option(
        help="State of the pool: x1 to x4 add one SFT drop each, x5 replaces two of them by a "
        "broken re-export."
    ),
]
Scale = Annotated[
    float,
    typer.Option(metavar="X", help="Factor on the rows: 1 gives about 4,100 SFT rows in x4."),
]


def sample_data(folder: Folder, seed: Seed = 0, state: State = "x4", scale: Scale = 1.0) -> None:
    """Write a small, lifelike pool into the drop folders of DIR; files of your own stay."""
    files = write_sample_data(folder, seed=seed, state=state, scale=scale)
    table = new_table("drop", "size")
    for path in files:
        table.add_row(str(path), words_of_bytes(path.stat().st_size))
    output().print(table)
    option = "" if str(folder) == "data" else f" --data-root {folder}"
    output().print(f"Next: zip-pipeline run{option}", soft_wrap=True)
