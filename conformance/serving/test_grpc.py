"""gRPC: Triton's client, health, reflection. Answers equal scikit-learn's."""
import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from conftest import same_fields
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException


def rows_of(made, dtype="FP64"):
    kind = np.float64 if dtype == "FP64" else np.float32
    rows = triton.InferInput("input-0", list(made.rows.shape), dtype)
    rows.set_data_from_numpy(made.rows.astype(kind))
    return rows


@pytest.mark.parametrize("port", ["grpc", "http"])
@pytest.mark.parametrize("dtype", ["FP64", "FP32"])
def test_tritons_client_gets_scikit_learns_numbers(serve, forest, port, dtype):
    server = serve(forest, "--predict_proba=true")
    with triton.InferenceServerClient(getattr(server, port)) as client:
        answer = client.infer("iris", [rows_of(forest, dtype)], request_id="7", client_timeout=20)
        assert answer.get_response().id == "7"
        rows = forest.rows if dtype == "FP64" else forest.rows.astype(np.float32).astype(float)
        np.testing.assert_array_equal(answer.as_numpy("output-0"), forest.model.predict_proba(rows))
        packed = client.infer("iris", [rows_of(forest)], compression_algorithm="gzip")
        np.testing.assert_array_equal(packed.as_numpy("output-0"), forest.model.predict_proba(forest.rows))


def test_tritons_client_streams(serve, forest):
    server = serve(forest, "--personality=triton")
    answers = queue.Queue()
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(20):
            model = "rose" if number == 7 else "iris"
            client.async_stream_infer(model, [rows_of(forest)], request_id=str(number))
        got = [answers.get(timeout=20) for _ in range(20)]
        client.stop_stream()
    for number, (result, error) in enumerate(got):
        if number == 7:
            assert "rose" in str(error)
            continue
        assert error is None and result.get_response().id == str(number)
        np.testing.assert_array_equal(result.as_numpy("output-0"), forest.model.predict(forest.rows))


def test_tritons_client_asks_about_server_and_models(serve, forest):
    server = serve(forest, "--personality=triton")
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("iris")
        assert not client.is_model_ready("rose")
        assert client.get_server_metadata().name == "slipway"
        metadata = client.get_model_metadata("iris")
        assert [(spec.name, spec.datatype, list(spec.shape)) for spec in metadata.inputs] == [("input-0", "FP64", [-1, 4])]
        assert client.get_model_config("iris").config.input[0].dims == [-1, 4]
        assert client.get_model_repository_index().models[0].state == "READY"
        with pytest.raises(InferenceServerException, match="not allowed"):
            client.unload_model("iris")


def test_codes_of_failures(serve, forest):
    server = serve(forest)
    with triton.InferenceServerClient(server.grpc) as client:
        with pytest.raises(InferenceServerException) as caught:
            client.infer("rose", [rows_of(forest)])
        assert caught.value.status() == "StatusCode.NOT_FOUND"
        narrow = triton.InferInput("input-0", [1, 3], "FP64")
        narrow.set_data_from_numpy(np.zeros((1, 3)))
        with pytest.raises(InferenceServerException, match=r"iris.*input-0.*\[-1, 4\].*\[1, 3\]") as caught:
            client.infer("iris", [narrow])
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_an_open_repository_unloads_and_loads(serve, regressor):
    server = serve(regressor, "--open_repository_api")
    with triton.InferenceServerClient(server.grpc) as client:
        client.unload_model("iris")
        assert not client.is_model_ready("iris")
        client.load_model("iris")
        answer = client.infer("iris", [rows_of(regressor)]).as_numpy("output-0")
    np.testing.assert_allclose(answer, regressor.model.predict(regressor.rows), rtol=1e-12)


def test_texts_come_back(serve, table):
    server = serve(table)
    with triton.InferenceServerClient(server.grpc) as client:
        inputs = []
        for name in table.rows.columns:
            column = table.rows[name]
            is_text = column.dtype != float
            tensor = triton.InferInput(name, [len(column)], "BYTES" if is_text else "FP64")
            tensor.set_data_from_numpy(column.to_numpy(dtype=object if is_text else float))
            inputs.append(tensor)
        answer = client.infer("iris", inputs).as_numpy("output-0")
    assert [text.decode() for text in answer] == table.model.predict(table.rows).tolist()


def test_health(serve, forest):
    with grpc.insecure_channel(serve(forest).grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService", "iris"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=10)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_reflection_gives_the_clients_own_descriptors(serve, forest):
    with grpc.insecure_channel(serve(forest).grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = list(database.get_services())
        assert "inference.GRPCInferenceService" in services and "grpc.reflection.v1.ServerReflection" in services
        pool = DescriptorPool(database)
        ours = pool.FindServiceByName("inference.GRPCInferenceService")
        theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        for method in ours.methods:
            other = theirs.methods_by_name[method.name]
            assert method.input_type.full_name == other.input_type.full_name
            same_fields(method.input_type, other.input_type)
            if not method.name.startswith("RepositoryModel"):
                same_fields(method.output_type, other.output_type)
        for name in ("InferTensorContents", "InferParameter", "ModelInferRequest.InferInputTensor"):
            own = pool.FindMessageTypeByName(f"inference.{name.split('.')[-1]}")
            other = service_pb2.DESCRIPTOR.message_types_by_name[name.split(".")[0]]
            for part in name.split(".")[1:]:
                other = other.nested_types_by_name[part]
            same_fields(own, other)
