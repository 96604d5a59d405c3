"""Kills the server with -9 at random points of a running workflow and checks that nothing is lost or run twice.

usage: crash.py SLIPWAY DATA SEED [KILLS]. Standard library only, so that it runs as any user.
"""
import json
import os
import random
import select
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SLIPWAY, DATA, SEED = sys.argv[1], sys.argv[2], int(sys.argv[3])
KILLS = int(sys.argv[4]) if len(sys.argv) > 4 else 20
LINES = 1200
MARKER = f"slipway-crash-{SEED}-{os.getpid()}"
chance = random.Random(SEED)


def slipway(*arguments):
    done = subprocess.run([SLIPWAY, *arguments, "--data", DATA], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def up():
    ports = [f"--{part}-port=0" for part in ("kubernetes", "pipelines", "mlflow", "gateway", "artifacts")]
    slipway("up", "--detach", "--no-merge", *ports)
    return json.loads(slipway("status", "-o", "json"))


class Kubernetes:
    """The few calls that this needs, with the kubeconfig's own certificates."""

    def __init__(self):
        config = json.loads(subprocess.run(
            [SLIPWAY, "kubeconfig", "--data", DATA, "-o", "json"], capture_output=True, text=True, check=True).stdout)
        self.base = config["server"]
        self.context = ssl.create_default_context(cadata=config["ca"])
        certificate = Path(DATA) / "crash-client.pem"
        certificate.write_text(config["certificate"] + config["key"])
        self.context.load_cert_chain(certificate)

    def call(self, method, path, body=None):
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, context=self.context, timeout=60) as answer:
            return answer.read().decode()

    def get(self, path):
        return json.loads(self.call("GET", path))


def step_process():
    """(pid, start ticks) of the step's shell, found by its marker; None before it runs or after it ended."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        # The step's own shell has the marker as its own argument; the launcher and shim only pass it on.
        if command[:2] == [b"sh", b"-c"] and len(command) > 3 and command[3].decode() == MARKER:
            return int(folder.name), int(stat[19])
    return None


def cluster_processes():
    """{(pid, start ticks): command} of every process that names the data folder, and of what they started."""
    seen = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if stat[0] != "Z":
            seen[int(folder.name)] = (int(stat[1]), int(stat[19]), command)
    ours = {pid for pid, (_, _, command) in seen.items() if f"{DATA}/" in command or command.rstrip().endswith(DATA)}
    ours.discard(os.getpid())
    while more := {pid for pid, (parent, _, _) in seen.items() if parent in ours} - ours:
        ours |= more
    # This script and who called it name the folder, too.
    return {(pid, seen[pid][1]): seen[pid][2] for pid in ours if "crash.py" not in seen[pid][2]}


def alive(pid, start):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    return stat[0] != "Z" and int(stat[19]) == start


def end_hard(pid):
    """-9, and waits until the process is gone: it dies a moment after the signal."""
    process = os.pidfd_open(pid)
    signal.pidfd_send_signal(process, signal.SIGKILL)
    select.select([process], [], [], 30)
    os.close(process)


PODS = "/api/v1/namespaces/default/pods"


def pod(name, script):
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", script]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"restartPolicy": "Never", "containers": [container]}}


def main():
    state = up()
    # Every line of the log and of the mark file tells whether the step ran once.
    script = f'echo started >> /tmp/mark; i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.05; done'
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "survivor"},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "steps": [[{"name": "first", "template": "quick"}], [{"name": "second", "template": "slow"}]]},
            {"name": "quick", "container": {"image": "busybox", "command": ["sh", "-c", "echo quick"]}},
            {"name": "slow", "container": {"image": "busybox", "command": ["sh", "-c", script, MARKER]},
             "outputs": {"parameters": [{"name": "mark", "valueFrom": {"path": "/tmp/mark"}}]}},
        ]},
    }
    kubernetes = Kubernetes()
    path = "/apis/argoproj.io/v1alpha1/namespaces/default/workflows"
    kubernetes.call("POST", path, workflow)
    # Plain pods beside it: one ends meanwhile with a code of its own, one never ends by itself.
    kubernetes.call("POST", PODS, pod("odd", "echo odd; sleep 20; exit 7"))
    kubernetes.call("POST", PODS, pod("endless", "sleep 1000000"))
    while_running, seen = 0, None
    for kill in range(KILLS):
        time.sleep(chance.uniform(0.0, 1.5))
        process = step_process()
        if process and seen:
            assert process == seen, f"the step's process changed from {seen} to {process}"
        seen = process or seen
        end_hard(state["pid"])
        state = up()
        after = step_process()
        if process and after:
            assert after == process, f"the step's process changed from {process} to {after} over a restart"
            while_running += 1
    kubernetes = Kubernetes()
    deadline = time.monotonic() + 180
    while True:
        status = kubernetes.get(f"{path}/survivor").get("status", {})
        if status.get("phase") in ("Succeeded", "Failed", "Error"):
            break
        assert time.monotonic() < deadline, f"the run does not end: {status}"
        time.sleep(0.5)
    assert status["phase"] == "Succeeded", status
    nodes = [node for node in status["nodes"].values() if node["type"] == "Pod"]
    assert len(nodes) == 2, f"a step ran again: {[node['name'] for node in nodes]}"
    slow = next(node for node in nodes if node["templateName"] == "slow")
    marks = slow["outputs"]["parameters"][0]["value"].split()
    assert marks == ["started"], f"the step started {len(marks)} times"
    assert slow["outputs"]["exitCode"] == "0", slow["outputs"]
    step = next(pod for pod in kubernetes.get(PODS)["items"] if MARKER in json.dumps(pod["spec"]))
    log = kubernetes.call("GET", f"{PODS}/{step['metadata']['name']}/log?container=main")
    assert log.split("\n")[:-1] == [f"line {i + 1}" for i in range(LINES)], "the log has gaps"
    assert while_running >= min(10, KILLS // 2), f"only {while_running} kills met the running step"
    odd = kubernetes.get(f"{PODS}/odd")["status"]
    ended = odd["containerStatuses"][0]
    assert (odd["phase"], ended["state"]["terminated"]["exitCode"], ended["restartCount"]) == ("Failed", 7, 0), odd
    endless = kubernetes.get(f"{PODS}/endless")["status"]
    assert (endless["phase"], endless["containerStatuses"][0]["restartCount"]) == ("Running", 0), endless
    before = cluster_processes()
    assert any("sleep 1000000" in command for command in before.values()), before
    slipway("down")
    left = {who: command for who, command in cluster_processes().items()}
    left |= {who: command for who, command in before.items() if alive(*who)}
    assert not left, f"left after down: {left}"
    print(f"{KILLS} kills, {while_running} while the step ran: same process, one start, exit codes and whole log kept, "
          f"all {len(before)} processes gone after down")


try:
    main()
finally:
    # Also after a failed assertion nothing of the cluster stays.
    subprocess.run([SLIPWAY, "down", "--data", DATA], capture_output=True, timeout=120)
