"""The real kfp SDK against the pipelines API: what a user's own process does, call by call.

Usage: client.py ENDPOINT [--timeout SECONDS]. Needs kfp >= 2; exits 0 when every step answered as upstream's server does.
"""

import argparse
import os
import tempfile
import time
import uuid

import kfp
from kfp import compiler, dsl


@dsl.container_component
def say(text: str):
    return dsl.ContainerSpec(image="busybox", command=["echo", text])


@dsl.pipeline(name="conformance-hello")
def hello(text: str = "hello"):
    first = say(text=text)
    say(text="again").after(first)


def check(condition, what):
    if not condition:
        raise SystemExit(f"FAILED: {what}")
    print("ok:", what)


def refused(call, code, what):
    try:
        call()
    except kfp.client.client.kfp_server_api.ApiException as error:
        check(error.status == code, f"{what} ({error.status})")
        return
    raise SystemExit(f"FAILED: {what}: it was accepted")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("endpoint")
    parser.add_argument("--timeout", type=int, default=120)
    args = parser.parse_args()
    # No context file of another test or of the user.
    os.environ["HOME"] = tempfile.mkdtemp()
    unique = uuid.uuid4().hex[:8]
    package = os.path.join(os.environ["HOME"], "hello.yaml")
    compiler.Compiler().compile(hello, package)

    client = kfp.Client(host=args.endpoint)
    check(client.get_kfp_healthz().pipeline_store == "database", "healthz")

    started = time.time()
    run = client.create_run_from_pipeline_package(package, arguments={"text": "from the sdk"}, run_name=f"run-{unique}")
    done = client.wait_for_run_completion(run.run_id, timeout=args.timeout, sleep_duration=1)
    check(done.state == "SUCCEEDED", f"create_run_from_pipeline_package, then {done.state} in {time.time() - started:.1f} s")
    check(len(done.run_details.task_details) >= 2, "task_details")
    check(done.finished_at.year > 2000, "finished_at")

    runs = client.list_runs(page_size=5, sort_by="created_at desc")
    check(runs.runs[0].run_id == run.run_id, "list_runs, newest first")
    experiment = client.get_experiment(experiment_name="Default")
    check(experiment.display_name == "Default", "the Default experiment")

    made = client.create_experiment(f"experiment-{unique}", description="d")
    again = client.create_experiment(f"experiment-{unique}")
    check(made.experiment_id == again.experiment_id, "create_experiment finds its own")
    named = client.create_run_from_pipeline_func(hello, arguments={}, experiment_name=f"experiment-{unique}", enable_caching=False)
    listed = client.list_runs(experiment_id=made.experiment_id)
    check([r.run_id for r in listed.runs] == [named.run_id], "list_runs of an experiment")

    pipeline = client.upload_pipeline(package, pipeline_name=f"hello-{unique}", description="d")
    check(client.get_pipeline_id(f"hello-{unique}") == pipeline.pipeline_id, "upload_pipeline, get_pipeline_id")
    version = client.upload_pipeline_version(package, f"v2-{unique}", pipeline_id=pipeline.pipeline_id)
    check(len(client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions) == 2, "list_pipeline_versions")
    referred = client.run_pipeline(
        made.experiment_id, f"by-reference-{unique}", pipeline_id=pipeline.pipeline_id, version_id=version.pipeline_version_id
    )
    check(client.wait_for_run_completion(referred.run_id, args.timeout, 1).state == "SUCCEEDED", "run_pipeline by version")

    refused(lambda: client.delete_pipeline(pipeline.pipeline_id), 400, "delete_pipeline with versions is refused")
    for item in client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions:
        client.delete_pipeline_version(pipeline.pipeline_id, item.pipeline_version_id)
    client.delete_pipeline(pipeline.pipeline_id)
    refused(lambda: client.get_pipeline(pipeline.pipeline_id), 404, "get_pipeline of a deleted one")
    refused(
        lambda: client.create_run_from_pipeline_package(package, arguments={"nonsense": 1}), 400, "an unknown root parameter"
    )

    client.wait_for_run_completion(named.run_id, args.timeout, 1)
    client.archive_run(named.run_id)
    check(client.get_run(named.run_id).storage_state == "ARCHIVED", "archive_run")
    client.unarchive_run(named.run_id)
    client.delete_run(named.run_id)
    refused(lambda: client.get_run(named.run_id), 404, "get_run of a deleted one")
    client.archive_experiment(made.experiment_id)
    client.delete_experiment(made.experiment_id)
    print("all passed")


if __name__ == "__main__":
    main()
