"""Servers that serve one folder of models, and what their processes have opened."""
import json
import os
import pathlib
import re
import socket
import subprocess

import pytest

BIN = os.environ.get("SLIPWAY_BIN", "slipway")
LIBRARIES = ("libonnxruntime", "libtensorflow", "libpython", "libtorch")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A running server. Its address is on its first line."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([BIN, *arguments], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"listening on (\S+)", line)
        assert found, f"the server's first line is {line!r}"
        self.url = f"http://{found.group(1)}"

    def curl(self, path, body=None):
        line = ["curl", "-sS", "-w", "\n%{http_code}", f"{self.url}{path}"]
        if body is not None:
            line += ["-d", json.dumps(body)]
        done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60)
        text, code = done.stdout.rsplit("\n", 1)
        return int(code), text

    def ask(self, path, body=None):
        code, text = self.curl(path, body)
        assert code == 200, text
        return json.loads(text)

    def workers(self):
        """The processes that the server has started."""
        task = pathlib.Path(f"/proc/{self.process.pid}/task")
        children = [pid for thread in task.iterdir() for pid in (thread / "children").read_text().split()]
        return [int(pid) for pid in children]

    def opened(self):
        """Which native libraries the server's own process has mapped."""
        return opened(self.process.pid)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0


def opened(pid):
    maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
    return {library for library in LIBRARIES if library in maps}


@pytest.fixture(scope="session")
def start():
    """Starts servers and stops them at the end; those with the same arguments are shared."""
    running = {}

    def run(*arguments):
        if arguments not in running:
            running[arguments] = Server(*arguments)
        return running[arguments]

    yield run
    for server in running.values():
        server.stop()
