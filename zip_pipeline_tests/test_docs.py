"""README and docs: every block is run, and every option, command, name and link is right.

A block of commands or Python runs as it stands, in a folder of its page that holds what the page
takes for granted: a file of one's own, a target, settings that keep the work small. ``make`` only
says what it would do. What needs the network says so in a comment in front of the block.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import typer
import yaml

import zip_pipeline
from zip_pipeline.cli import app
from zip_pipeline.compression.tokens import TINY_MODEL
from zip_pipeline.data_root import DataRoot
from zip_pipeline.defs.alerts import AlertSettings
from zip_pipeline.evaluation.mt_bench import mt_bench_settings_of
from zip_pipeline.evaluation.quality import quality_audit_settings_of
from zip_pipeline.ingest.drops import read_drop_file, read_sidecar
from zip_pipeline.ingest.formats import FORMATS
from zip_pipeline.ingest.options import ReadOptions
from zip_pipeline.pool.held_out import HeldOutSettings, held_out_settings
from zip_pipeline.samples import STAGES
from zip_pipeline.selection.config import SelectionConfig, stage_selection
from zip_pipeline.selection.ledger import FATES
from zip_pipeline.selection.strategies import strategies
from zip_pipeline.settings import (
    SETTINGS_FILE,
    TABLES,
    Settings,
    TrainingSettings,
    read_settings,
    read_table,
    training_settings,
)
from zip_pipeline.signals import signals
from zip_pipeline.store import StoreSettings
from zip_pipeline.training.presets import TEMPLATES, load_preset
from zip_pipeline.workflow.comparison_plan import ComparisonSettings
from zip_pipeline.workflow.sharing import store_settings
from zip_pipeline_tests.cli.pools import write_jsonl

ROOT = Path(zip_pipeline.__file__).parents[1]
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
PAGES = ["README.md", "CONTRIBUTING.md", "data/README.md", *DOCS]
LANGUAGES = {"sh", "python", "toml", "mermaid", "text"}
NOT_RUN = {"README.md": 1, "docs/formats.md": 1, "docs/guide.md": 2, "docs/operators.md": 2}
MAX_WORDS = 900


@dataclass(frozen=True)
class Block:
    """A fenced block; ``title`` is what follows its language, ``reason`` why it is not run."""

    page: str
    line: int
    language: str
    title: str
    text: str
    reason: str


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _blocks(page: str) -> Iterator[Block]:
    lines = _text(page).splitlines()
    starts = [n for n, line in enumerate(lines) if line.lstrip().startswith("```")]
    assert len(starts) % 2 == 0
    for start, end in zip(starts[::2], starts[1::2], strict=True):
        language, _, title = lines[start].strip().removeprefix("```").partition(" ")
        text = textwrap.dedent("\n".join(lines[start + 1 : end])) + "\n"
        comment = re.fullmatch(r"\s*<!-- not run: (.+) -->", lines[start - 1])
        yield Block(page, start + 1, language, title, text, comment[1] if comment else "")


BLOCKS = [block for page in PAGES for block in _blocks(page)]


def test_every_block_is_run_or_says_why_not() -> None:
    """A block has a language that a test knows; text is no way around it."""
    assert {block.language for block in BLOCKS} == LANGUAGES
    not_run = [block.page for block in BLOCKS if block.reason]
    assert {page: not_run.count(page) for page in not_run} == NOT_RUN
    commands = re.compile(r"^\s*(zip-pipeline|make|pip|python3?|docker) ", re.MULTILINE)
    of_text = [block for block in BLOCKS if block.language in ("text", "mermaid")]
    assert [block for block in of_text if commands.search(block.text)] == []


def test_readme_is_short() -> None:
    """All that stands between white space counts, in tables, blocks and links as well."""
    assert len(_text("README.md").split()) <= MAX_WORDS


def test_picture_of_the_readme_is_small() -> None:
    """The only made file that is kept: ``zip_pipeline_tests/report/picture.py`` takes it anew."""
    (picture,) = re.findall(r"!\[[^]]{20,}\]\(([^)]+)\)", _text("README.md"))
    data = (ROOT / picture).read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    assert len(data) < 150_000


def test_citation_is_of_this_version() -> None:
    """What is cited is the version that is installed from here, under its licence."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])


