"""Sizes measured by several processes are those measured here, and no process outlives its use."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from zip_pipeline.compression.codecs.deflate import MIN_QUESTIONS, DeflateMeasurer, _parts
from zip_pipeline.compression.sets import DeflateSet, Framing
from zip_pipeline.compression.texts import TemporaryTexts

FRAMING = Framing(b"[", b", ", b"]")


def _texts(num: int = 900) -> list[bytes]:
    rng = np.random.default_rng(5)
    words = [b"w%d " % n for n in rng.integers(0, 3000, 200)]
    return [b"".join(rng.choice(words, n)) for n in rng.integers(0, 60, num)]


def _children() -> list[int]:
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return [int(pid) for pid in path.read_text().split()]


def test_processes_give_the_sizes_of_one_set() -> None:
    """Bit-identical to a set in this process, after every addition, before and after they start."""
    flat = _texts()
    everyone = np.arange(len(flat))
    few = everyone[:40]
    expected = DeflateSet(9, FRAMING)
    with TemporaryTexts.write([flat]) as texts, DeflateMeasurer(texts, 3, 9, FRAMING) as measurer:
        given = measurer.new_set("given")
        for members in ([], [3, 500], [7]):
            expected.add(texts.read(members))
            given.add(np.array(members, dtype=np.int64))
            for asked in (few, everyone, few):
                wanted = expected.ratios_with(texts.read(asked)).tolist()
                assert given.ratios_with(asked).tolist() == wanted
                bytes_wanted = expected.marginal_bytes(texts.read(asked)).tolist()
                assert given.marginal_bytes(asked).tolist() == bytes_wanted


@pytest.mark.parametrize(("num_texts", "num_workers"), [(17, 2), (5000, 2), (60_000, 3000)])
def test_parts_hold_every_text_once_and_their_numbers_fit_a_pipe(
    num_texts: int, num_workers: int
) -> None:
    """However large a question and however many the processes, no number waits to be written."""
    num_bytes = np.random.default_rng(1).integers(0, 3000, num_texts)
    order, borders = _parts(num_bytes, num_workers)
    assert sorted(order.tolist()) == list(range(num_texts))
    assert (borders[0], borders[-1]) == (0, num_texts)
    assert (np.diff(borders) > 0).all()
    assert len(borders) - 1 <= 2049
    cost = np.add.reduceat(num_bytes[order] + 200, borders[:-1])
    assert cost.max() <= max(4096, cost.sum() / min(128 * num_workers, 2048)) + 3200


def test_a_new_set_takes_the_place_of_one_of_its_name() -> None:
    """After a new start the processes have forgotten the members of the old set."""
    flat = _texts()
    everyone = np.arange(len(flat))
    with TemporaryTexts.write([flat]) as texts, DeflateMeasurer(texts, 2) as measurer:
        first = measurer.new_set("picked")
        alone = first.ratios_with(everyone).tolist()
        first.add(np.array([1, 2, 3]))
        assert first.ratios_with(everyone).tolist() != alone
        assert measurer.new_set("picked").ratios_with(everyone).tolist() == alone


def test_processes_start_when_they_pay_and_end_with_the_measurer() -> None:
    """A few questions are answered here; after closing no process is left."""
    flat = _texts()
    before = len(_children())
    with TemporaryTexts.write([flat]) as texts:
        with DeflateMeasurer(texts, 2) as measurer:
            given = measurer.new_set("given")
            given.ratios_with(np.arange(MIN_QUESTIONS - 1))
            assert len(_children()) == before
            given.ratios_with(np.arange(17))
            assert len(_children()) == before + 2
        assert len(_children()) == before


def test_no_more_processes_start_than_four_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand workers on one core are four, and give the same sizes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    before = len(_children())
    everyone = np.arange(MIN_QUESTIONS)
    ratios = []
    with TemporaryTexts.write([_texts()]) as texts:
        for workers, num_processes in ((100_000, 4), (1, 0)):
            with DeflateMeasurer(texts, workers) as measurer:
                given = measurer.new_set("given")
                ratios.append(given.ratios_with(everyone).tolist())
                assert len(_children()) == before + num_processes
    assert ratios[0] == ratios[1]


def test_one_worker_measures_in_this_process() -> None:
    """No process is started for a single worker."""
    before = len(_children())
    with TemporaryTexts.write([_texts()]) as texts, DeflateMeasurer(texts, 1) as measurer:
        assert len(measurer.new_set("given").ratios_with(np.arange(900))) == 900
        assert len(_children()) == before


def test_a_killed_process_is_an_error_that_says_what_to_do() -> None:
    """A selection never goes on with half of the sizes, and never waits for ever."""
    with TemporaryTexts.write([_texts()]) as texts, DeflateMeasurer(texts, 2) as measurer:
        given = measurer.new_set("given")
        before = set(_children())
        given.ratios_with(np.arange(900))
        victim = (set(_children()) - before).pop()
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"killed, perhaps.*exit code -9.*fewer workers"):
            given.ratios_with(np.arange(900))


def test_a_process_that_does_not_end_by_itself_is_ended() -> None:
    """Closing takes no longer than a moment, whatever the processes are at."""
    with TemporaryTexts.write([_texts()]) as texts, DeflateMeasurer(texts, 2) as measurer:
        before = set(_children())
        measurer.new_set("given").ratios_with(np.arange(900))
        stopped = set(_children()) - before
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        measurer.close()
        assert time.monotonic() - started < 10
        assert not stopped & set(_children())


def test_processes_end_when_their_starter_is_killed(tmp_path: Path) -> None:
    """Nothing is left to measure for nobody."""
    code = (
        "import sys, time, numpy as np\n"
        "from zip_pipeline.compression.codecs.deflate import DeflateMeasurer\n"
        "from zip_pipeline.compression.texts import TemporaryTexts\n"
        "from pathlib import Path\n"
        "texts = TemporaryTexts.write([[b'a %d' % n for n in range(600)]], Path(sys.argv[1]))\n"
        "measurer = DeflateMeasurer(texts, 2)\n"
        "measurer.new_set('given').ratios_with(np.arange(600))\n"
        "print(*(p.pid for p in measurer.crew(0)._processes), flush=True)\n"
        "time.sleep(60)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    pids = [int(pid) for pid in starter.stdout.readline().split()]
    assert len(pids) == 2
    starter.kill()
    starter.wait()
    deadline = time.monotonic() + 10
    while alive := [pid for pid in pids if _is_running(pid)]:
        assert time.monotonic() < deadline, f"still running: {alive}"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
