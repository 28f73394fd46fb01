"""What tests see of processes and their sockets."""

import subprocess
import sys

from zip_pipeline_tests.processes import is_loopback, listeners, process_tree

_LISTEN = """
import socket, sys
hosts = [("0.0.0.0", 2), ("127.0.0.1", 2), ("::", 10), ("::1", 10), ("::ffff:127.0.0.1", 10)]
held = [socket.socket(family) for _, family in hosts]
for listener, (host, _) in zip(held, hosts):
    listener.bind((host, 0))
    listener.listen()
print("up", flush=True)
sys.stdin.read()
"""
_START = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def test_sockets_that_a_child_of_a_process_listens_on_are_found() -> None:
    """Those of the whole tree, with their addresses, and no connection or socket of others."""
    with subprocess.Popen(
        [sys.executable, "-c", _START, _LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert listeners([process.pid]) == []
        found = listeners(process_tree(process.pid))
        process.communicate()
    assert found == ["0.0.0.0", "127.0.0.1", "127.0.0.1", "::", "::1"]
    assert [is_loopback(address) for address in found] == [False, True, True, False, True]
    assert listeners(process_tree(process.pid)) == []
