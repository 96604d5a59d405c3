#!/usr/bin/env python3
"""The row `soak`: 80 % of the top rate for a long time, versions reloading all along, then rolling restarts.

    bench/serving/soak.py [--slipway BIN] [--examples DIR] [--minutes 15] [--restarts 3]

* REST over connections that stay open carries the load, by the clock; beside it a gRPC client makes some calls.
* The model gets a new version every `--reload-every` seconds. Memory is looked at before each.
* A rolling restart: a second server with `--reuse_port` takes the port, the first is told to end. Every client goes on.

Nothing may fail: no call, no probe of health. Standard library only.
"""
import argparse
import os
import shutil
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from measured import IRIS, Rows, arguments  # noqa: E402
from offered import Machine, Repeated, Versions, ended, free_port  # noqa: E402

GRPC_RATE = 100


def main():
    parser = argparse.ArgumentParser()
    arguments(parser)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--rate", type=float, help="requests a second, instead of a share of the top rate")
    parser.add_argument("--reload-every", type=float, default=10)
    parser.add_argument("--restarts", type=int, default=3)
    args = parser.parse_args()
    machine, rows = Machine(args), Rows()
    try:
        Soak(args, machine, rows).run()
    finally:
        machine.end()
    rows.end(args.json)


class Soak:
    def __init__(self, args, machine, rows):
        self.args, self.machine, self.rows = args, machine, rows
        iris = os.path.join(machine.folder, "iris.joblib")
        shutil.copy(IRIS, iris)
        self.models = os.path.join(machine.folder, "models")
        self.versions = Versions(self.models, "a", iris)
        self.port = free_port()
        self.server = self.start()

    def start(self):
        flags = ["--model_repository", self.models, "--open_repository_api", "--reuse_port", "--drain_grace_seconds", "2"]
        return self.machine.serve(*flags, port=self.port)

    def loads(self, rate, seconds):
        """REST at a rate and gRPC at a small one, both begun."""
        address = self.server.address
        return [self.machine.offering(address, rate, seconds),
                self.machine.offering(address, GRPC_RATE, seconds, path="grpc:a", connections=4)]

    def report(self, name, loads):
        rest, grpc = (ended(load) for load in loads)
        self.rows.say("%s: REST answered" % name, rest["answered"])
        self.rows.say("%s: REST rate" % name, rest["rate"], "/s")
        for key in ("p50_us", "p99_us", "p999_us"):
            self.rows.say("%s: REST %s" % (name, key[:-3].replace("p999", "p99.9")), rest[key], "us")
        self.rows.say("%s: gRPC answered" % name, grpc["answered"])
        self.rows.say("%s: gRPC p99" % name, grpc["p99_us"], "us")
        for kind, one in (("REST", rest), ("gRPC", grpc)):
            self.rows.say("%s: %s refused" % (name, kind), one["refused"], most=0)
            self.rows.say("%s: %s never sent, the client was behind" % (name, kind), one["unsent"], most=0)
            lost = one["due"] - one["answered"] - one["refused"] - one["unsent"]
            self.rows.say("%s: %s failed" % (name, kind), lost, most=0, firm=True)
            self.rows.say("%s: probes failed beside %s" % (name, kind), one["probes_failed"], most=0, firm=True)
            if one["failures"]:
                print("    %s" % one["failures"])

    def run(self):
        top = statistics.median(self.machine.offer(self.server.address, 0, 2)["rate"] for _ in range(3))
        rate, seconds = self.args.rate or self.args.share * top, 60 * self.args.minutes
        self.rows.say("top rate, closed loop of 64 connections", top, "/s")
        memory, server = [], self.server

        def reload():
            memory.append(server.resident())
            return self.versions.reload(server)

        loads = self.loads(rate, seconds)
        with Repeated(min(self.args.reload_every, seconds / 6), reload) as done:
            for load in loads:
                load.wait()
        self.report("%g minutes" % self.args.minutes, loads)
        self.rows.say("reloads", len(done.times))
        self.rows.say("a reload takes, median", 1000 * statistics.median(done.times), "ms")
        # What the first requests and reloads leave is there from then on.
        early, late = memory[len(memory) // 6], statistics.median(memory[-max(1, len(memory) // 6):])
        self.rows.say("memory after a sixth of the time", early, "MB")
        self.rows.say("memory at the end over that", late / early, most=1.1, firm=True)
        self.restarts(rate)

    def restarts(self, rate):
        loads = self.loads(rate, 4 + 6 * self.args.restarts)
        time.sleep(3)
        for _ in range(self.args.restarts):
            old, self.server = self.server, self.start()
            old.terminate()
            begun = time.monotonic()
            old.process.wait()
            print("    a server ended %.1f s after it was told to" % (time.monotonic() - begun))
            time.sleep(2)
        self.report("%d rolling restarts" % self.args.restarts, loads)


main()
