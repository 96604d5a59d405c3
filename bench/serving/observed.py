#!/usr/bin/env python3
"""What seeing inside costs: the model server with everything on beside the same server with everything off.

    bench/serving/observed.py [--slipway BIN] [--examples DIR] [--connections 16] [--rounds 15] [--seconds 1]

On: times and model in each answer, a sampled access log, sampled spans and payloads sent to a collector, a sampled
shadow, the admin's port, and a scrape of the metrics each second. The servers take turns and are started anew for each, because
where a process lies in memory is luck and worth more than what is measured; each number is the median of the rounds.
Standard library only.
"""
import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from measured import IRIS, Rows, arguments, command  # noqa: E402
from run import BODY, PATH, Subject, median  # noqa: E402


def metrics(subject):
    return urllib.request.urlopen("http://%s/metrics" % subject.address).read().decode()


def main():
    parser = argparse.ArgumentParser()
    arguments(parser)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--share", default="0.01")
    args = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    server, client = (str(cpus[0]), str(cpus[1])) if len(cpus) > 1 else (str(cpus[0]),) * 2
    folder = tempfile.mkdtemp()
    for name in ("iris", "rose"):
        os.makedirs(os.path.join(folder, "models", name, "1"))
        shutil.copy(IRIS, os.path.join(folder, "models", name, "1"))
    lists = os.path.join(folder, "models.config")
    with open(lists, "w") as out:
        out.write("model_config_list { %s }" % " ".join(
            "config { name: '%s' base_path: '%s' }" % (name, os.path.join(folder, "models", name)) for name in ("iris", "rose")))
    flags = command(args) + ["--model_config_file", lists, "--http_port", "0", "--host", "127.0.0.1", "--enable_grpc", "false"]
    collector = Subject("collector", ["nice", "-n", "19", os.path.join(args.examples, "bench_echo")], client)
    url = "http://" + collector.address
    on = ["--server_timing", "--model_headers", "--access_log", os.path.join(folder, "access.log"), "--access_log_share", args.share,
          "--otlp_traces_endpoint", url + PATH, "--traces_sampler_arg", args.share, "--log_url", url + PATH, "--log_share", args.share,
          "--shadow", "iris=rose@" + args.share, "--admin_port", "0"]
    subjects = [Subject("off", flags, server), Subject("on", flags + on, server)]
    ended = threading.Event()

    def scrape():
        while not ended.wait(1):
            try:
                metrics(subjects[1])
            except OSError:
                pass  # It is being started anew.

    threading.Thread(target=scrape, daemon=True).start()
    load = os.path.join(args.examples, "bench_load")
    seen = {subject.name: [] for subject in subjects}
    counted = {}
    try:
        for round_ in range(args.rounds):
            # The first of a pair changes from round to round: machines get warm.
            for subject in subjects if round_ % 2 else subjects[::-1]:
                seen[subject.name].append(subject.renew().measure(load, client, args.connections, args.seconds, PATH, BODY))
            for line in metrics(subjects[1]).splitlines():
                if line.startswith(("slipway_serve_observations_dropped", "slipway_serve_shadow_calls")):
                    name, count = line.rsplit(" ", 1)
                    counted[name] = counted.get(name, 0) + int(count)
    finally:
        ended.set()
        for subject in subjects + [collector]:
            subject.end()
    print("one iris row, %d connections, everything on (shares of %s) beside everything off; median of %d rounds of %g s" %
          (args.connections, args.share, args.rounds, args.seconds))
    medians = {name: median(all_) for name, all_ in seen.items()}
    for name, row in medians.items():
        print("  %-4s %9.0f req/s   p50 %8.1f us   p99 %8.1f us   %7.2f us CPU/request" %
              (name, row["rate"], row["p50_us"], row["p99_us"], row["cpu_us"]))
    ratios = [on_["rate"] / off["rate"] for on_, off in zip(seen["on"], seen["off"])]
    rows = Rows()
    rows.say("rate, everything on / off, median of pairs", statistics.median(ratios), least=0.98)
    rows.say("rate, on / off of the medians", medians["on"]["rate"] / medians["off"]["rate"])
    rows.say("CPU of a request, on / off", medians["on"]["cpu_us"] / medians["off"]["cpu_us"])
    with open(os.path.join(folder, "access.log")) as lines:
        print("  lines in the access log: %d" % sum(1 for _ in lines))
    for line in counted.items():
        print("  %s %d" % line)
    shutil.rmtree(folder, ignore_errors=True)
    rows.end(args.json)


if __name__ == "__main__":
    main()
