#!/usr/bin/env python3
"""The row `open`: latency at half of the top rate, steady, while the model reloads, and while a model of 1 GB loads.

    bench/serving/open.py [--slipway BIN] [--examples DIR] [--python PYTHON_WITH_NUMPY] [--rounds 3] [--seconds 20]

* The top rate is a closed loop's of 64 connections; half of it is then offered by the clock (Poisson).
* `reload`: the model gets a new version every `--reload-every` seconds, loaded before the old one goes.
* `1 GB`: another model of the same server gets a new version of 1 GB once in each span of `--gigabyte-seconds`.

The phases take turns, so that what the machine does to one it does to all; each number is the median of the rounds.
Without `--python` the third phase is left out. Overload is in the row `batching`, memory over 1,000 reloads in `many`.
"""
import argparse
import lzma
import os
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from measured import IRIS, Rows, arguments  # noqa: E402
from offered import Machine, Repeated, Versions, perceptron  # noqa: E402

KEYS = ("p50_us", "p99_us", "p999_us", "max_us")


def main():
    parser = argparse.ArgumentParser()
    arguments(parser)
    parser.add_argument("--python", help="a Python that has numpy, which makes the model of 1 GB")
    parser.add_argument("--rounds", type=int, default=9, help="of which every third has the model of 1 GB")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--gigabyte-seconds", type=float, default=60)
    parser.add_argument("--reload-every", type=float, default=0.25)
    parser.add_argument("--only", default="reload,gigabyte")
    args = parser.parse_args()
    machine, rows = Machine(args), Rows()
    try:
        measure(args, machine, rows)
    finally:
        machine.end()
    rows.end(args.json)


def measure(args, machine, rows):
    models = os.path.join(machine.folder, "models")
    iris = os.path.join(machine.folder, "iris.joblib")
    # As `joblib.dump` writes it unless it is told to compress: what is read again and again here is no archive.
    with lzma.open(IRIS) as from_, open(iris, "wb") as to:
        to.write(from_.read())
    a = Versions(models, "a", iris)
    phases = [phase for phase in ("reload", "gigabyte") if phase in args.only.split(",")]
    if "gigabyte" in phases and args.python:
        large = os.path.join(machine.folder, "large.pkl")
        # 64 x 11,000 + 11,000 x 11,300 + 11,300 numbers of 8 bytes.
        perceptron(args.python, large, 64, 11_000, 11_300, 1)
        b = Versions(models, "b", large)
        size = os.path.getsize(large) / 1e9
    elif "gigabyte" in phases:
        phases.remove("gigabyte")
        print("no Python with numpy: no model of 1 GB")
    server = machine.serve("--model_repository", models, "--open_repository_api")
    top = statistics.median(machine.offer(server.address, 0, 2)["rate"] for _ in range(3))
    rate = top / 2
    rows.say("top rate, closed loop of 64 connections", top, "/s")
    names = ["steady"] + phases
    seen, loads = {name: [] for name in names}, {name: [] for name in names}
    due, lost, refused = (dict.fromkeys(names, 0) for _ in range(3))

    def phase(name, seconds, every=None, deed=None):
        def once():
            if deed is None:
                report, times = machine.offer(server.address, rate, seconds), []
            else:
                with Repeated(every, deed) as done:
                    report = machine.offer(server.address, rate, seconds)
                times = done.times
            # Of every run, also of those that are made again.
            due[name] += report["due"]
            lost[name] += report["failed"] + report["probes_failed"]
            refused[name] += report["refused"]
            return report, times

        report, times = machine.quietly(once)
        seen[name].append(report)
        loads[name] += times

    for round_ in range(args.rounds):
        phase("steady", args.seconds)
        if "reload" in phases:
            phase("reload", args.seconds, args.reload_every, lambda: a.reload(server))
        if "gigabyte" in phases and round_ % 3 == 0:
            phase("gigabyte", args.gigabyte_seconds, args.gigabyte_seconds, lambda: b.reload(server))
    titles = {"steady": "steady", "reload": "reloading every %g s" % args.reload_every,
              "gigabyte": "a model of %.2f GB loads every %g s" % (size if "gigabyte" in phases else 0, args.gigabyte_seconds)}
    medians = {phase: {key: statistics.median(one[key] for one in all_) for key in KEYS} for phase, all_ in seen.items()}
    for phase, all_ in seen.items():
        name = titles[phase]
        for key in KEYS:
            rows.say("%s: %s" % (name, key[:-3].replace("p999", "p99.9")), medians[phase][key], "us")
        if phase != "steady":
            # Each against the steady time just before it: the machine's mood changes from minute to minute.
            steadies = seen["steady"][::3] if phase == "gigabyte" else seen["steady"]
            ratios = [one["p99_us"] / steady["p99_us"] for one, steady in zip(all_, steadies)]
            rows.say("%s: p99 / steady" % name, statistics.median(ratios), most=1.2)
            rows.say("%s: a load takes, median of %d" % (name, len(loads[phase])), 1000 * statistics.median(loads[phase]), "ms")
        rows.say("%s: refused" % name, refused[phase], most=0)
        rows.say("%s: failed of %d" % (name, due[phase]), lost[phase], most=0, firm=True)
    rows.say("memory at the end", server.resident(), "MB")


main()
