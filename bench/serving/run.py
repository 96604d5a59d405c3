#!/usr/bin/env python3
"""One row over every protocol: `slipway serve` beside an echo of the same kind and, where there, KServe's and MLServer's servers.

    bench/serving/run.py --slipway BIN [--examples DIR] [--python PYTHON] [--kserve PYTHON] [--mlserver PYTHON]
                         [--connections 1,16,256] [--rounds 5] [--seconds 1]

The echo (axum for REST, tonic for gRPC) answers as many bytes and parses nothing. Subjects take turns (A B A B …), so that
a noisy neighbour meets all of them; each number is the median of the rounds. Ours and the echo are started anew for each:
where a process lies in memory is luck, and makes it up to a tenth faster or slower. Server and client have a CPU of their own
where there are two. Beside the rate stands the CPU time a request costs the server, which other load on the machine
hardly changes. `--python` has scikit-learn and makes the model of 100 features. Standard library only.
"""
import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
BODY = '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
PATH = "/v1/models/iris:predict"
V2_PATH = "/v2/models/iris/infer"
WIDE = 100
FOREST = """
import joblib, numpy, sys
from sklearn.ensemble import RandomForestClassifier
random = numpy.random.default_rng(0)
x = random.normal(size=(2000, %d))
joblib.dump(RandomForestClassifier(100, max_depth=8, random_state=0, n_jobs=-1).fit(x, (x[:, 0] + x[:, 1] > 0) + (x[:, 2] > 1)), sys.argv[1])
""" % WIDE


def cpu_seconds(pid):
    """User and system time of a process and its children that still run."""
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        try:
            fields = open("/proc/%d/stat" % one).read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
            for task in os.listdir("/proc/%d/task" % one):
                todo += map(int, open("/proc/%d/task/%s/children" % (one, task)).read().split())
        except OSError:
            pass
    return total / os.sysconf("SC_CLK_TCK")


class Subject:
    def __init__(self, name, command, cores, port=None, env=None):
        self.name, self.command, self.port, self.env = name, ["taskset", "-c", cores] + command, port, env
        self.begin()

    def begin(self):
        # Logs go nowhere: a pipe that nobody reads would fill and stop its writer.
        out = subprocess.DEVNULL if self.port else subprocess.PIPE
        self.process = subprocess.Popen(self.command, stdout=out, text=True, stderr=subprocess.DEVNULL, env=self.env)
        if self.port:
            self.address = "127.0.0.1:%d" % self.port
            self.wait_for(self.port)
        else:
            said = self.process.stdout.readline().split()
            self.address = said[-1] if said else sys.exit("%s does not start: %s" % (self.name, " ".join(self.command)))

    def renew(self):
        """Starts it anew where that is quick: who says its address itself."""
        if not self.port:
            self.end()
            self.begin()
        return self

    def wait_for(self, port):
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit("%s does not listen" % self.name)

    def measure(self, load, cores, connections, seconds, path=PATH, body=BODY, headers=()):
        return self.run([load, self.address, path, body, str(connections), str(seconds), *headers], cores, seconds)

    def run(self, line, cores, seconds):
        before = cpu_seconds(self.process.pid)
        out = subprocess.run(["taskset", "-c", cores] + line, check=True, capture_output=True, text=True).stdout
        seen = json.loads(out)
        # The warm-up of 0.3 s also costs the server; it is counted in proportion.
        spent = (cpu_seconds(self.process.pid) - before) * seconds / (seconds + 0.3)
        seen["cpu_us"] = 1e6 * spent / max(seen["requests"], 1)
        if seen["errors"]:
            sys.exit("%s: %d errors" % (self.name, seen["errors"]))
        return seen

    def end(self):
        self.process.terminate()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def median(all_):
    return {key: statistics.median(one[key] for one in all_) for key in all_[0]}


def alternate(subjects, rounds):
    """Medians by name of `{name: measure}`, whose measures take turns."""
    seen = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, measure in subjects.items():
            seen[name].append(measure())
    return {name: median(all_) for name, all_ in seen.items()}


