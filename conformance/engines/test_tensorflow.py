"""SavedModels in TensorFlow, asked as TensorFlow Serving is: tensorflow-serving-api over gRPC, curl over REST."""
import subprocess

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2, model_service_pb2_grpc,
    predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc, regression_pb2,
)

from conftest import BIN, free_port, opened

v1 = tf.compat.v1
NAME = "half_plus_two"


def half_plus(folder, constant):
    """TensorFlow Serving's test model: x / 2 + a constant, with signatures of all kinds."""
    with tf.Graph().as_default(), v1.Session() as session:
        a, b = v1.Variable(0.5, name="a"), v1.Variable(float(constant), name="b")
        serialised = v1.placeholder(tf.string, [None], name="tf_example")
        parsed = tf.io.parse_example(serialised, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(a * x, b, name="y")
        labels = tf.strings.as_string(tf.constant(0) * tf.cast(x, tf.int32), name="labels")
        session.run(v1.global_variables_initializer())
        definitions = v1.saved_model.signature_def_utils
        build = v1.saved_model.utils.build_tensor_info
        method = v1.saved_model.signature_constants
        signatures = {
            "serving_default": definitions.build_signature_def({"x": build(x)}, {"y": build(y)}, method.PREDICT_METHOD_NAME),
            "regress_x_to_y": definitions.build_signature_def(
                {"inputs": build(serialised)}, {"outputs": build(y)}, method.REGRESS_METHOD_NAME),
            "classify_x_to_y": definitions.build_signature_def(
                {"inputs": build(serialised)}, {"scores": build(y), "classes": build(labels)}, method.CLASSIFY_METHOD_NAME),
        }
        builder = v1.saved_model.builder.SavedModelBuilder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


class Several(tf.Module):
    """Signatures with texts, with several inputs, and without rows."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def words(self, text):
        return {"joined": tf.strings.join([text, text], "-"), "length": tf.strings.length(text)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="a"), tf.TensorSpec([None], tf.int64, name="b")])
    def two(self, a, b):
        return {"sum": tf.reduce_sum(a, 1) + tf.cast(b, tf.float32)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="factor"), tf.TensorSpec(None, tf.float32, name="x")])
    def scale(self, factor, x):
        return {"scaled": factor * x}


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    half_plus(folder / "1", 2)
    half_plus(folder / "2", 3)
    return folder


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    model = Several()
    signatures = {"serving_default": model.two, "words": model.words, "scale": model.scale}
    tf.saved_model.save(model, str(folder / "7"), signatures=signatures)
    return folder


class Both:
    """A server with TensorFlow Serving's flags, and its stubs."""

    def __init__(self, start, flags):
        self.port = free_port()
        self.server = start("tensorflow_model_server", f"--port={self.port}", f"--rest_api_port={free_port()}", *flags)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)


@pytest.fixture(scope="module")
def both(start, half, tmp_path_factory):
    config = tmp_path_factory.mktemp("config") / "models.conf"
    config.write_text(
        f'model_config_list {{ config {{ name: "{NAME}" base_path: "{half}" model_platform: "tensorflow"\n'
        "  model_version_policy { all {} } version_labels { key: \"stable\" value: 1 } } }\n"
    )
    return Both(start, (f"--model_config_file={config}",))


def request(kind, signature="", version=None, label=None, name=NAME):
    made = kind()
    made.model_spec.name = name
    made.model_spec.signature_name = signature
    if version:
        made.model_spec.version.value = version
    if label:
        made.model_spec.version_label = label
    return made


def predicted(both, xs, **which):
    asked = request(predict_pb2.PredictRequest, **which)
    asked.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array(xs, np.float32).reshape(-1, 1)))
    answer = both.predictions.Predict(asked, timeout=60)
    return tf.make_ndarray(answer.outputs["y"]).ravel().tolist(), answer.model_spec.version.value


def test_predict_of_two_versions(both):
    assert predicted(both, [1, 2, 5]) == ([3.5, 4.0, 5.5], 2)
    assert predicted(both, [1, 2, 5], version=1) == ([2.5, 3.0, 4.5], 1)
    assert predicted(both, [2], label="stable") == ([3.0], 1)
    with pytest.raises(grpc.RpcError) as caught:
        predicted(both, [2], version=9)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as caught:
        predicted(both, [2], signature="no_such")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert 'Serving signature name: "no_such" not found in signature def' in caught.value.details()


