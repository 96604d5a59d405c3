#!/usr/bin/env python3
"""Many models in one server: memory, cold calls, start, reloads.

    bench/serving/many.py [--slipway BIN | --examples DIR] [--known 10000] [--hot 1000] [--reloads 1000]

* one iris model: resident memory after a call, and the time from its start to its first 200 on `/v2/health/ready`;
* `--hot` models, all loaded at the start and each called once: resident memory;
* `--known` models that their first call loads, `--hot` of them at a time: start, resident memory, latency of cold
  calls, while each load puts another model to sleep;
* `--reloads` reloads of one model under calls: memory after 1,000 over memory after 10, failed calls.

`--only one,hot,known,reloads` chooses. A megabyte is 2^20 bytes here.
Beside each number stands what it is to be; the exit status says whether all are. Standard library only.
"""
import argparse
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from measured import IRIS, Rows, Server, arguments, command  # noqa: E402

ROW = b'{"instances":[[5.1,3.5,1.4,0.2]]}'


class Client:
    """One connection that stays open."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method, path, body=b""):
        head = "%s %s HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % (method, path, len(body))
        self.socket.sendall(head.encode() + body)
        seen = b""
        while b"\r\n\r\n" not in seen:
            piece = self.socket.recv(65536)
            if not piece:
                raise OSError("the server closed the connection")
            seen += piece
        head, rest = seen.split(b"\r\n\r\n", 1)
        lines = head.decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
        while len(rest) < length:
            rest += self.socket.recv(65536)
        return int(lines[0].split()[1]), rest

    def predict(self, model):
        return self.ask("POST", "/v1/models/%s:predict" % model, ROW)


def start(own, flags):
    """A server that says it is ready, one connection to it, and the seconds from its start to that."""
    server = Server(own + flags, log=subprocess.DEVNULL)
    client = Client(server.address)
    if client.ask("GET", "/v2/health/ready")[0] != 200:
        sys.exit("the server is not ready")
    return server, client, time.monotonic() - server.begun


def repository(count):
    """A folder of models: each a file of its own name, all of the same bytes, which the system keeps once."""
    root = tempfile.mkdtemp(prefix="many-")
    first = os.path.join(root, "iris.joblib")
    shutil.copy(IRIS, first)
    models = os.path.join(root, "models")
    for index in range(count):
        folder = os.path.join(models, "m%05d" % index, "1")
        os.makedirs(folder)
        os.link(first, os.path.join(folder, "model.joblib"))
    return root, models


def percentile(sorted_, share):
    return sorted_[min(len(sorted_) - 1, int(len(sorted_) * share))]


def one(own, rows):
    root, models = repository(1)
    folder = os.path.join(models, "m00000", "1")
    starts, resident, anonymous = [], [], []
    try:
        for index in range(20):
            server, client, ready_s = start(own, ["--model_name", "iris", "--model_dir", folder])
            starts.append(1000 * ready_s)
            assert client.predict("iris")[0] == 200
            if index % 4 == 0:
                # What only the start and the first use needed goes after a second; what probes and calls need stays.
                time.sleep(2)
                assert client.predict("iris")[0] == 200
                assert Client(server.address).ask("GET", "/v2/health/ready")[0] == 200
                resident.append(server.resident())
                anonymous.append(server.anonymous())
            server.end()
        rows.say("one model: start to ready, median", statistics.median(starts), "ms", 30)
        rows.say("one model: resident in use, the worst of %d starts" % len(resident), max(resident), "MB", 12)
        rows.say("one model: resident, no file's", max(anonymous), "MB")
    finally:
        shutil.rmtree(root)


def hot(own, rows, count):
    root, models = repository(count)
    try:
        server, client, ready_s = start(own, ["--model_repository", models])
        rows.say("%d models loaded: start to ready" % count, ready_s, "s")
        for index in range(count):
            assert client.predict("m%05d" % index)[0] == 200
        rows.say("%d models loaded and called: resident" % count, server.resident(), "MB", 80, firm=True)
        rows.say("%d models loaded and called: no file's" % count, server.anonymous(), "MB")
        server.end()
    finally:
        shutil.rmtree(root)


def known(own, rows, count, hot_):
    root, models = repository(count)
    try:
        server, client, ready_s = start(own, ["--model_repository", models, "--lazy", "--models_max", str(hot_)])
        rows.say("%d models known: start to ready" % count, ready_s, "s")
        rows.say("%d models known, none loaded: resident" % count, server.resident(), "MB")
        random.seed(4)
        order = random.sample(range(count), min(count, 3 * hot_))
        cold = []
        for index in order:
            begun = time.monotonic()
            status, body = client.predict("m%05d" % index)
            cold.append(1000 * (time.monotonic() - begun))
            assert status == 200, body
        evicting = sorted(cold[hot_:])
        begun = time.monotonic()
        for index in order[-hot_:]:
            assert client.predict("m%05d" % index)[0] == 200
        rows.say("warm call, mean", 1000 * (time.monotonic() - begun) / hot_, "ms")
        rows.say("cold call that puts another to sleep, p50", percentile(evicting, 0.5), "ms")
        rows.say("cold call that puts another to sleep, p99", percentile(evicting, 0.99), "ms", 10)
        rows.say("%d known, %d loaded: resident" % (count, hot_), server.resident(), "MB", 150, firm=True)
        rows.say("%d known, %d loaded: no file's" % (count, hot_), server.anonymous(), "MB")
        server.end()
    finally:
        shutil.rmtree(root)


def reloads(own, rows, count):
    root, models = repository(1)
    try:
        server, admin, _ = start(own, ["--model_repository", models, "--open_repository_api"])
        stop, seen = threading.Event(), {"calls": 0, "failed": 0}

        def call():
            client = Client(server.address)
            while not stop.is_set():
                status, _ = client.predict("m00000")
                seen["calls"] += 1
                seen["failed"] += status != 200
                time.sleep(0.0005)

        caller = threading.Thread(target=call)
        caller.start()
        # A folder without versions is replaced in place; this one gets a new version each time.
        folder = os.path.join(models, "m00000")
        first = 0.0
        for index in range(count):
            new = os.path.join(folder, str(index + 2))
            os.makedirs(new + ".tmp")
            os.link(os.path.join(root, "iris.joblib"), os.path.join(new + ".tmp", "model.joblib"))
            os.rename(new + ".tmp", new)
            status, body = admin.ask("POST", "/v2/repository/models/m00000/load", b"{}")
            assert status == 200, body
            shutil.rmtree(os.path.join(folder, str(index + 1)))
            if index == 9:
                first = server.resident()
        last = server.resident()
        stop.set()
        caller.join()
        rows.say("after 10 reloads: resident", first, "MB")
        rows.say("after %d reloads over that" % count, last / first, "", 1.1, firm=True)
        rows.say("calls meanwhile", seen["calls"])
        rows.say("calls that failed", seen["failed"], "", 0, firm=True)
        server.end()
    finally:
        shutil.rmtree(root)


def main():
    parser = argparse.ArgumentParser()
    arguments(parser)
    parser.add_argument("--known", type=int, default=10000)
    parser.add_argument("--hot", type=int, default=1000)
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--only", default="one,hot,known,reloads")
    args = parser.parse_args()
    own, rows, only = command(args), Rows(), args.only.split(",")
    print("many models, iris with 100 trees each")
    if "one" in only:
        one(own, rows)
    if "hot" in only:
        hot(own, rows, args.hot)
    if "known" in only:
        known(own, rows, args.known, args.hot)
    if "reloads" in only:
        reloads(own, rows, args.reloads)
    rows.end(args.json)


if __name__ == "__main__":
    main()
