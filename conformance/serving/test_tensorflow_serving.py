"""TensorFlow Serving's two interfaces: its own stubs over gRPC, curl over HTTP. Answers equal scikit-learn's."""
import json

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
import error_codes  # noqa: F401  before the stubs, which need it
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2, model_management_pb2,
    model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc, regression_pb2,
)
from conftest import same_fields

FLAGS = ("--personality=tfserving", "--predict_proba=true")


@pytest.fixture
def channel(serve, forest):
    with grpc.insecure_channel(serve(forest, *FLAGS).grpc) as channel:
        yield channel


def tensor(rows, content=True):
    """What `tf.make_tensor_proto` makes of an array."""
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_DOUBLE)
    for size in rows.shape:
        proto.tensor_shape.dim.add(size=size)
    if content:
        proto.tensor_content = rows.astype("<f8").tobytes()
    else:
        proto.double_val.extend(rows.ravel())
    return proto


def numbers(proto):
    shape = [dim.size for dim in proto.tensor_shape.dim]
    return np.array(proto.double_val or np.frombuffer(proto.tensor_content)).reshape(shape)


@pytest.mark.parametrize("content", [True, False])
def test_predict(channel, forest, content):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "iris"
    request.model_spec.signature_name = "serving_default"
    request.inputs["input-0"].CopyFrom(tensor(forest.rows, content))
    answer = stub.Predict(request, timeout=20)
    np.testing.assert_array_equal(numbers(answer.outputs["output-0"]), forest.model.predict_proba(forest.rows))
    assert (answer.model_spec.name, answer.model_spec.signature_name) == ("iris", "serving_default")
    assert answer.model_spec.version.value == 1
    request.output_filter.append("nothing")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=20)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_constant_tensor_is_one_value(channel, forest):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "iris"
    proto = tensor(np.full((3, 4), 1.5), content=False)
    del proto.double_val[1:]
    request.inputs["input-0"].CopyFrom(proto)
    answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=20)
    np.testing.assert_array_equal(numbers(answer.outputs["output-0"]), forest.model.predict_proba(np.full((3, 4), 1.5)))


def fill(examples, rows):
    for row in rows:
        examples.add().features.feature["input-0"].float_list.value.extend(row)


def test_classify_and_multi_inference(channel, forest):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "iris"
    fill(request.input.example_list.examples, forest.rows)
    want = forest.model.predict_proba(forest.rows.astype(np.float32).astype(float))
    answer = stub.Classify(request, timeout=20)
    got = [[one.score for one in each.classes] for each in answer.result.classifications]
    np.testing.assert_allclose(got, want, rtol=1e-6)
    both = inference_pb2.MultiInferenceRequest(input=request.input)
    for _ in range(2):
        task = both.tasks.add(method_name="tensorflow/serving/classify")
        task.model_spec.name = "iris"
    results = stub.MultiInference(both, timeout=20).results
    assert [result.classification_result for result in results] == [answer.result] * 2


def test_regress(serve, regressor):
    with grpc.insecure_channel(serve(regressor, "--personality=tfserving").grpc) as channel:
        request = regression_pb2.RegressionRequest()
        request.model_spec.name = "iris"
        fill(request.input.example_list.examples, regressor.rows)
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Regress(request, timeout=20)
    got = [one.value for one in answer.result.regressions]
    np.testing.assert_allclose(got, regressor.model.predict(regressor.rows.astype(np.float32)), rtol=1e-6)


def test_status_and_metadata(channel):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "iris"
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    (status,) = stub.GetModelStatus(request, timeout=20).model_version_status
    assert (status.version, status.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    request.model_spec.name = "rose"
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModelStatus(request, timeout=20)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "Could not find any versions of model rose"
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "iris"
    answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(request, timeout=20)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    default = signatures.signature_def["serving_default"]
    assert default.method_name == "tensorflow/serving/predict"
    assert default.inputs["input-0"].dtype == types_pb2.DT_DOUBLE
    assert [dim.size for dim in default.inputs["input-0"].tensor_shape.dim] == [-1, 4]


def test_reload_is_refused_until_it_is_opened(channel, serve, forest, regressor):
    request = model_management_pb2.ReloadConfigRequest()
    for name, made in (("iris", forest), ("other", regressor)):
        request.config.model_config_list.config.add(name=name, base_path=str(made.folder), model_platform="sklearn")
    with pytest.raises(grpc.RpcError) as caught:
        model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=20)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    server = serve(forest, "--personality=tfserving", "--open_repository_api")
    with grpc.insecure_channel(server.grpc) as channel:
        answer = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=20)
    assert answer.status.error_code == 0
    body = json.dumps({"instances": regressor.rows[:3].tolist()})
    code, text = server.curl("/v1/models/other:predict", body)
    np.testing.assert_allclose(json.loads(text)["predictions"], regressor.model.predict(regressor.rows[:3]), rtol=1e-12)


def test_curl_speaks_tensorflow_servings_rest(serve, forest):
    server = serve(forest, *FLAGS)
    want = forest.model.predict_proba(forest.rows)
    for key, answer_key in (("instances", "predictions"), ("inputs", "outputs")):
        code, text = server.curl("/v1/models/iris:predict", json.dumps({key: forest.rows.tolist()}))
        assert code == 200
        np.testing.assert_array_equal(json.loads(text)[answer_key], want)
    code, text = server.curl("/v1/models/iris")
    assert json.loads(text)["model_version_status"][0]["state"] == "AVAILABLE"
    code, text = server.curl("/v1/models/iris/versions/1/metadata")
    assert json.loads(text)["metadata"]["signature_def"]["signature_def"]["serving_default"]
    examples = {"examples": [{"input-0": row} for row in forest.rows.tolist()]}
    code, text = server.curl("/v1/models/iris:classify", json.dumps(examples))
    scores = [[score for _, score in classes] for classes in json.loads(text)["results"]]
    np.testing.assert_allclose(scores, want, rtol=1e-6)
    assert server.curl("/v1/models/rose:predict", "{}") == (404, '{ "error": "Servable not found for request: Latest(rose)" }')


def test_reflection_gives_the_stubs_own_descriptors(channel):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    for ours, theirs in (
        ("tensorflow.serving.PredictRequest", predict_pb2.PredictRequest),
        ("tensorflow.serving.PredictResponse", predict_pb2.PredictResponse),
        ("tensorflow.serving.ClassificationRequest", classification_pb2.ClassificationRequest),
        ("tensorflow.serving.ClassificationResponse", classification_pb2.ClassificationResponse),
        ("tensorflow.serving.RegressionResponse", regression_pb2.RegressionResponse),
        ("tensorflow.serving.MultiInferenceRequest", inference_pb2.MultiInferenceRequest),
        ("tensorflow.serving.GetModelStatusResponse", get_model_status_pb2.GetModelStatusResponse),
        ("tensorflow.serving.GetModelMetadataResponse", get_model_metadata_pb2.GetModelMetadataResponse),
        ("tensorflow.serving.ReloadConfigRequest", model_management_pb2.ReloadConfigRequest),
        ("tensorflow.serving.ReloadConfigResponse", model_management_pb2.ReloadConfigResponse),
        ("tensorflow.TensorProto", tensor_pb2.TensorProto),
    ):
        same_fields(pool.FindMessageTypeByName(ours), theirs.DESCRIPTOR)
