"""TLS, client certificates and unix sockets, with curl and gRPC's own library."""
import json
import shutil
import subprocess

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

BODY = json.dumps({"instances": [[6.8, 2.8, 4.8, 1.4]]})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An authority, a server's certificate and a client's."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=folder)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.pem", "-extfile", "names")
    return folder


def curl(*arguments):
    line = ["curl", "-sS", "-d", BODY, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=30)


def test_client_certificates(serve, forest, files):
    server = serve(forest, f"--tls_certificate={files}/server.pem", f"--tls_key={files}/server.key",
                   f"--tls_client_authorities={files}/ca.pem")
    url = f"https://{server.http}/v1/models/iris:predict"
    identity = ["--cert", files / "client.pem", "--key", files / "client.key"]
    done = curl("--cacert", files / "ca.pem", *identity, url)
    assert json.loads(done.stdout) == {"predictions": [1]}, done.stderr
    assert curl("--cacert", files / "ca.pem", url).returncode != 0
    for port in (server.grpc, server.http):
        client = triton.InferenceServerClient(
            port, ssl=True, root_certificates=f"{files}/ca.pem", private_key=f"{files}/client.key",
            certificate_chain=f"{files}/client.pem")
        rows = triton.InferInput("input-0", list(forest.rows.shape), "FP64")
        rows.set_data_from_numpy(forest.rows)
        answer = client.infer("iris", [rows], client_timeout=20).as_numpy("output-0")
        np.testing.assert_array_equal(answer, forest.model.predict(forest.rows))
        client.close()


def test_unix_sockets(serve, forest, tmp_path):
    http, rpc = tmp_path / "http.sock", tmp_path / "grpc.sock"
    serve(forest, f"--http_socket={http}", f"--grpc_socket={rpc}")
    done = curl("--unix-socket", http, "http://localhost/v1/models/iris:predict")
    assert json.loads(done.stdout) == {"predictions": [1]}, done.stderr
    for path in (http, rpc):
        # The client calls the server by the socket's path, which is no host's name.
        with grpc.insecure_channel(f"unix:{path}") as channel:
            ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
            assert ready(b"", timeout=10) == b"\x08\x01"
