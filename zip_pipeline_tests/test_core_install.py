"""What `pip install zip-pipeline` installs, without any extra, is enough for the core."""

import ast
import os
import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import zip_pipeline
from zip_pipeline.errors import EXTRAS
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl

ROOT = Path(zip_pipeline.__file__).parents[1]
# Python imports this before anything else, in child processes too. The libraries of extras are
# not found then, as where they are not installed.
_SITE = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
blocked = {libraries!r}
PathFinder.find_spec = lambda name, *rest: (
    None if name.partition(".")[0] in blocked else find(name, *rest)
)
"""
_HEAVY = ("torch", "dagster", "transformers", "matplotlib", "ray", "scipy", "polars", "numpy")


def _python(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python in ``folder`` without the libraries that extras install."""
    (folder / "sitecustomize.py").write_text(_SITE.format(libraries=sorted(EXTRAS)))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


def _extras() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        name: [_library(re.split(r"[<>=\[ ]", need)[0]) for need in needs]
        for name, needs in extras.items()
    }


def _library(package: str) -> str:
    """Return what a package is imported as."""
    return {"scikit-learn": "sklearn"}.get(package, package.replace("-", "_"))


def _imported_libraries() -> set[str]:
    """Return what the package imports anywhere, besides itself and the standard library."""
    found: set[str] = set()
    for path in (ROOT / "zip_pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"zip_pipeline"}


def test_every_library_is_of_the_core_or_of_the_extra_that_messages_name() -> None:
    """Nothing is imported that no install brings, and no message names the wrong extra."""
    extras = _extras()
    assert {library for library, extra in EXTRAS.items() if library not in extras[extra]} == set()
    brought_by_others = {
        *("PIL", "dagster_pipes", "dagster_shared", "safetensors", "threadpoolctl"),
    }
    assert _imported_libraries() - set(extras[""]) - set(EXTRAS) - brought_by_others == set()
    assert not set(extras[""]) & set(EXTRAS)


def test_import_is_light() -> None:
    """The package itself costs next to nothing: what is heavy comes when it is asked for."""
    code = f"import sys, zip_pipeline; print([m for m in {_HEAVY} if m in sys.modules])"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.stdout == "[]\n"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_the_whole_interface_needs_neither_torch_nor_dagster(tmp_path: Path) -> None:
    """Every public name can be had without what extras install."""
    code = "import zip_pipeline as zp; print(len([getattr(zp, name) for name in zp.__all__]))"
    result = _python(tmp_path, "-c", code)
    assert result.stdout == f"{len(zip_pipeline.__all__)}\n", result.stderr


@pytest.mark.slow
def test_commands_of_the_core_work_without_extras(tmp_path: Path) -> None:
    """Select, as published too, ratio and trace need nothing that an extra installs."""
    write_jsonl(tmp_path / "in.jsonl", sft_records(40))
    budget = ("--budget-samples", "5", "--k1", "20", "--k2", "10", "--k3", "5")
    for out, *more in (
        ("zip.jsonl",),
        ("long.jsonl", "--strategy", "long_range"),
        ("published.jsonl", "--reference-compat"),
    ):
        command = ("-m", "zip_pipeline.cli", "select", "in.jsonl", "-o", out, *budget, *more)
        result = _python(tmp_path, *command)
        assert result.returncode == 0, result.stderr
        assert len((tmp_path / out).read_text().splitlines()) == 5
    result = _python(tmp_path, "-m", "zip_pipeline.cli", "ratio", "in.jsonl")
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ("run", "--data-root", "data", "--until", "subset"),
            "Error: zip-pipeline run needs dagster, which is not installed: "
            "pip install 'zip-pipeline[dagster]'\n",
        ),
        (
            ("train-plan", "tiny", "picked.parquet"),
            "Error: zip-pipeline train-plan needs transformers, which is not installed: "
            "pip install 'zip-pipeline[train]'\n",
        ),
        (
            (
                "select",
                "in.jsonl",
                "-o",
                "x.jsonl",
                "--budget-samples",
                "3",
                "--strategy",
                "zip",
                "--shards",
                "2",
                "--ray",
                "local",
            ),
            "Error: --ray: Ray is not installed; install it with "
            "pip install 'zip-pipeline[ray]', "
            "or select without it: the shards are then done one after another\n",
        ),
    ],
)
def test_commands_name_the_extra_that_they_lack(
    tmp_path: Path, command: tuple[str, ...], message: str
) -> None:
    """A command whose libraries are missing says in one line what to install."""
    (tmp_path / "data" / "raw" / "sft").mkdir(parents=True)
    for path in (tmp_path / "in.jsonl", tmp_path / "data" / "raw" / "sft" / "in.jsonl"):
        write_jsonl(path, sft_records(6))
    zip_pipeline.select(tmp_path / "in.jsonl", budget_samples=3).write(tmp_path / "picked.parquet")
    result = _python(tmp_path, "-m", "zip_pipeline.cli", *command)
    assert (result.returncode, result.stderr) == (2, message)
