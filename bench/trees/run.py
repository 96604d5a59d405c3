"""Tree ensembles in process, one thread: ours beside ONNX Runtime's C API, lleaves and LightGBM.

usage: run.py --bench PATH_OF_bench_trees --folder FOLDER [--rounds 5] [--seconds 0.3]. FOLDER is what make.py made.
All sides run on the same core, in alternating rounds, over the same rows; a row shows medians and the ratio to each
peer. Peers are called through their C functions, with buffers prepared, so that no Python is timed but a call by
ctypes (about 1 us). Times are of the calling thread's processor, the only one either side uses, so that other
work on the machine disturbs them less. First the answers are compared: a fast wrong answer is no row.
"""
import argparse
import ctypes
import importlib.metadata
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import lightgbm
import numpy
import onnxruntime

BATCHES = (1, 32, 1024)
P, I64 = ctypes.c_void_p, ctypes.c_int64


def timed(calls, seconds):
    """Microseconds of a call; `calls` are prepared for successive rows."""
    started, count = time.thread_time(), 0
    while time.thread_time() - started < seconds:
        for call in calls:
            call()
        count += len(calls)
    return (time.thread_time() - started) * 1e6 / count


class Ours:
    def __init__(self, bench, model, rows):
        line = [bench, str(model), str(rows), "probabilities"]
        self.answers = numpy.array(subprocess.run(line + ["--dump"], check=True, capture_output=True, text=True).stdout.split(), float)
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.load_ms, self.row_cost_us = [int(number) / 1000 for number in self.process.stdout.readline().split()]

    def measure(self, batch, seconds):
        self.process.stdin.write(f"{batch} {seconds}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class OnnxRuntime:
    """The C API by ctypes; the numbers are places in the struct `OrtApi`, which never change."""

    def __init__(self, model, rows, width, classes):
        folder = pathlib.Path(onnxruntime.__file__).parent / "capi"
        library = ctypes.CDLL(str(next(folder.glob("libonnxruntime.so.*"))))
        library.OrtGetApiBase.restype = P
        base = ctypes.cast(library.OrtGetApiBase(), ctypes.POINTER(P))
        api = ctypes.CFUNCTYPE(P, ctypes.c_uint32)(base[0])(16)
        self.api = ctypes.cast(api, ctypes.POINTER(P))
        env, options, self.session = P(), P(), P()
        self.call(3, [ctypes.c_int, ctypes.c_char_p, P], 3, b"bench", ctypes.byref(env))
        self.call(10, [P], ctypes.byref(options))
        self.call(24, [P, ctypes.c_int], options, 1)
        self.call(25, [P, ctypes.c_int], options, 1)
        self.call(7, [P, ctypes.c_char_p, P, P], env, str(model).encode(), options, ctypes.byref(self.session))
        self.memory = P()
        self.call(69, [ctypes.c_int, ctypes.c_int, P], 1, 0, ctypes.byref(self.memory))
        names = onnxruntime.InferenceSession(str(model)).get_outputs()
        self.inputs = (ctypes.c_char_p * 1)(b"x")
        self.outputs = (ctypes.c_char_p * 2)(*[output.name.encode() for output in names])
        self.run = self.function(9, [P, P, P, P, ctypes.c_size_t, P, ctypes.c_size_t, P])
        self.rows, self.classes = rows.astype(numpy.float32).reshape(-1, width), classes
        self.prepared = {batch: self.prepare(batch) for batch in BATCHES}

    def function(self, place, kinds):
        return ctypes.CFUNCTYPE(P, *kinds)(self.api[place])

    def call(self, place, kinds, *arguments):
        status = self.function(place, kinds)(*arguments)
        if status:
            sys.exit(ctypes.CFUNCTYPE(ctypes.c_char_p, P)(self.api[2])(status).decode())

    def value(self, array, kind):
        value, shape = P(), (I64 * array.ndim)(*array.shape)
        kinds = [P, P, ctypes.c_size_t, P, ctypes.c_size_t, ctypes.c_int, P]
        self.call(49, kinds, self.memory, array.ctypes.data, array.nbytes, shape, array.ndim, kind, ctypes.byref(value))
        return value

    def prepare(self, batch):
        labels, shares = numpy.zeros(batch, numpy.int64), numpy.zeros((batch, self.classes), numpy.float32)
        outputs = (P * 2)(self.value(labels, 7), self.value(shares, 1))
        calls = []
        for start in range(0, len(self.rows), batch):
            inputs = (P * 1)(self.value(self.rows[start:start + batch], 1))
            calls.append(lambda inputs=inputs: self.run(self.session, None, self.inputs, inputs, 1, self.outputs, 2, outputs))
        return calls, (labels, shares)

    def answers(self):
        calls, (_, shares) = self.prepared[1024]
        assert not calls[0]()
        return shares.ravel()

    def measure(self, batch, seconds):
        return timed(self.prepared[batch][0], seconds)


class LightGbm:
    def __init__(self, model, rows, width):
        started = time.perf_counter()
        self.booster = lightgbm.Booster(model_file=str(model))
        self.load_ms = (time.perf_counter() - started) * 1e3
        self.library, self.rows = lightgbm.basic._LIB, rows.reshape(-1, width)
        handle = getattr(self.booster, "_handle", None) or self.booster.handle
        self.fast, self.length, self.out = P(), I64(), numpy.zeros(1024)
        one = self.library.LGBM_BoosterPredictForMatSingleRowFastInit
        kind = lightgbm.basic._C_API_DTYPE_FLOAT64 if hasattr(lightgbm.basic, "_C_API_DTYPE_FLOAT64") else 1
        assert one(handle, 0, 0, -1, kind, width, b"num_threads=1", ctypes.byref(self.fast)) == 0
        self.prepared = {}
        for batch in BATCHES:
            self.prepared[batch] = [self.prepare(handle, kind, start, batch) for start in range(0, len(self.rows), batch)]

    def prepare(self, handle, kind, start, batch):
        data, length, out = P(self.rows[start:].ctypes.data), ctypes.byref(self.length), P(self.out.ctypes.data)
        if batch == 1:
            return lambda: self.library.LGBM_BoosterPredictForMatSingleRowFast(self.fast, data, length, out)
        width, fixed = self.rows.shape[1], ctypes.c_int
        return lambda: self.library.LGBM_BoosterPredictForMat(
            handle, data, fixed(kind), fixed(batch), fixed(width), fixed(1), fixed(0), fixed(0), fixed(-1),
            b"num_threads=1", length, out)

    def answers(self):
        assert self.prepared[1024][0]() == 0
        return self.out.copy()

    def measure(self, batch, seconds):
        return timed(self.prepared[batch], seconds)


class Lleaves:
    def __init__(self, model, rows, width):
        import lleaves
        self.model = lleaves.Model(model_file=str(model))
        self.model.compile(cache=str(model.with_suffix(".elf")))
        self.rows, self.out = rows.reshape(-1, width), numpy.zeros(1024)

    def measure(self, batch, seconds):
        pointer = ctypes.POINTER(ctypes.c_double)
        out, entry = self.out.ctypes.data_as(pointer), self.model._c_entry_func
        starts = [self.rows[start:].ctypes.data_as(pointer) for start in range(0, len(self.rows), batch)]
        return timed([lambda data=data: entry(data, out, 0, batch) for data in starts], seconds)

    def answers(self):
        self.measure(1024, 0.01)
        return self.out.copy()


def compare(name, ours, peers, targets, arguments):
    seen = {side: {batch: [] for batch in BATCHES} for side in ["ours", *peers]}
    for batch in BATCHES:
        for _ in range(arguments.rounds):
            for side, subject in [("ours", ours), *peers.items()]:
                seen[side][batch].append(subject.measure(batch, arguments.seconds))
    for batch in BATCHES:
        mine = statistics.median(seen["ours"][batch])
        text = f"trees {name}, batch {batch}"
        line = f"{text:<44} {mine:>10,.1f} us"
        for side in peers:
            peer = statistics.median(seen[side][batch])
            target = targets.get(side, {}).get(batch)
            held = "" if target is None else f" (target {target:g}: {'met' if mine / peer <= target else 'MISSED'})"
            line += f"   {side} {peer:,.1f} us, ratio {mine / peer:.3f}{held}"
        print(line, flush=True)


def check(name, mine, theirs, bound):
    off = float(numpy.abs(mine - theirs).max())
    if not off <= bound:
        sys.exit(f"trees {name}: answers differ by {off}, more than {bound}")
    return f"{off:.1e}"


def forest(name, width, classes, targets, arguments):
    folder = arguments.folder
    rows = numpy.fromfile(folder / f"{name}.rows")
    ours = Ours(arguments.bench, folder / f"{name}.joblib", folder / f"{name}.rows")
    peer = OnnxRuntime(folder / f"{name}.onnx", rows, width, classes)
    off = check(name, ours.answers, peer.answers(), 1e-4)
    print(f"trees {name}: loaded in {ours.load_ms:,.1f} ms, said to cost {ours.row_cost_us:.1f} us a row; {off} from ONNX Runtime's 32 bits")
    compare(name, ours, {"onnxruntime": peer}, {"onnxruntime": targets}, arguments)
    ours.end()


def boosted(name, width, arguments):
    folder = arguments.folder
    rows = numpy.fromfile(folder / f"{name}.rows")
    ours = Ours(arguments.bench, folder / f"{name}.txt", folder / f"{name}.rows")
    peers = {"lightgbm": LightGbm(folder / f"{name}.txt", rows, width)}
    try:
        peers = {"lleaves": Lleaves(folder / f"{name}.txt", rows, width), **peers}
    except Exception as error:
        print(f"lleaves cannot be had here ({error}): its column is left out")
    off = [check(name, ours.answers[1::2], peer.answers(), 1e-12) for peer in peers.values()]
    made = json.loads((folder / "made.json").read_text())
    compiled = made.get("lleaves_compile_s")
    compiled = "" if compiled is None else f", lleaves compiles {compiled:,.0f} s"
    held = "met" if ours.load_ms < 1000 else "MISSED"
    print(f"trees {name}: loaded in {ours.load_ms:,.1f} ms (target 1,000: {held}; LightGBM {peers['lightgbm'].load_ms:,.1f} ms{compiled}), "
          f"said to cost {ours.row_cost_us:.1f} us a row; {', '.join(off)} from {', '.join(peers)}")
    compare(name, ours, peers, {"lleaves": dict.fromkeys(BATCHES, 1.0)}, arguments)
    ours.end()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    names = ("onnxruntime", "skl2onnx", "lightgbm", "lleaves", "scikit-learn", "numpy")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in names if has(name)))
    forest("iris", 4, 3, {}, arguments)
    forest("forest", 100, 2, {1: 0.25, 32: 0.35, 1024: 0.20}, arguments)
    boosted("boosted", 100, arguments)


def has(name):
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


main()
