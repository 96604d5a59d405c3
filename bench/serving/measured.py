"""The server that a bench measures: how it is started, what it takes, and numbers beside what they are to be.

Not here: load and what is measured by it. Standard library only.
"""
import json
import os
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
IRIS = os.path.join(HERE, "iris.joblib")


def arguments(parser):
    parser.add_argument("--slipway", help="the released binary; without it the example `bench_serve`, the same server alone")
    parser.add_argument("--examples", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release/examples"))
    parser.add_argument("--json", help="a file for all numbers")


def command(args):
    """How the server is called, before its flags."""
    return [args.slipway, "serve"] if args.slipway else [os.path.join(args.examples, "bench_serve")]


class Server:
    """A server that has said where it listens."""

    def __init__(self, line, port=0, log=None):
        line = line + ["--http_port", str(port), "--host", "127.0.0.1"]
        env = dict(os.environ, RUST_LOG=os.environ.get("RUST_LOG", "warn"))
        self.begun = time.monotonic()
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        said = self.process.stdout.readline().split()
        if not said:
            sys.exit("the server did not start: " + " ".join(line))
        self.address = said[-1].split("//")[-1]

    def post(self, path, body=b"{}"):
        request = urllib.request.Request("http://%s%s" % (self.address, path), body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as reply:
            return reply.read()

    def resident(self):
        """Megabytes of memory, those of its program's file included."""
        return self.megabytes("VmRSS")

    def anonymous(self):
        """Resident megabytes that are no file's."""
        return self.megabytes("RssAnon")

    def megabytes(self, what):
        for line in open("/proc/%d/status" % self.process.pid):
            name, _, rest = line.partition(":")
            if name == what:
                return int(rest.split()[0]) / 1024
        return 0.0

    def cpu(self):
        """Seconds of user and system time so far."""
        fields = open("/proc/%d/stat" % self.process.pid).read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def terminate(self):
        self.process.terminate()

    def end(self):
        self.process.terminate()
        self.process.wait()


class Rows:
    """Lines with what a number is, what it is to be, and whether it is."""

    def __init__(self):
        self.all, self.kept = {}, True

    def say(self, name, value, unit="", most=None, least=None, firm=False):
        """`firm` numbers are counts and memory, which nothing else on the machine changes: one that misses is a failure. A
        time that misses is only told."""
        verdict = ""
        if most is not None or least is not None:
            holds = value <= most if most is not None else value >= least
            self.kept &= holds or not firm
            bound = "at most %g" % most if most is not None else "at least %g" % least
            verdict = "   (%s: %s)" % (bound, "met" if holds else "MISSED")
        self.all[name] = value
        print("  %-58s %10.3f %s%s" % (name, value, unit, verdict), flush=True)

    def end(self, file):
        """The exit status says whether all that are firm are what they are to be."""
        if file:
            json.dump(self.all, open(file, "w"), indent=1)
        sys.exit(not self.kept)