def fill(asked, *xs):
    for x in xs:
        asked.input.example_list.examples.add().features.feature["x"].float_list.value.append(x)
    return asked


def test_classify_regress_and_both_at_once(both):
    regress = fill(request(regression_pb2.RegressionRequest, "regress_x_to_y", 1), 2.0, 5.0)
    answer = both.predictions.Regress(regress, timeout=60)
    assert [one.value for one in answer.result.regressions] == [3.0, 4.5]
    assert answer.model_spec.signature_name == "regress_x_to_y"
    classify = fill(request(classification_pb2.ClassificationRequest, "classify_x_to_y"), 2.0, 5.0)
    answer = both.predictions.Classify(classify, timeout=60)
    got = [[(one.label, one.score) for one in row.classes] for row in answer.result.classifications]
    assert got == [[("0", 4.0)], [("0", 5.5)]]
    # What examples lack comes from the context.
    with_context = request(regression_pb2.RegressionRequest, "regress_x_to_y", 1)
    shared = with_context.input.example_list_with_context
    shared.context.features.feature["x"].float_list.value.append(8.0)
    shared.examples.add()
    assert both.predictions.Regress(with_context, timeout=60).result.regressions[0].value == 6.0
    multi = inference_pb2.MultiInferenceRequest(input=regress.input)
    for signature, method in (("regress_x_to_y", "regress"), ("classify_x_to_y", "classify")):
        task = multi.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = NAME, signature
    first, second = both.predictions.MultiInference(multi, timeout=60).results
    assert [one.value for one in first.regression_result.regressions] == [4.0, 5.5]
    assert second.classification_result.classifications[1].classes[0].score == 5.5
    with pytest.raises(grpc.RpcError) as caught:
        both.predictions.Regress(fill(request(regression_pb2.RegressionRequest), 2.0), timeout=60)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "Expected regression signature method_name" in caught.value.details()


def test_status_and_metadata(both):
    answer = both.models.GetModelStatus(request(get_model_status_pb2.GetModelStatusRequest), timeout=60)
    assert [(one.version, one.state) for one in answer.model_version_status] == [(2, 30), (1, 30)]
    asked = request(get_model_metadata_pb2.GetModelMetadataRequest)
    asked.metadata_field.append("signature_def")
    answer = both.predictions.GetModelMetadata(asked, timeout=60)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    got = {name: one.method_name for name, one in signatures.signature_def.items()}
    assert got == {
        "serving_default": "tensorflow/serving/predict",
        "regress_x_to_y": "tensorflow/serving/regress",
        "classify_x_to_y": "tensorflow/serving/classify",
    }
    x = signatures.signature_def["serving_default"].inputs["x"]
    assert ([dim.size for dim in x.tensor_shape.dim], x.dtype) == ([-1, 1], tf.float32.as_datatype_enum)


def test_rest(both):
    server, base = both.server, f"/v1/models/{NAME}"
    assert server.ask(f"{base}:predict", {"instances": [[1.0], [5.0]]}) == {"predictions": [[3.5], [5.5]]}
    assert server.ask(f"{base}/versions/1:predict", {"inputs": {"x": [[1.0]]}}) == {"outputs": [[2.5]]}
    assert server.ask(f"{base}/labels/stable:predict", {"instances": [{"x": [1.0]}]}) == {"predictions": [[2.5]]}
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}, {"x": [5.0]}]}
    assert server.ask(f"{base}:classify", body) == {"results": [[["0", 3.5]], [["0", 5.5]]]}
    body = {"signature_name": "regress_x_to_y", "context": {"x": 8.0}, "examples": [{}, {"x": 2.0}]}
    assert server.ask(f"{base}:regress", body) == {"results": [7.0, 4.0]}
    signatures = server.ask(f"{base}/metadata")["metadata"]["signature_def"]["signature_def"]
    assert sorted(signatures) == ["classify_x_to_y", "regress_x_to_y", "serving_default"]
    code, text = server.curl(f"{base}:predict", {"signature_name": "other", "instances": [[1.0]]})
    assert (code, text) == (400, '{ "error": "Serving signature name: \\"other\\" not found in signature def" }')
    code, text = server.curl(f"{base}:regress", {"signature_name": "regress_x_to_y", "examples": [{"y": 1.0}]})
    assert code == 400 and "x" in text, text


