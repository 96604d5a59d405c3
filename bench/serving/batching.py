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
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from measured import Rows, arguments  # noqa: E402
from offered import Machine, perceptron  # noqa: E402

PATH = "/v1/models/mlp:predict"
COLUMNS = 64
BODY = json.dumps({"instances": [[(7 * i % 13) / 13 for i in range(COLUMNS)]]})
STATIC = {"%d rows, %g ms" % (rows, wait / 1000): ["--max_batch_size", str(rows), "--batch_timeout_micros", str(wait)]
          for rows, wait in [(4, 0), (8, 2000), (16, 0), (32, 0), (32, 5000), (64, 0), (128, 10000)]}


def main():
    parser = argparse.ArgumentParser()
    arguments(parser)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--asked-ms", type=float, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--all-cpus", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a coarse sweep")
    parser.add_argument("--only", default="sweep,overload,idle")
    args = parser.parse_args()
    machine, rows = Machine(args, args.all_cpus), Rows()
    try:
        Batching(args, machine, rows).run()
    finally:
        machine.end()
    rows.end(args.json)


class Batching:
    def __init__(self, args, machine, rows):
        self.args, self.machine, self.rows = args, machine, rows
        models = os.path.join(machine.folder, "mlp")
        os.makedirs(models)
        flop = perceptron(args.python, os.path.join(models, "model.pkl"), COLUMNS, 2200, 2200, 1)
        flags = ["--model_name", "mlp", "--model_dir", models, "--enable_grpc", "false"]
        modes = {"off": ["--batching", "off"], "auto": []} | (STATIC if "sweep" in args.only else {})
        self.servers = {name: machine.serve(*flags, *mode) for name, mode in modes.items()}
        print("MLP of %.1f MFLOP a row; goodput counts answers within %g ms" % (flop / 1e6, args.asked_ms), flush=True)

    def offer(self, name, rate, connections=1024, seconds=None):
        asked = self.args.asked_ms if rate else 0
        report = self.machine.offer(self.servers[name].address, rate, seconds or self.args.seconds, path=PATH, body=BODY,
                                    asked_ms=asked, connections=connections)
        self.lost = getattr(self, "lost", 0) + report["failed"]
        return report

    def run(self):
        saturated = {name: self.offer(name, 0, 64)["rate"] for name in ("off", "auto")}
        off, top = saturated["off"], saturated["auto"]
        self.rows.say("closed loop of 64: off", off, "/s")
        self.rows.say("closed loop of 64: auto", top, "/s")
        self.rows.say("closed loop of 64: auto / off", top / off, least=5)
        peak = (top, top)
        if "sweep" in self.args.only:
            peak = self.sweep(min(off, top), top)
        if "overload" in self.args.only:
            self.overload(*peak)
        if "idle" in self.args.only:
            self.idle()
        self.rows.say("calls that failed", self.lost, most=0, firm=True)

    def sweep(self, floor, top):
        """The rate that gives the best goodput, and that goodput, of the batching that chooses by itself."""
        # Below the rate without batching nobody differs; above the top everybody sheds.
        shares = [0.5, 0.8, 1.0, 1.2] if self.args.quick else [0.4, 0.55, 0.7, 0.8, 0.9, 1.0, 1.15]
        good = {name: {} for name in self.servers}
        for rate in [0.7 * floor, floor] + [share * top for share in shares]:
            seen = {name: [] for name in self.servers}
            for _ in range(self.args.rounds):
                for name in self.servers:
                    seen[name].append(self.offer(name, rate)["good_rate"])
            for name in self.servers:
                good[name][rate] = statistics.median(seen[name])
        peaks = {name: max(all_.items(), key=lambda row: row[1]) for name, all_ in good.items()}
        for name, (rate, peak) in peaks.items():
            self.rows.say("goodput: %s (offered %.0f/s)" % (name, rate), peak, "/s")
        best = max(STATIC, key=lambda name: peaks[name][1])
        self.rows.say("goodput: auto / best static (%s)" % best, peaks["auto"][1] / peaks[best][1], least=0.9)
        self.rows.say("goodput: auto / off", peaks["auto"][1] / peaks["off"][1], least=5)
        return peaks["auto"]

    def overload(self, rate, peak):
        over = []
        # Beside each run of the overload one at the peak, so that the machine's mood falls on both.
        peaks = []
        for _ in range(self.args.rounds):
            peaks.append(self.offer("auto", rate)["good_rate"])
            over.append(self.offer("auto", 2 * rate))
        median = lambda key: statistics.median(one[key] for one in over)  # noqa: E731
        self.rows.say("2x overload: goodput", median("good_rate"), "/s")
        self.rows.say("2x overload: goodput / peak", median("good_rate") / max(peak, statistics.median(peaks)), least=0.9)
        self.rows.say("2x overload: refused", median("refused"))
        self.rows.say("2x overload: late", median("late"))
        self.rows.say("2x overload: probes of health, p99", median("probe_p99_us") / 1000, "ms", most=10)
        self.rows.say("2x overload: probes of health, worst", median("probe_max_us") / 1000, "ms")

    def idle(self):
        seen = {"off": [], "auto": []}
        for turn in range(4 * self.args.rounds + 1):
            for name in list(seen)[:: 1 if turn % 2 else -1]:
                seen[name].append(self.offer(name, 0, 1, 1)["p50_us"])
        off, auto = (statistics.median(seen[name]) for name in ("off", "auto"))
        self.rows.say("idle p50: off", off, "us")
        self.rows.say("idle p50: auto", auto, "us")
        self.rows.say("idle p50: auto / off", auto / off, most=1.02)


main()
