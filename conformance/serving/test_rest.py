"""HTTP: curl with the documents' examples, Triton's client. Answers equal scikit-learn's."""
import gzip
import json

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def test_curl_speaks_v1(serve, forest):
    server = serve(forest)
    assert server.curl("/") == (200, '{"status":"alive"}')
    assert server.curl("/v1/models") == (200, '{"models":["iris"]}')
    code, text = server.curl("/v1/models/iris:predict", json.dumps({"instances": forest.rows.tolist()}))
    assert (code, json.loads(text)) == (200, {"predictions": forest.model.predict(forest.rows).tolist()})
    # `-d` alone says application/x-www-form-urlencoded, as half the tutorials do.
    assert server.curl("/v1/models/iris:predict", '{"instances": [[6.8, 2.8, 4.8]]}')[0] == 400
    assert server.curl("/v1/models/rose:predict", "{}")[0] == 404


def test_curl_speaks_v2(serve, forest):
    server = serve(forest)
    body = {"id": "42", "inputs": [{"name": "input-0", "shape": [2, 4], "datatype": "FP32",
                                    "data": [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]}]}
    code, text = server.curl("/v2/models/iris/infer", json.dumps(body))
    answer = json.loads(text)
    assert (code, answer["id"], answer["outputs"][0]["data"]) == (200, "42", [1, 1])
    assert server.curl("/v2/models/iris/versions/9/infer", json.dumps(body))[0] == 404


def test_curl_compresses_and_takes_compressed(serve, forest, tmp_path):
    server = serve(forest)
    body = json.dumps({"instances": np.tile(forest.rows, (100, 1)).tolist()})
    want = {"predictions": forest.model.predict(np.tile(forest.rows, (100, 1))).tolist()}
    code, text = server.curl("/v1/models/iris:predict", body, "--compressed", "-D", str(tmp_path / "head"))
    assert (code, json.loads(text)) == (200, want)
    assert "content-encoding: gzip" in (tmp_path / "head").read_text().lower()
    (tmp_path / "body").write_bytes(gzip.compress(body.encode()))
    packed = ["-H", "content-encoding: gzip", "--data-binary", f"@{tmp_path}/body"]
    code, text = server.curl("/v1/models/iris:predict", None, *packed)
    assert (code, json.loads(text)) == (200, want)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("dtype", ["FP64", "FP32"])
def test_tritons_client_gets_scikit_learns_numbers(serve, forest, binary_in, binary_out, dtype):
    server = serve(forest, "--predict_proba=true")
    kind = np.float64 if dtype == "FP64" else np.float32
    with triton.InferenceServerClient(server.http) as client:
        rows = triton.InferInput("input-0", list(forest.rows.shape), dtype)
        rows.set_data_from_numpy(forest.rows.astype(kind), binary_data=binary_in)
        wanted = [triton.InferRequestedOutput("output-0", binary_data=binary_out)]
        answer = client.infer("iris", [rows], outputs=wanted, request_id="x")
        got = answer.as_numpy("output-0")
    assert got.dtype == np.float64 and answer.get_response()["id"] == "x"
    np.testing.assert_array_equal(got, forest.model.predict_proba(forest.rows.astype(kind).astype(float)))


def test_tritons_client_asks_about_server_and_models(serve, forest):
    server = serve(forest, "--personality=triton")
    with triton.InferenceServerClient(server.http) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("iris")
        assert not client.is_model_ready("rose")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("iris")
        assert metadata["inputs"] == [{"name": "input-0", "datatype": "FP64", "shape": [-1, 4]}]
        config = client.get_model_config("iris")
        assert config["input"] == [{"name": "input-0", "data_type": "TYPE_FP64", "dims": [-1, 4]}]
        assert client.get_model_repository_index()[0]["state"] == "READY"
        for call in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match="not allowed"):
                call("iris")


def test_tritons_client_asks_for_classes(serve, forest):
    server = serve(forest, "--predict_proba=true")
    with triton.InferenceServerClient(server.http) as client:
        rows = triton.InferInput("input-0", list(forest.rows.shape), "FP64")
        rows.set_data_from_numpy(forest.rows)
        for binary in (True, False):
            wanted = [triton.InferRequestedOutput("output-0", binary_data=binary, class_count=2)]
            got = client.infer("iris", [rows], outputs=wanted).as_numpy("output-0")
            assert got.shape == (len(forest.rows), 2)
            for texts, shares in zip(got, forest.model.predict_proba(forest.rows)):
                value, place = (texts[0].decode() if isinstance(texts[0], bytes) else texts[0]).split(":")
                assert int(place) == shares.argmax() and abs(float(value) - shares.max()) < 1e-6


def test_tritons_client_compresses(serve, forest):
    server = serve(forest)
    many = np.tile(forest.rows, (200, 1))
    with triton.InferenceServerClient(server.http) as client:
        rows = triton.InferInput("input-0", list(many.shape), "FP64")
        rows.set_data_from_numpy(many)
        for coding in ("gzip", "deflate"):
            answer = client.infer("iris", [rows], request_compression_algorithm=coding,
                                  response_compression_algorithm="gzip")
            np.testing.assert_array_equal(answer.as_numpy("output-0"), forest.model.predict(many))


def test_columns_of_a_data_frame_go_as_tensors(serve, table):
    server = serve(table)
    want = table.model.predict(table.rows).tolist()
    with triton.InferenceServerClient(server.http) as client:
        names = [spec["name"] for spec in client.get_model_metadata("iris")["inputs"]]
        assert names == list(table.rows.columns)
        inputs = []
        for name in names:
            column = table.rows[name]
            is_text = column.dtype != float
            values = column.to_numpy(dtype=object if is_text else float)
            column = triton.InferInput(name, [len(values)], "BYTES" if is_text else "FP64")
            column.set_data_from_numpy(values)
            inputs.append(column)
        answer = client.infer("iris", inputs).as_numpy("output-0")
    assert [text.decode() for text in answer] == want
    for instances in (table.rows.to_dict("records"), table.rows.values.tolist()):
        code, text = server.curl("/v1/models/iris:predict", json.dumps({"instances": instances}))
        assert (code, json.loads(text)) == (200, {"predictions": want})


def test_what_does_not_fit_is_a_clients_error(serve, forest):
    server = serve(forest)
    with triton.InferenceServerClient(server.http) as client:
        rows = triton.InferInput("input-0", [1, 3], "FP64")
        rows.set_data_from_numpy(np.zeros((1, 3)))
        with pytest.raises(InferenceServerException, match=r"iris.*input-0.*\[-1, 4\].*\[1, 3\]") as caught:
            client.infer("iris", [rows])
        assert caught.value.status() == "400"
