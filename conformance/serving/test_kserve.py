"""KServe's own clients over HTTP and gRPC. Answers equal scikit-learn's.

A file of its own because its messages and those of Triton's client have the same names and cannot be in one process.
"""
import asyncio

import grpc
import httpx
import numpy as np
import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent, from_http
from conftest import same_fields
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2


def test_kserves_client_speaks_v1_and_v2(serve, forest):
    server = serve(forest)

    async def ask():
        v1 = InferenceRESTClient(RESTConfig(protocol="v1", timeout=20))
        v2 = InferenceRESTClient(RESTConfig(protocol="v2", timeout=20))
        try:
            assert await v1.is_server_live(server.url)
            assert await v1.is_model_ready(server.url, "iris")
            assert await v2.is_server_live(server.url) and await v2.is_server_ready(server.url)
            assert await v2.is_model_ready(server.url, "iris")
            old = await v1.infer(server.url, {"instances": forest.rows.tolist()}, model_name="iris")
            answers = []
            for binary in (False, True):
                rows = InferInput("input-0", list(forest.rows.shape), "FP64")
                rows.set_data_from_numpy(forest.rows, binary_data=binary)
                request = InferRequest("iris", [rows], request_id="7")
                answers.append(await v2.infer(server.url, request, model_name="iris"))
            return old, answers
        finally:
            await v1.close()
            await v2.close()

    old, answers = asyncio.run(ask())
    want = forest.model.predict(forest.rows).tolist()
    assert old["predictions"] == want
    for answer in answers:
        assert (answer.id, answer.model_name) == ("7", "iris")
        assert answer.outputs[0].name == "output-0"
        assert answer.outputs[0].as_numpy().tolist() == want


def test_kserves_client_reads_the_outputs_by_name(serve, regressor):
    server = serve(regressor)

    async def ask():
        client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=20))
        rows = InferInput("input-0", list(regressor.rows.shape), "FP64")
        rows.set_data_from_numpy(regressor.rows, binary_data=True)

        try:
            return await client.infer(server.url, InferRequest("iris", [rows]), model_name="iris")
        finally:
            await client.close()

    got = asyncio.run(ask()).get_output_by_name("output-0").as_numpy()
    np.testing.assert_allclose(got, regressor.model.predict(regressor.rows), rtol=1e-12)


def test_kserves_client_speaks_grpc(serve, forest):
    server = serve(forest)

    async def ask():
        client = InferenceGRPCClient(url=server.grpc, timeout=20)
        try:
            assert await client.is_server_ready() and await client.is_server_live()
            assert await client.is_model_ready("iris")
            answers = []
            for binary in (False, True):
                rows = InferInput("input-0", list(forest.rows.shape), "FP64")
                rows.set_data_from_numpy(forest.rows, binary_data=binary)
                answers.append(await client.infer(InferRequest("iris", [rows], request_id="9")))
            return answers
        finally:
            await client.close()

    for answer in asyncio.run(ask()):
        assert answer.id == "9"
        np.testing.assert_array_equal(answer.outputs[0].as_numpy(), forest.model.predict(forest.rows))


@pytest.mark.parametrize("make", [to_binary, to_structured])
def test_events_are_answered_by_events(serve, forest, make):
    event = CloudEvent({"type": "question", "source": "test"}, {"instances": forest.rows.tolist()})
    headers, body = make(event)
    reply = httpx.post(f"{serve(forest).url}/v1/models/iris:predict", headers=headers, content=body)
    answer = from_http(dict(reply.headers), reply.content)
    assert answer["type"] == "io.kserve.inference.response" and answer["source"] == "io.kserve.inference.iris"
    assert answer.data == {"predictions": forest.model.predict(forest.rows).tolist()}


def test_reflection_gives_the_clients_own_descriptors(serve, forest):
    theirs = grpc_predict_v2_pb2.DESCRIPTOR.message_types_by_name
    with grpc.insecure_channel(serve(forest).grpc) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        for name in ("RepositoryModelLoadResponse", "RepositoryModelUnloadResponse", "ServerMetadataResponse"):
            same_fields(pool.FindMessageTypeByName(f"inference.{name}"), theirs[name])
