"""What the rows `open`, `soak` and `batching` share: servers on a CPU of their own, load by the clock, verdicts.

Server and client have a CPU each where there are two, as everywhere in this folder.
Not here: the load itself (`open.rs`), the server and its numbers (`measured`).
"""
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from measured import Server, command  # noqa: E402

PATH = "/v1/models/a:predict"
# A measurement beside which others took more of a CPU than this is made again.
OTHERS_MAX = 0.05
BODY = '{"instances":[[5.1,3.5,1.4,0.2]]}'


class Machine:
    """Which CPUs are whose, and where the programs are."""

    def __init__(self, args, all_cpus=False):
        cpus = sorted(os.sched_getaffinity(0))
        every = ",".join(map(str, cpus))
        self.server, self.client = (str(cpus[0]), str(cpus[-1])) if not all_cpus else (every, every)
        self.examples = args.examples
        self.own = command(args)
        # What is left of the other CPU must not disturb the client: this script sleeps nearly always.
        self.folder = tempfile.mkdtemp(prefix="bench-")
        self.servers = []

    def serve(self, *flags, port=0):
        server = Server(["taskset", "-c", self.server] + self.own + list(flags), port)
        self.servers.append(server)
        return server

    def offering(self, address, rate, seconds, path=PATH, body=BODY, asked_ms=0.0, connections=64):
        """The load, begun: `ended` waits for its report."""
        line = ["taskset", "-c", self.client, os.path.join(self.examples, "bench_open"), address, path, body,
                "%.1f" % rate, "%g" % seconds, "%g" % asked_ms, str(connections)]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def offer(self, *args, **options):
        return ended(self.offering(*args, **options))

    def quietly(self, measure, tries=3):
        """What `measure` returns of the first time when nothing else had the CPUs; the quietest where there was none."""
        best = None
        for _ in range(tries):
            before, begun = self.others(), time.monotonic()
            seen = measure()
            others = (self.others() - before) / (time.monotonic() - begun)
            if best is None or others < best[0]:
                best = (others, seen)
            if others <= OTHERS_MAX:
                break
        else:
            print("    other programs took %.0f %% of a CPU meanwhile" % (100 * best[0]), flush=True)
        return best[1]

    def others(self):
        """Seconds of CPU that went to programs that are not ours, so far."""
        with open("/proc/stat") as stat:
            user, nice, system, _, _, irq, softirq = map(int, stat.readline().split()[1:8])
        all_ = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
        own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return all_ - own - sum(server.cpu() for server in self.servers if server.process.poll() is None)

    def end(self):
        for server in self.servers:
            server.end()
        shutil.rmtree(self.folder, ignore_errors=True)


def ended(load):
    out, err = load.communicate()
    if load.returncode:
        sys.exit("the load ended early: " + err)
    report = json.loads(out)
    # What the client itself was too far behind to send is no failure of the server's.
    report["unsent"] = sum(count for what, count in report["failures"].items() if what.startswith("never sent"))
    report["failed"] -= report["unsent"]
    return report


class Versions:
    """A model in a repository that gets new versions of the same file."""

    def __init__(self, models, name, file):
        self.folder, self.name, self.file = os.path.join(models, name), name, file
        self.number = 0
        self.add()

    def add(self):
        self.number += 1
        new = os.path.join(self.folder, str(self.number))
        os.makedirs(new + ".tmp")
        os.link(self.file, os.path.join(new + ".tmp", "model" + os.path.splitext(self.file)[1]))
        os.rename(new + ".tmp", new)
        if self.number > 2:
            shutil.rmtree(os.path.join(self.folder, str(self.number - 2)))

    def reload(self, server):
        """Adds a version and has the server read it; how long that took."""
        self.add()
        begun = time.monotonic()
        server.post("/v2/repository/models/%s/load" % self.name)
        return time.monotonic() - begun


class Repeated:
    """Something that is done at intervals while a block runs."""

    def __init__(self, every, deed):
        self.every, self.deed, self.times = every, deed, []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        due = time.monotonic() + self.every / 2
        while not self.stopped.wait(max(0.0, due - time.monotonic())):
            self.times.append(self.deed())
            due = max(due + self.every, time.monotonic())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()


# scikit-learn itself is not needed: a class of its name with the attributes of a fitted model pickles the same.
MLP = """
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
sizes = [int(size) for size in sys.argv[2:]]
model = MLPRegressor()
model.coefs_ = [rng.standard_normal(pair) / pair[0] ** 0.5 for pair in zip(sizes, sizes[1:])]
model.intercepts_ = [rng.standard_normal(size) for size in sizes[1:]]
model.activation, model.out_activation_ = "relu", "identity"
model.n_features_in_, model.n_outputs_, model.n_layers_ = sizes[0], sizes[-1], len(sizes)
model._sklearn_version = "1.6.1"
with open(sys.argv[1], "wb") as file:
    pickle.dump(model, file, protocol=4)
print(2 * sum(one * other for one, other in zip(sizes, sizes[1:])))
"""


def perceptron(python, file, *sizes):
    """Writes a network of these widths with `python`, which has numpy; floating-point operations of a row."""
    line = [python, "-c", MLP, file] + [str(size) for size in sizes]
    return int(subprocess.run(line, check=True, capture_output=True, text=True).stdout)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
