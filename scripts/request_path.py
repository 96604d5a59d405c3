#!/usr/bin/env python3
"""Writes bin/slipway/request_path.txt: the functions that a request to the model server runs through.

    scripts/request_path.py [--binary BINARY] [--profdata llvm-profdata]

Builds the release binary with counters (some ten minutes; `--binary` is one that was built so) and the load generators,
sends requests in each protocol to models of 4 and of 100 features, and keeps what ran more often than a start would make
it run. `llvm-profdata` has to be of the compiler's LLVM (`rustup component add llvm-tools`, or Debian's `llvm-22`).
A name that is gone is passed over, so an old file breaks nothing, but memory and speed are lost bit by bit: worth a run
after large changes of `infer`, `codecs` or `models`, and after an update of the compiler, which changes the names.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(REPO, "bench", "serving"))
from measured import IRIS, Server  # noqa: E402
from run import FOREST, kinds  # noqa: E402

CACHE = os.environ.get("SLIPWAY_CACHE", os.path.expanduser("~/.cache/slipway"))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(CACHE, "target"))
ORDER = os.path.join(REPO, "bin", "slipway", "request_path.txt")
# A start runs through a function less often than this, a second of load far more often.
RUNS_MIN = 50
ROWS = {4: [5.1, 3.5, 1.4, 0.2], 100: [(37 * at % 200 - 100) / 64 for at in range(100)]}
PAGES = ("/v2/health/ready", "/v2/health/live", "/v1/models/iris", "/v2/models/iris", "/metrics")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary")
    parser.add_argument("--profdata", help="the compiler's own, or that of Debian's package, where not given")
    args = parser.parse_args()
    profdata = args.profdata or matching_profdata()
    folder = tempfile.mkdtemp(prefix="request-path-")
    try:
        binary = args.binary or build(folder)
        subprocess.run(["cargo", "build", "--release", "--locked", "-q", "-p", "infer", "-p", "loadgen", "--examples"], check=True, cwd=REPO)
        os.environ["LLVM_PROFILE_FILE"] = os.path.join(folder, "raw", "%p.profraw")
        train(binary, folder)
        names = counted(profdata, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with open(ORDER, "w") as out:
        out.writelines(name + "\n" for name in names)
    print("%d functions in %s" % (len(names), os.path.relpath(ORDER, REPO)))


def matching_profdata():
    """Reads what this compiler's LLVM writes. Looked for first: the build takes ten minutes."""
    about = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True, cwd=REPO).stdout
    host, major = (re.search(word, about)[1] for word in (r"host: (\S+)", r"LLVM version: (\d+)"))
    root = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True, cwd=REPO).stdout.strip()
    for name in (os.path.join(root, "lib", "rustlib", host, "bin", "llvm-profdata"), "llvm-profdata-" + major):
        if shutil.which(name):
            return name
    sys.exit("no llvm-profdata of LLVM %s: rustup component add llvm-tools, or apt-get install llvm-%s" % (major, major))


def build(folder):
    target = os.path.join(TARGET, "counted")
    # What runs while it is built (build scripts, macros) counts as well, elsewhere.
    env = dict(os.environ, RUSTFLAGS="-Cprofile-generate=" + os.path.join(folder, "built"), CARGO_TARGET_DIR=target)
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "slipway"], check=True, cwd=REPO, env=env)
    return os.path.join(target, "release", "slipway")


def train(binary, folder):
    """Requests as clients that are in a hurry send them."""
    wide = os.path.join(folder, "wide.joblib")
    subprocess.run([os.path.join(CACHE, "python", "bin", "python"), "-c", FOREST, wide], check=True)
    for width, file in ((4, IRIS), (100, wide)):
        model = os.path.join(folder, "models-%d" % width)
        os.makedirs(model)
        shutil.copy(file, os.path.join(model, "iris.joblib"))
        # Without a port of its own, gRPC shares that of HTTP/1.1.
        server = Server([binary, "serve", "--model_name", "iris", "--model_dir", model, "--enable_grpc", "false"])
        for path, body, headers in kinds(ROWS[width], folder).values():
            for connections in ("1", "16", "64"):
                load("bench_load", server, path, body, connections, "1", *headers)
        if width == 4:
            for connections, streams in (("1", "1"), ("16", "1"), ("1", "64")):
                load("bench_grpc", server, "iris", connections, streams, "1")
        for page in PAGES * RUNS_MIN:
            urllib.request.urlopen("http://%s%s" % (server.address, page)).read()
        server.end()


def load(name, server, *words):
    line = [os.path.join(TARGET, "release", "examples", name), server.address, *words]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def counted(profdata, folder):
    """The names, the most frequent first."""
    raw, merged = os.path.join(folder, "raw"), os.path.join(folder, "merged")
    subprocess.run([profdata, "merge", "-sparse", "-o", merged] + [os.path.join(raw, file) for file in os.listdir(raw)], check=True)
    shown = subprocess.run([profdata, "show", "--all-functions", "--counts", merged], check=True, capture_output=True, text=True).stdout
    most = {}
    for name, counts in re.findall(r"^  (\S.*):$(?:\n    .*)*?\n    Block counts: \[(.*)\]$", shown, re.M):
        runs = max((int(count) for count in counts.split(",") if count.strip()), default=0)
        if runs >= RUNS_MIN:
            # A function that only its own file sees has the file's name before its own.
            name = name.split(";")[-1]
            most[name] = max(runs, most.get(name, 0))
    return sorted(most, key=lambda name: (-most[name], name))


main()