def test_the_servers_process_has_opened_no_library(both):
    predicted(both, [1])
    assert both.server.opened() == set()
    assert [opened(pid) for pid in both.server.workers()] == [{"libtensorflow"}] * 2


def test_texts_several_inputs_and_signatures_without_rows(start, several):
    both = Both(start, (f"--model_base_path={several}", "--model_name=several", "--tensorflow_intra_op_parallelism=1"))
    asked = request(predict_pb2.PredictRequest, "words", name="several")
    texts = ["short", "a text that is too long to lie in the place of a short one", "", "zero\0byte"]
    asked.inputs["text"].CopyFrom(tf.make_tensor_proto(texts))
    answer = both.predictions.Predict(asked, timeout=60)
    assert tf.make_ndarray(answer.outputs["joined"]).tolist() == [f"{text}-{text}".encode() for text in texts]
    assert tf.make_ndarray(answer.outputs["length"]).tolist() == [len(text) for text in texts]
    asked = request(predict_pb2.PredictRequest, "scale", name="several")
    asked.inputs["factor"].CopyFrom(tf.make_tensor_proto(2.0))
    asked.inputs["x"].CopyFrom(tf.make_tensor_proto(np.ones((2, 3, 1), np.float32)))
    answer = both.predictions.Predict(asked, timeout=60)
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["scaled"]), np.full((2, 3, 1), 2.0))
    base = "/v1/models/several"
    rows = [{"a": [1.0, 2.0], "b": 3}, {"a": [4.0, 5.0], "b": -1}]
    assert both.server.ask(f"{base}:predict", {"instances": rows}) == {"predictions": [6.0, 8.0]}
    body = {"signature_name": "words", "inputs": ["ab"]}
    assert both.server.ask(f"{base}:predict", body) == {"outputs": {"joined": ["ab-ab"], "length": [2]}}
    body = {"signature_name": "scale", "inputs": {"factor": 3.0, "x": [[1.0], [2.0]]}}
    assert both.server.ask(f"{base}:predict", body) == {"outputs": [[3.0], [6.0]]}


def test_kserves_protocols_reach_the_default_signature(start, several):
    flags = ("--host=127.0.0.1", "--http_port=0", "--enable_grpc=false", "--model_name=m", f"--model_dir={several}")
    server = start("serve", *flags)
    assert server.ask("/v2/models/m")["platform"] == "tensorflow_savedmodel"
    inputs = [
        {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]},
        {"name": "b", "shape": [2], "datatype": "INT64", "data": [10, 20]},
    ]
    (output,) = server.ask("/v2/models/m/infer", {"inputs": inputs})["outputs"]
    assert (output["name"], output["datatype"], output["data"]) == ("sum", "FP32", [13, 27])


def test_warm_up_requests_are_run_and_a_bad_one_refuses_the_version(start, half, tmp_path):
    def with_warmup(name, signature, x):
        half_plus(tmp_path / name / "1", 2)
        asked = request(predict_pb2.PredictRequest, signature)
        asked.inputs[x].CopyFrom(tf.make_tensor_proto([[1.0]]))
        log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=asked))
        extra = tmp_path / name / "1" / "assets.extra"
        extra.mkdir()
        with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
            writer.write(log.SerializeToString())
        return f"--model_base_path={tmp_path / name}"

    both = Both(start, (with_warmup("good", "serving_default", "x"), f"--model_name={NAME}"))
    assert predicted(both, [1])[0] == [2.5]
    flags = (with_warmup("bad", "no_such_signature", "x"), "--rest_api_port=0", f"--port={free_port()}", "--max_num_load_retries=0")
    done = subprocess.run([BIN, "tensorflow_model_server", *flags], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "warm-up request 1" in done.stderr + done.stdout


def test_where_tensorflow_is_not_it_is_missed_by_name(half, tmp_path):
    flags = (f"--model_base_path={half}", f"--tensorflow_library={tmp_path}", f"--port={free_port()}")
    done = subprocess.run([BIN, "tensorflow_model_server", *flags], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "TensorFlow was not found" in done.stderr + done.stdout and str(tmp_path) in done.stderr + done.stdout