def met(ratio, bound, more_is_better):
    return "met" if (ratio >= bound if more_is_better else ratio <= bound) else "MISSED"


def report(title, medians, rate_min, cpu_max):
    """The first is ours; the second its echo, for which the bounds are."""
    (_, ours), *others = medians.items()
    print(title, flush=True)
    for name, row in medians.items():
        print("  %-20s %9.0f req/s   p50 %8.1f us   p99 %8.1f us   %7.2f us CPU/request" %
              (name, row["rate"], row["p50_us"], row["p99_us"], row["cpu_us"]))
    for place, (name, row) in enumerate(others):
        rate, cpu = ours["rate"] / row["rate"], ours["cpu_us"] / max(row["cpu_us"], 1e-9)
        held = "" if place else "   (rate at least %.1f: %s; CPU at most %.1f: %s)" % (
            rate_min, met(rate, rate_min, True), cpu_max, met(cpu, cpu_max, False))
        print("  slipway / %-16s rate %8.2f   CPU %6.3f%s" % (name, rate, cpu, held), flush=True)


def v2_binary(row):
    """Body and header of the binary tensor extension."""
    numbers = struct.pack("<%dd" % len(row), *row)
    head = {"inputs": [{"name": "input-0", "shape": [1, len(row)], "datatype": "FP64", "parameters": {"binary_data_size": len(numbers)}}],
            "parameters": {"binary_data_output": True}}
    text = json.dumps(head).encode()
    return text + numbers, "Inference-Header-Content-Length: %d" % len(text)


def kinds(row, folder):
    """Path, body argument and headers by protocol."""
    body, header = v2_binary(row)
    file = os.path.join(folder, "binary-%d" % len(row))
    with open(file, "wb") as out:
        out.write(body)
    v2 = {"inputs": [{"name": "input-0", "shape": [1, len(row)], "datatype": "FP64", "data": row}]}
    return {
        "V1": (PATH, json.dumps({"instances": [row]}), ()),
        "V2 JSON": (V2_PATH, json.dumps(v2), ()),
        "V2 binary": (V2_PATH, "@" + file, (header,)),
    }


def answer(address, path, body, headers):
    data = open(body[1:], "rb").read() if body.startswith("@") else body.encode()
    fields = dict(header.split(": ") for header in headers) | {"Content-Type": "application/json"}
    return urllib.request.urlopen(urllib.request.Request("http://%s%s" % (address, path), data, fields), timeout=30).read()


