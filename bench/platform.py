"""Start-up, memory, idle CPU, Jobs, durable writes and a KFP step, each beside a peer where this machine has one.

usage: platform.py ROWS (start,jobs,creates,step). Medians of alternating rounds; nothing here fails on a slow machine,
but every row says whether it meets its first target, and the load of the machine stands above.
"""
import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import http.client
import socket

BIN = os.environ["SLIPWAY_BIN"]
PYTHON = pathlib.Path(os.environ["SLIPWAY_PYTHON"])
ROUNDS = 5


def row(what, ours, unit, target=None, peer=None, peer_name=""):
    """`target` is the most that is allowed; None where there is none yet."""
    held = "no target yet" if target is None else f"target {target:,g}: {'met' if ours <= target else 'MISSED'}"
    beside = f"   {peer_name} {peer:,.1f} {unit}, ratio {ours / peer:.3f}" if peer else ""
    print(f"{what:<54} {ours:>9,.1f} {unit:<4} {held:<20}{beside}", flush=True)


class Cluster:
    def __init__(self, folder):
        self.data = str(folder)
        ports = [f"--{part}-port=0" for part in ("kubernetes", "pipelines", "mlflow", "gateway", "artifacts")]
        started = time.perf_counter()
        self("up", "--detach", "--no-merge", *ports)
        parts = json.loads(self("kubeconfig", "-o", "json"))
        self.status = json.loads(self("status", "-o", "json"))
        self.tls = ssl.create_default_context(cadata=parts["ca"])
        pem = pathlib.Path(folder) / "client.pem"
        pem.write_text(parts["certificate"] + parts["key"])
        self.tls.load_cert_chain(pem)
        self.host = parts["server"].removeprefix("https://")
        self.wait_job_accepted()
        for part, path in [("pipelines", "/apis/v2beta1/healthz"), ("mlflow", "/health"), ("gateway", "/"), ("artifacts", "/healthz")]:
            answer(self.status["addresses"][part] + path)
        self.ready_ms = (time.perf_counter() - started) * 1000

    def __call__(self, *arguments):
        line = [BIN, *arguments, "--data", self.data]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    def connection(self):
        connection = http.client.HTTPSConnection(self.host, context=self.tls)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def wait_job_accepted(self):
        connection = self.connection()
        assert call(connection, "POST", JOBS, job("first"))[0] == 201

    def processes(self):
        """Every process of the cluster: the server, the shims, and what they started."""
        named = subprocess.run(["pgrep", "-f", self.data], capture_output=True, text=True).stdout.split()
        return tree(int(pid) for pid in named if int(pid) != os.getpid())

    def pss_mb(self):
        return sum(map(pss_kb, self.processes())) / 1024

    def idle(self, seconds):
        """Share of one core, in percent, that the cluster uses while nobody asks anything."""
        before = {pid: cpu_seconds(pid) for pid in self.processes()}
        time.sleep(seconds)
        return 100 * sum(cpu_seconds(pid) - before.get(pid, 0) for pid in self.processes()) / seconds

    def cpu_ms(self):
        """CPU time of the server and of every process that it has waited for; the load of the machine hardly changes it."""
        return 10 * sum(map(int, stat(self.status["pid"])[11:15]))

    def down(self):
        self("down")


def stat(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None


def tree(roots):
    found = set(roots)
    parents = {int(folder.name): int(fields[1]) for folder in pathlib.Path("/proc").glob("[0-9]*") if (fields := stat(folder.name))}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def cpu_seconds(pid):
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0


def pss_kb(pid):
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def answer(url):
    try:
        urllib.request.urlopen(url, timeout=10).read()
    except urllib.error.HTTPError:
        pass  # an answer, too


JOBS = "/apis/batch/v1/namespaces/default/jobs"


def job(name):
    container = {"name": "main", "image": "busybox", "command": ["true"]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template}}


def call(connection, method, path, body=None):
    connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    return reply.status, reply.read()


def bench_start():
    ours_ms, ours_mb, ours_idle, mlflow_ms, mlflow_mb = [], [], [], [], []
    for round_ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            cluster = Cluster(pathlib.Path(folder) / "data-bench")
            try:
                ours_ms.append(cluster.ready_ms)
                if round_ == 0:
                    # The budget is defined after 60 s idle; the first seconds still belong to the start.
                    time.sleep(5)
                    ours_idle.append(cluster.idle(60))
                    ours_mb.append(cluster.pss_mb())
            finally:
                cluster.down()
        if round_ < 2:
            ms, mb = start_mlflow()
            mlflow_ms.append(ms), mlflow_mb.append(mb)
    peer = "mlflow server alone"
    row("up: exec to every address, first Job accepted", statistics.median(ours_ms), "ms", 500, statistics.median(mlflow_ms), peer)
    row("memory: PSS of all processes after 60 s idle", ours_mb[0], "MB", 80, statistics.median(mlflow_mb), peer)
    row("CPU of all processes over 60 s idle", ours_idle[0], "%", 1)


def start_mlflow():
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        started = time.perf_counter()
        line = [str(PYTHON / "mlflow"), "server", "--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/m.db"]
        server = subprocess.Popen(line, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).read()
                break
            except OSError:
                time.sleep(0.05)
        ms = (time.perf_counter() - started) * 1000
        pids = subprocess.run(["pgrep", "-s", str(server.pid)], capture_output=True, text=True).stdout.split()
        mb = sum(pss_kb(pid) for pid in pids) / 1024
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        return ms, mb


