#!/usr/bin/env python3
"""The row `batching`: an MLP of some 10 MFLOP a row, batched by experience, by fixed settings, and not at all.

    bench/serving/batching.py --examples DIR [--slipway BIN] [--python PYTHON_WITH_NUMPY] [--asked-ms 100] [--rounds 3]

* Goodput: open loop, answers within the asked latency; for each setting the best over a sweep of offered rates.
* Overload: the same at twice the rate that gave the peak, and how long probes of the server's health take meanwhile.
* Idle: one connection, median latency with batching and without, rounds taking turns.

Server and client have a CPU of their own where there are two. `--all-cpus` gives both all of them.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PATH = "/v1/models/mlp:predict"
COLUMNS = 64
BODY = json.dumps({"instances": [[(7 * i % 13) / 13 for i in range(COLUMNS)]]})

# scikit-learn itself is not needed: a class of its name with the attributes of a fitted model pickles the same.
MAKE = """
import pickle, sys, types
import numpy
module = types.ModuleType("sklearn.neural_network._multilayer_perceptron")
class MLPRegressor:
    pass
MLPRegressor.__module__ = module.__name__
MLPRegressor.__qualname__ = "MLPRegressor"
module.MLPRegressor = MLPRegressor
for name in ("sklearn", "sklearn.neural_network"):
    sys.modules[name] = types.ModuleType(name)
sys.modules[module.__name__] = module
rng = numpy.random.default_rng(1)
sizes = [%d, 2200, 2200, 1]
model = MLPRegressor()
model.coefs_ = [rng.standard_normal(pair) / pair[0] ** 0.5 for pair in zip(sizes, sizes[1:])]
model.intercepts_ = [rng.standard_normal(size) for size in sizes[1:]]
model.activation, model.out_activation_ = "relu", "identity"
model.n_features_in_, model.n_outputs_, model.n_layers_ = sizes[0], 1, len(sizes)
model._sklearn_version = "1.6.1"
with open(sys.argv[1], "wb") as file:
    pickle.dump(model, file, protocol=4)
print(2 * sum(one * other for one, other in zip(sizes, sizes[1:])))
""" % COLUMNS

STATIC = {"%d rows, %g ms" % (rows, wait / 1000): ["--max_batch_size", str(rows), "--batch_timeout_micros", str(wait)]
          for rows, wait in [(4, 0), (8, 2000), (16, 0), (32, 0), (32, 5000), (64, 0), (128, 10000)]}


class Server:
    def __init__(self, command, cpus):
        self.process = subprocess.Popen(["taskset", "-c", cpus] + command, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().split()[-1]

    def run(self, cpus, line):
        done = subprocess.run(["taskset", "-c", cpus] + line, capture_output=True, text=True)
        if done.returncode:
            sys.exit("%s: %s" % (line[0], done.stderr))
        return json.loads(done.stdout)

    def end(self):
        self.process.terminate()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--slipway")
    parser.add_argument("--examples", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--asked-ms", type=float, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--all-cpus", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a coarse sweep")
    parser.add_argument("--json")
    args = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    every = ",".join(map(str, cpus))
    server, client = (str(cpus[0]), str(cpus[-1])) if not args.all_cpus else (every, every)
    folder = tempfile.mkdtemp()
    model = os.path.join(folder, "model.pkl")
    flop = subprocess.run([args.python, "-c", MAKE, model], check=True, capture_output=True, text=True).stdout
    own = [args.slipway, "serve"] if args.slipway else [os.path.join(args.examples, "bench_serve")]
    flags = ["--model_name", "mlp", "--model_dir", folder, "--http_port", "0", "--host", "127.0.0.1"]
    modes = {"off": ["--batching", "off"], "auto": []} | STATIC
    closed, opened = (os.path.join(args.examples, name) for name in ("bench_load", "bench_open"))
    servers = {name: Server(own + flags + mode, server) for name, mode in modes.items()}
    asked = str(args.asked_ms)
    result = {}
    try:
        saturated = {name: servers[name].run(client, [closed, servers[name].address, PATH, BODY, "64", "2"])
                     for name in ("off", "auto")}
        top = saturated["auto"]["rate"]
        print("MLP of %.1f MFLOP a row, answers within %s ms; closed loop of 64: off %.0f/s, auto %.0f/s" % (
            int(flop) / 1e6, asked, saturated["off"]["rate"], top))
        # Below the rate without batching nobody differs; above the top everybody sheds.
        floor = min(saturated["off"]["rate"], top)
        shares = [0.5, 0.8, 1.0, 1.2] if args.quick else [0.4, 0.55, 0.7, 0.8, 0.9, 1.0, 1.15]
        rates = [0.7 * floor, floor] + [share * top for share in shares]

        def offer(name, rate):
            line = [opened, servers[name].address, PATH, BODY, "%.1f" % rate, "%g" % args.seconds, asked, "1024"]
            return servers[name].run(client, line)

        good = {name: {} for name in modes}
        for rate in rates:
            seen = {name: [] for name in modes}
            for _ in range(args.rounds):
                for name in modes:
                    seen[name].append(offer(name, rate)["good_rate"])
            for name in modes:
                good[name][rate] = statistics.median(seen[name])
        peaks = {name: max(rows.items(), key=lambda row: row[1]) for name, rows in good.items()}
        for name, (rate, peak) in peaks.items():
            print("  %-16s goodput %8.1f/s at %8.1f/s offered" % (name, peak, rate))
        best = max(STATIC, key=lambda name: peaks[name][1])
        peak = peaks["auto"][1]
        over = [offer("auto", 2 * peaks["auto"][0]) for _ in range(args.rounds)]
        over = {key: statistics.median(row[key] for row in over) for key in over[0]}
        idle = {"off": [], "auto": []}
        for _ in range(2 * args.rounds + 1):
            for name in idle:
                line = [closed, servers[name].address, PATH, BODY, "1", "1"]
                idle[name].append(servers[name].run(client, line)["p50_us"])
        off, auto = (statistics.median(idle[name]) for name in ("off", "auto"))
        print("  auto / best static (%s) %.2f   auto / off %.2f" % (best, peak / peaks[best][1], peak / peaks["off"][1]))
        print("  2x overload: goodput / peak %.2f   probes p99 %.1f ms, worst %.1f ms of %d   refused %d, late %d" % (
            over["good_rate"] / peak, over["probe_p99_us"] / 1000, over["probe_max_us"] / 1000, over["probes"],
            over["refused"], over["late"]))
        print("  idle p50: off %.0f us, auto %.0f us, auto / off %.3f" % (off, auto, auto / off))
        result = {"peaks": peaks, "overload": over, "idle": {"off": off, "auto": auto}}
    finally:
        for one in servers.values():
            one.end()
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        json.dump(result, open(args.json, "w"))


main()