def test_commands_and_their_options_exist() -> None:
    """What is called zip-pipeline anywhere, in a sentence too, has that command and options."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    in_words = re.compile(r"`zip-pipeline ([^`]+)`")
    called = [call for page in PAGES for call in in_words.findall(_text(page))]
    called += [
        line.partition("#")[0].removeprefix("zip-pipeline ")
        for block in BLOCKS
        for line in block.text.splitlines()
        if block.language == "sh" and line.startswith("zip-pipeline ")
    ]
    assert len(called) > 40
    for call in called:
        name, *arguments = call.split()
        assert name in commands, call
        known = {option for parameter in commands[name].params for option in parameter.opts}
        given = {word for word in arguments if re.match(r"--?[a-z]", word)}
        assert given <= known, call


def test_links_lead_somewhere() -> None:
    """A link to a page or one of its sections finds it."""
    links = [
        (page, *link)
        for page in (*PAGES, "AGENTS.md", "EXPERIMENTS.md", "SECURITY.md")
        for link in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", _text(page))
    ]
    assert len(links) > 40
    for page, file, section in links:
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), (page, file)
        if section:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert section in slugs, (page, file, section)


def option_rows(kind: type[Settings]) -> list[str]:
    """Return the table of the options of settings, as it must stand in the docs."""
    rows = []
    for name, field in kind.model_fields.items():
        has_default = not field.is_required() and field.default not in (None, "", {}, (), [])
        default = str(field.default).lower() if has_default else ""
        rows.append(f"| `{name}` | {default} | {kind.allowed(name)} | {kind.about(name)} |")
    return rows


_OF_SIGNALS = [signals[name].settings for name in signals.names()]


@pytest.mark.parametrize(
    "kind",
    [
        *(SelectionConfig, TrainingSettings, HeldOutSettings, ReadOptions, ComparisonSettings),
        AlertSettings,
        StoreSettings,
        *dict.fromkeys(_OF_SIGNALS),
    ],
)
def test_docs_have_every_option(kind: type[Settings]) -> None:
    """The tables of options are what the fields say: name, default, range, use."""
    rows, text = option_rows(kind), "\n".join(map(_text, DOCS))
    assert [row for row in rows if row not in text] == []
    assert "\n".join(rows) in text


def _named_in_first_column(page: str, start: str, end: str) -> list[str]:
    section = _text(page).partition(start)[2].partition(end)[0]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_strategies_formats_and_fates_are_all_described() -> None:
    """A new strategy, format or fate has to be told of, and a dropped one is not."""
    told = _named_in_first_column("docs/strategies.md", "## All of them", "\n## ")
    assert sorted(told) == sorted(strategies.names())
    assert f"- {len(told)} **strategies**" in _text("README.md")
    section = _text("docs/formats.md").partition("## Known formats")[2].partition("\n## ")[0]
    assert sorted(FORMATS) == sorted(set(re.findall(r"`(\w+)`", section)) - {"label", "kto_tag"})
    assert sorted(_named_in_first_column("docs/formats.md", "| fate |", "\n## ")) == sorted(FATES)


def test_graph_of_the_readme_is_the_graph() -> None:
    """Each arrow of the picture leads from an asset to one that is made of it."""
    from zip_pipeline.definitions import defs

    repository = defs().get_repository_def() if callable(defs) else defs.get_repository_def()
    graph = repository.asset_graph
    keys = {key.to_user_string(): key for key in graph.get_all_asset_keys()}
    (picture,) = [block.text for block in BLOCKS if block.language == "mermaid"]
    names = dict(re.findall(r'(\w+)\["([^"]+)"\]', picture))
    plain = re.sub(r'\["[^"]+"\]|\|[^|]+\|', "", picture)
    chains = [line.split("-->") for line in plain.splitlines() if "-->" in line]
    arrows = {pair for chain in chains for pair in pairwise(chain)}
    assert len(arrows) == 11
    for arrow in arrows:
        start, end = (names.get(name.strip(), name.strip()) for name in arrow)
        start, end = (name if name in keys else f"sft/{name}" for name in (start, end))
        assert keys[start] in graph.get(keys[end]).parent_keys, arrow


_TOML = [block for block in BLOCKS if block.language == "toml"]


@pytest.mark.parametrize("block", _TOML, ids=lambda block: f"{block.page}:{block.line}")
def test_settings_of_the_docs_are_right(tmp_path: Path, block: Block) -> None:
    """Each block is taken by those that read the file which it is of."""
    folder = DataRoot(tmp_path)["sft"]
    folder.raw.mkdir(parents=True)
    name = block.title or SETTINGS_FILE
    path = (folder.raw if block.title else tmp_path) / name
    path.write_text(block.text, encoding="utf-8")
    if name.endswith(".drop.toml"):
        assert read_drop_file(path)[0].startswith("hf://")
    elif name.endswith(".batch.toml"):
        assert read_sidecar(folder, name.removesuffix(".batch.toml")) != ReadOptions()
    else:
        assert name == SETTINGS_FILE
        assert any(read_table(tmp_path, table) for table in TABLES)
        for stage in STAGES:
            stage_selection(tmp_path, stage)
        for table in ("comparison", "preference_comparison"):
            read_settings(tmp_path, table, ComparisonSettings)
        training = training_settings(tmp_path)
        load_preset(training.preset, training.overrides)
        held_out_settings(DataRoot(tmp_path))
        mt_bench_settings_of(tmp_path)
        quality_audit_settings_of(tmp_path)
        read_settings(tmp_path, "alerts", AlertSettings)
        store_settings(DataRoot(tmp_path))


# What keeps the work of a page small: the commands stay as they are.
_SMALL = """
[sft]
budget_tokens = 4_000
[preference]
budget_tokens = 2_000
[comparison]
seeds = 1
budget_tokens = 1_500
evaluation_samples = 4
[training.overrides]
max_length = 64
"probe.steps" = 3
"""
_THINGS = ["cards", "coins", "boxes", "shoes", "files", "plates"]
_ANSWER = (
    "Lay the {word} out in a row of {n}. Look at the first two: if the larger one stands on the "
    "left, swap them. Go on to the right end, and begin again until no {word} were swapped. That "
    "takes at most {more} looks."
)


def _prepare(folder: Path) -> dict[str, str]:
    """Put what pages take for granted into a folder; return the environment of their blocks."""
    chats = [
        {
            "messages": [
                {
                    "role": "user",
                    "content": f"How do I sort {n} {word} by hand, and in what order?",
                },
                {"role": "assistant", "content": _ANSWER.format(n=n, word=word, more=n * n)},
            ],
            "meta": {"score": n % 5},
        }
        for n, word in enumerate(_THINGS * 4)
    ]
    write_jsonl(folder / "mine.jsonl", [*chats, '{"messages": []}'])
    write_jsonl(folder / "target.jsonl", chats[1::3])
    rows = "".join(f"Where is town {n}?,North of town {n + 1}.\n" for n in range(20))
    (folder / "other.csv").write_text("inputs,targets\n" + rows)
    shutil.copy(ROOT / "dagster.yaml", folder)
    (folder / "data").mkdir()
    (folder / "data" / SETTINGS_FILE).write_text(_SMALL)
    # In the place of the hub's: a small model that writes conversations by a template of its own.
    model = shutil.copytree(TINY_MODEL, folder / "HuggingFaceTB" / "SmolLM2-135M-Instruct")
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["chat_template"] = TEMPLATES["tiny"].text
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    programs = folder / "bin"
    programs.mkdir()
    for name, command in {
        "zip-pipeline": f'"{sys.executable}" -m zip_pipeline.cli "$@"',
        "python": f'"{sys.executable}" "$@"',
        "make": f'{shutil.which("make")} -n -C "{ROOT}" "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (programs / name).chmod(0o755)
    left = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER_", "ZIP_PIPELINE_"))}
    return left | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


_QUICK = ["CONTRIBUTING.md", "docs/formats.md", "docs/operators.md"]
_SLOW = ["README.md", "docs/guide.md", "docs/strategies.md"]


def test_every_page_with_commands_is_run() -> None:
    """The test below has all of them."""
    assert {b.page for b in BLOCKS if b.language in ("sh", "python")} == {*_QUICK, *_SLOW}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "page", [*_QUICK, *(pytest.param(page, marks=pytest.mark.slow) for page in _SLOW)]
)
def test_blocks_of_a_page_run(tmp_path: Path, page: str) -> None:
    """One after another, in one folder; a ``continued`` one begins with those before it."""
    environment = _prepare(tmp_path)
    earlier = ""
    for block in _blocks(page):
        if block.reason or block.language not in ("sh", "python"):
            continue
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        if block.language == "python":
            earlier = earlier * (block.title == "continued") + block.text
            command = [sys.executable, "-c", earlier]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{page}:{block.line}\n{block.text}\n{done.stdout}"
        assert done.stdout or block.language == "python", f"{page}:{block.line}: says nothing"