class Bench:
    def __init__(self, args):
        cpus = sorted(os.sched_getaffinity(0))
        self.server, self.client = (str(cpus[0]), str(cpus[1])) if len(cpus) > 1 else (str(cpus[0]),) * 2
        self.args, self.folder = args, tempfile.mkdtemp()
        self.subjects = []

    def example(self, name):
        return os.path.join(self.args.examples, name)

    def start(self, *subject, **options):
        self.subjects.append(Subject(*subject, **options))
        return self.subjects[-1]

    def end(self):
        for subject in self.subjects:
            subject.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def serve(self, name, model):
        own = [self.args.slipway, "serve"] if self.args.slipway else [self.example("bench_serve")]
        flags = ["--model_name", "iris", "--model_dir", model, "--http_port", "0", "--host", "127.0.0.1", "--enable_grpc", "false"]
        return self.start(name, own + flags, self.server)

    def rest(self, ours, row, connections, peers=()):
        for kind, (path, body, headers) in kinds(row, self.folder).items():
            reply = os.path.join(self.folder, "reply")
            with open(reply, "wb") as out:
                out.write(answer(ours.address, path, body, headers))
            echo = self.start("axum echo", [self.example("bench_echo"), "127.0.0.1:0", reply], self.server)
            # Only who speaks a protocol is asked in it.
            asked = [ours, echo] + [subject for subject, spoken in peers if kind in spoken]
            for count in connections:
                measure = lambda subject: lambda: subject.renew().measure(  # noqa: E731
                    self.example("bench_load"), self.client, count, self.args.seconds, path, body, headers)
                medians = alternate({subject.name: measure(subject) for subject in asked}, self.args.rounds)
                report("%s, %d features, %d connections" % (kind, len(row), count), medians, 1.0, 1.2)
            self.subjects.remove(echo)
            echo.end()

    def grpc(self, ours, connections):
        seconds = max(1, round(self.args.seconds))
        grpc = self.example("bench_grpc")

        def calls(subject, count, streams):
            return lambda: subject.renew().run([grpc, subject.address, "iris", str(count), str(streams), str(seconds)], self.client, seconds)

        size = str(int(calls(ours, 1, 1)()["reply_bytes"]))
        echo = self.start("tonic echo", [self.example("bench_grpc_echo"), "127.0.0.1:0", size], self.server)
        for count in connections:
            pair = {subject.name: calls(subject, count, 1) for subject in (ours, echo)}
            report("gRPC, 4 features, %d connections" % count, alternate(pair, self.args.rounds), 0.9, 1.2)
        pair = {"1 x 256 streams": calls(ours, 1, 256), "256 x 1": calls(ours, 256, 1)}
        medians = alternate(pair, self.args.rounds)
        ratio = medians["1 x 256 streams"]["rate"] / medians["256 x 1"]["rate"]
        print("gRPC, one HTTP/2 connection with 256 streams / 256 connections: rate %.2f   (at least 0.8: %s)" % (
            ratio, met(ratio, 0.8, True)), flush=True)

    def kserve(self, model):
        command = [self.args.kserve, os.path.join(HERE, "kserve_sklearn.py"), "iris", model, "18080"]
        return self.start("kserve sklearn", command, self.server, 18080), ("V1", "V2 JSON")

    def mlserver(self, model):
        folder = os.path.join(self.folder, "mlserver")
        os.makedirs(folder)
        settings = {"name": "iris", "implementation": "mlserver_sklearn.SKLearnModel",
                    "parameters": {"uri": os.path.join(model, "iris.joblib"), "version": "1"}}
        json.dump(settings, open(os.path.join(folder, "model-settings.json"), "w"))
        ports = {"http_port": 18090, "grpc_port": 18091, "metrics_port": 18092, "host": "127.0.0.1", "parallel_workers": 0, "debug": False}
        json.dump(ports, open(os.path.join(folder, "settings.json"), "w"))
        start = os.path.join(os.path.dirname(self.args.mlserver), "mlserver")
        return self.start("mlserver", [start, "start", folder], self.server, 18090), ("V2 JSON",)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--slipway")
    parser.add_argument("--examples", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release/examples"))
    parser.add_argument("--python", help="a Python that has scikit-learn and joblib, for the model of %d features" % WIDE)
    parser.add_argument("--kserve", help="a Python that has kserve, scikit-learn and joblib")
    parser.add_argument("--mlserver", help="a Python that has mlserver and mlserver-sklearn")
    parser.add_argument("--connections", default="1,16,256")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    args = parser.parse_args()
    connections = [int(count) for count in args.connections.split(",")]
    bench = Bench(args)
    print("one row, a forest of 100 trees; %s, server and client on one CPU each; median of %d rounds of %g s" %
          (platform.processor() or platform.machine(), args.rounds, args.seconds))
    try:
        model = os.path.join(bench.folder, "iris")
        os.makedirs(model)
        shutil.copy(os.path.join(HERE, "iris.joblib"), model)
        ours = bench.serve("slipway", model)
        peers = [bench.kserve(model)] if args.kserve else []
        peers += [bench.mlserver(model)] if args.mlserver else []
        bench.rest(ours, [5.1, 3.5, 1.4, 0.2], connections, peers)
        bench.grpc(ours, connections)
        if args.python:
            wide = os.path.join(bench.folder, "wide")
            os.makedirs(wide)
            subprocess.run([args.python, "-c", FOREST, os.path.join(wide, "model.joblib")], check=True)
            bench.rest(bench.serve("slipway", wide), [round(0.37 * (i % 9) - 1.5, 2) for i in range(WIDE)], [16])
    finally:
        bench.end()


if __name__ == "__main__":
    main()