def bench_jobs(cluster):
    """100 Jobs one after another and 200 at once, each from create to Complete as an independent watcher sees it."""
    created, done, all_done = {}, {}, threading.Event()
    watcher = cluster.connection()
    watcher.request("GET", JOBS + "?watch=1")
    stream = watcher.getresponse()
    seen = threading.Condition()

    def watch():
        for line in stream:
            event = json.loads(line)
            conditions = event["object"].get("status", {}).get("conditions", [])
            name = event["object"]["metadata"]["name"]
            if name in created and name not in done and any(c["type"] == "Complete" for c in conditions):
                with seen:
                    done[name] = time.perf_counter()
                    seen.notify_all()

    threading.Thread(target=watch, daemon=True).start()
    connection = cluster.connection()

    def create(name, connection):
        created[name] = time.perf_counter()
        assert call(connection, "POST", JOBS, job(name))[0] == 201

    def wait(name):
        with seen:
            assert seen.wait_for(lambda: name in done, timeout=60), f"{name} does not complete"

    before_ms = cluster.cpu_ms()
    for index in range(100):
        create(f"one-{index}", connection)
        wait(f"one-{index}")
    times = sorted((done[name] - created[name]) * 1000 for name in done if name.startswith("one-"))
    row("Job `true`: create to Complete, p50 of 100", times[50], "ms", 50)
    row("Job `true`: create to Complete, p99 of 100", times[98], "ms")
    row("Job `true`: CPU time each", (cluster.cpu_ms() - before_ms) / 100, "ms")
    for index in range(200):
        create(f"many-{index}", connection)
    for index in range(200):
        wait(f"many-{index}")
    many = [name for name in done if name.startswith("many-")]
    span = max(done[name] for name in many) - min(created[name] for name in many)
    row("200 Jobs `true` at once: first create to last Complete", span * 1000, "ms")


def bench_creates(cluster):
    """Durable creates of ConfigMaps, each answered after its sync."""
    path = "/api/v1/namespaces/default/configmaps"

    def work(worker, seconds):
        connection, count, end = cluster.connection(), 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": f"w{worker}-"}, "data": {"a": "b"}}
            assert call(connection, "POST", path, body)[0] == 201
            count += 1
        return count

    for clients in (1, 16):
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            total = sum(pool.map(lambda worker: work(worker, 5), range(clients)))
        row(f"synced creates, {clients} client{'s' * (clients > 1)}", total / 5, "/s")


STEP = '''
from kfp import dsl, compiler, local
@dsl.component(base_image="python:3.9-slim")
def add(a: int, b: int) -> int:
    return a + b
@dsl.pipeline(name="one-step")
def one(a: int = 1):
    add(a=a, b=2)
'''


def bench_step(cluster):
    """A lightweight Python step: run created to run finished, beside kfp.local's subprocess runner without venv."""
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder) / "one.py"
        script.write_text(STEP + "compiler.Compiler().compile(one, 'one.yaml')\n")
        subprocess.run([PYTHON / "python", script], cwd=folder, check=True)
        cluster("images", "add", "python:3.9-slim", "--from", "host", "--path-prepend", str(PYTHON))
        ours = []
        for index in range(ROUNDS + 1):
            started = time.perf_counter()
            cluster("kfp", "submit", "--pipeline-file", f"{folder}/one.yaml", "--run-name", f"s{index}", "--wait", "-p", f"a={index}")
            ours.append((time.perf_counter() - started) * 1000)
        peer = pathlib.Path(folder) / "peer.py"
        peer.write_text(STEP + (
            "import time\nlocal.init(runner=local.SubprocessRunner(use_venv=False))\n"
            "for i in range(%d):\n    s = time.perf_counter(); one(a=i); print('MS', (time.perf_counter() - s) * 1000)\n" % ROUNDS))
        out = subprocess.run([PYTHON / "python", peer], cwd=folder, capture_output=True, text=True)
        peers = [float(line.split()[1]) for line in out.stdout.splitlines() if line.startswith("MS ")]
        if not peers:
            print(f"kfp.local did not run, its column is left out: {out.stderr.strip().splitlines()[-1:]}")
        row("KFP Python step, first (submit to finished)", ours[0], "ms")
        row("KFP Python step, warm (submit to finished)", statistics.median(ours[1:]), "ms", 300,
            statistics.median(peers) if peers else None, "kfp.local subprocess")


def main():
    rows = sys.argv[1].split(",")
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{os.cpu_count()} cores, load before: {load} (a row measured under load is an upper bound)")
    if "start" in rows:
        bench_start()
    if not {"jobs", "creates", "step"} & set(rows):
        return
    folder = tempfile.mkdtemp()
    cluster = Cluster(pathlib.Path(folder) / "data-bench")
    try:
        for name, bench in [("jobs", bench_jobs), ("creates", bench_creates), ("step", bench_step)]:
            if name in rows:
                bench(cluster)
    finally:
        cluster.down()
        shutil.rmtree(folder, ignore_errors=True)


main()
