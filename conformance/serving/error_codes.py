"""TensorFlow's error codes, which tensorflow-serving-api takes from TensorFlow and tensorflow-protobuf lacks.

Importing this puts two files into the pool of descriptors: the enum, and the file that passes it on.
"""
import sys
import types

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool

pool = descriptor_pool.Default()
codes = descriptor_pb2.FileDescriptorProto(name="xla/tsl/protobuf/error_codes.proto", package="tensorflow.error", syntax="proto3")
enum = codes.enum_type.add(name="Code")
for code in grpc.StatusCode:
    enum.value.add(name=code.name, number=code.value[0])
enum.value.sort(key=lambda value: value.number)
pool.AddSerializedFile(codes.SerializeToString())
passed_on = descriptor_pb2.FileDescriptorProto(name="tensorflow/core/protobuf/error_codes.proto", syntax="proto3")
passed_on.dependency.append(codes.name)
passed_on.public_dependency.append(0)
pool.AddSerializedFile(passed_on.SerializeToString())
module = types.ModuleType("tensorflow.core.protobuf.error_codes_pb2")
module.xla_dot_tsl_dot_protobuf_dot_error__codes__pb2 = None
sys.modules[module.__name__] = module
