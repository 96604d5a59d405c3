#!/usr/bin/env python3
"""One iris row over REST: `slipway serve` beside a bare axum echo and, where asked, KServe's Python server.

    bench/serving/run.py [--slipway BIN] [--examples DIR] [--kserve PYTHON] [--connections 1,16] [--rounds 5]

Subjects take turns (A B A B …), so that a noisy neighbour meets all of them; each number is the median of the
rounds. Server and client have a CPU of their own where there are two. Beside the rate stands the CPU time a
request costs the server, which other load on the machine hardly changes. `--slipway` names the released binary;
without it the example `bench_serve`, which is the same server alone, is measured. Standard library only.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import shutil
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BODY = '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
PATH = "/v1/models/iris:predict"
V2 = '{"inputs": [{"name": "input-0", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}]}'


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
        self.name = name
        # A peer's log goes nowhere: a pipe that nobody reads would fill and stop it.
        log = subprocess.DEVNULL if port else None
        self.process = subprocess.Popen(["taskset", "-c", cores] + command, stdout=log or subprocess.PIPE, text=True,
                                        stderr=log, env=env)
        if port:
            self.address = "127.0.0.1:%d" % port
            self.wait_for(port)
        else:
            self.address = self.process.stdout.readline().split()[-1]

    def wait_for(self, port):
        import socket
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit("%s does not listen" % self.name)

    def measure(self, load, cores, connections, seconds, path=PATH, body=BODY):
        return self.run([load, self.address, path, body, str(connections), str(seconds)], cores, seconds)

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


def median(all_):
    return {key: statistics.median(one[key] for one in all_) for key in all_[0]}


def protocols(subject, args, load, client):
    """The same row over other protocols, and one HTTP/2 connection beside many; rounds take turns."""
    grpc, seconds = os.path.join(args.examples, "bench_grpc"), max(1, round(args.seconds))

    def streams(connections, each):
        line = [grpc, subject.address, "iris", str(connections), str(each), str(seconds)]
        return lambda: subject.run(line, client, seconds)

    rows = {
        "V1, 64 connections": lambda: subject.measure(load, client, 64, args.seconds),
        "V2, 64 connections": lambda: subject.measure(load, client, 64, args.seconds, "/v2/models/iris/infer", V2),
        "gRPC, 256 x 1": streams(256, 1),
        "gRPC, 1 x 256": streams(1, 256),
    }
    seen = {name: [] for name in rows}
    for _ in range(args.rounds):
        for name, row in rows.items():
            seen[name].append(row())
    medians = {name: median(all_) for name, all_ in seen.items()}
    print("protocols (connections x calls at a time)")
    for name, row in medians.items():
        print("  %-22s %9.0f req/s   p50 %8.1f us   p99 %8.1f us   %7.2f us CPU/request" %
              (name, row["rate"], row["p50_us"], row["p99_us"], row["cpu_us"]))
    rate = {name: row["rate"] for name, row in medians.items()}
    print("  V2 / V1 rate %.2f   one HTTP/2 connection / 256 rate %.2f" %
          (rate["V2, 64 connections"] / rate["V1, 64 connections"], rate["gRPC, 1 x 256"] / rate["gRPC, 256 x 1"]))
    return medians


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--slipway")
    parser.add_argument("--examples", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release/examples"))
    parser.add_argument("--kserve", help="a Python that has kserve, scikit-learn and joblib")
    parser.add_argument("--connections", default="1,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--json")
    args = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    server, client = (str(cpus[0]), str(cpus[1])) if len(cpus) > 1 else (str(cpus[0]),) * 2
    model = tempfile.mkdtemp()
    shutil.copy(os.path.join(HERE, "iris.joblib"), model)
    flags = ["--model_name", "iris", "--model_dir", model, "--http_port", "0", "--host", "127.0.0.1"]
    own = [args.slipway, "serve"] if args.slipway else [os.path.join(args.examples, "bench_serve")]
    subjects = [Subject("slipway", own + flags, server),
                Subject("axum echo", [os.path.join(args.examples, "bench_echo")], server)]
    if args.kserve:
        command = [args.kserve, os.path.join(HERE, "kserve_sklearn.py"), "iris", model, "18080"]
        subjects.append(Subject("kserve sklearnserver", command, server, 18080))
    load = os.path.join(args.examples, "bench_load")
    print("one iris row, 100 trees; %s, server and client on one CPU each; median of %d rounds of %g s" %
          (platform.processor() or platform.machine(), args.rounds, args.seconds))
    result = {}
    try:
        for connections in map(int, args.connections.split(",")):
            seen = {subject.name: [] for subject in subjects}
            for _ in range(args.rounds):
                for subject in subjects:
                    seen[subject.name].append(subject.measure(load, client, connections, args.seconds))
            medians = {name: median(all_) for name, all_ in seen.items()}
            result[connections] = medians
            print("%d connections" % connections)
            for name, row in medians.items():
                print("  %-22s %9.0f req/s   p50 %8.1f us   p99 %8.1f us   %7.2f us CPU/request" %
                      (name, row["rate"], row["p50_us"], row["p99_us"], row["cpu_us"]))
            ours = medians["slipway"]
            for name, row in medians.items():
                if name != "slipway":
                    print("  slipway / %-20s rate %.2f   p99 %.2f   CPU %.2f" % (
                        name, ours["rate"] / row["rate"], ours["p99_us"] / row["p99_us"], ours["cpu_us"] / row["cpu_us"]))
        result["protocols"] = protocols(subjects[0], args, load, client)
    finally:
        for subject in subjects:
            subject.end()
        shutil.rmtree(model, ignore_errors=True)
    if args.json:
        json.dump(result, open(args.json, "w"))


if __name__ == "__main__":
    main()
