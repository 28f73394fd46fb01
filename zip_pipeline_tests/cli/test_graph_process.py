"""The graph's process: its exit code, its words and its end."""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from zip_pipeline.cli import run
from zip_pipeline.cli.run import run_graph
from zip_pipeline.terminal_text import show_control_characters


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of a module that stands for the graph."""
    monkeypatch.setattr(run, "_GRAPH", "some_graph")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "some_graph.py"


def test_what_the_graph_prints_is_shown_where_it_was_printed(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every byte arrives on its stream, escaped; the exit code is passed on."""
    graph.write_text(
        "import os, sys\n"
        "os.write(1, b'a\\x1b[2J\\xff\\xc3')\n"
        "os.write(1, b'\\xa9' + b'x' * 200_000 + b'\\n')\n"
        "os.write(2, b'b\\r\\n\\xc3')\n"
        "sys.exit(3)\n"
    )
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", sys.stdout)
        patch.setattr(sys, "stderr", sys.stderr)
        show_control_characters()
        assert run_graph(tmp_path) == (3, [])
    printed = capsys.readouterr()
    assert printed.out == r"a\x1b[2J\udcffé" + "x" * 200_000 + "\n"
    assert printed.err == "b\\r\n\\udcc3"
    graph.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert run_graph(tmp_path) == (137, [])


def test_lines_arrive_while_the_graph_works(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line is not held back until the process ends."""
    go_on = tmp_path / "go_on"
    graph.write_text(
        "import pathlib, time\n"
        "print('begun', flush=True)\n"
        f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.01)\n"
    )
    done = threading.Thread(target=run_graph, args=(tmp_path,))
    done.start()
    printed = ""
    deadline = time.monotonic() + 30
    while "begun\n" not in printed and time.monotonic() < deadline:
        time.sleep(0.01)
        printed += capsys.readouterr().out
    assert done.is_alive()
    go_on.touch()
    done.join(30)
    assert printed == "begun\n"


def test_the_graph_has_ended_even_if_a_process_of_it_has_not(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A child that lives on and could still print is not waited for."""
    graph.write_text(
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid)\n"
    )
    started = time.monotonic()
    assert run_graph(tmp_path) == (0, [])
    seconds = time.monotonic() - started
    child = int(capsys.readouterr().out)
    assert Path(f"/proc/{child}").exists()
    os.kill(child, signal.SIGKILL)
    assert seconds < 30


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Let nothing that other tests left be collected meanwhile.

    Python drops a Ctrl-C that comes while it calls back for a weak reference.
    """
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.slow
def test_ctrl_c_ends_the_graph(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has a moment for its last words, then it is ended; the command says how to go on."""
    graph.write_text(
        "import os, signal, time\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        # The moment after it was told.
        "time.sleep(0.1)\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(run, "_SECONDS_TO_END", 3)
    with pytest.raises(typer.Exit) as ended:
        run_graph(tmp_path)
    assert ended.value.exit_code == 130
    printed = capsys.readouterr()
    assert not Path(f"/proc/{int(printed.out)}").exists()
    assert printed.err == "Interrupted. Run the command again: what is finished is kept.\n"
