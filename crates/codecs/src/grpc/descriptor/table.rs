//! Field numbers and types of the public protocols, in the notation of [`super::message`].
//!
//! The first line of a file has its name, its package and its imports.

/// All services.
pub(super) const SERVICES: &[&str] = &[
    "inference.GRPCInferenceService",
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

pub(super) const FILES: &[&str] = &[
    OIP,
    TFS,
    TENSORFLOW,
    HEALTH,
    REFLECTION,
    REFLECTION_ALPHA,
    "google/protobuf/wrappers.proto google.protobuf\nInt64Value: value=1:int64\nInt32Value: value=1:int32",
    "google/protobuf/any.proto google.protobuf\nAny: type_url=1:string value=2:bytes",
];

const OIP: &str = "
grpc_service.proto inference
service GRPCInferenceService: ServerLive(ServerLiveRequest)ServerLiveResponse ServerReady(ServerReadyRequest)ServerReadyResponse ModelReady(ModelReadyRequest)ModelReadyResponse ServerMetadata(ServerMetadataRequest)ServerMetadataResponse ModelMetadata(ModelMetadataRequest)ModelMetadataResponse ModelInfer(ModelInferRequest)ModelInferResponse ModelStreamInfer(*ModelInferRequest)*ModelStreamInferResponse ModelConfig(ModelConfigRequest)ModelConfigResponse ModelStatistics(ModelStatisticsRequest)ModelStatisticsResponse RepositoryIndex(RepositoryIndexRequest)RepositoryIndexResponse RepositoryModelLoad(RepositoryModelLoadRequest)RepositoryModelLoadResponse RepositoryModelUnload(RepositoryModelUnloadRequest)RepositoryModelUnloadResponse
ServerLiveRequest:
ServerLiveResponse: live=1:bool
ServerReadyRequest:
ServerReadyResponse: ready=1:bool
ModelReadyRequest: name=1:string version=2:string
ModelReadyResponse: ready=1:bool
ServerMetadataRequest:
ServerMetadataResponse: name=1:string version=2:string extensions=3:[string]
ModelMetadataRequest: name=1:string version=2:string
ModelMetadataResponse: name=1:string versions=2:[string] platform=3:string inputs=4:[TensorMetadata] outputs=5:[TensorMetadata]
TensorMetadata: name=1:string datatype=2:string shape=3:[int64]
InferParameter: parameter_choice|bool_param=1:bool parameter_choice|int64_param=2:int64 parameter_choice|string_param=3:string parameter_choice|double_param=4:double parameter_choice|uint64_param=5:uint64
InferTensorContents: bool_contents=1:[bool] int_contents=2:[int32] int64_contents=3:[int64] uint_contents=4:[uint32] uint64_contents=5:[uint64] fp32_contents=6:[float] fp64_contents=7:[double] bytes_contents=8:[bytes]
InferInputTensor: name=1:string datatype=2:string shape=3:[int64] parameters=4:{string,InferParameter} contents=5:InferTensorContents
InferRequestedOutputTensor: name=1:string parameters=2:{string,InferParameter}
InferOutputTensor: name=1:string datatype=2:string shape=3:[int64] parameters=4:{string,InferParameter} contents=5:InferTensorContents
ModelInferRequest: model_name=1:string model_version=2:string id=3:string parameters=4:{string,InferParameter} inputs=5:[InferInputTensor] outputs=6:[InferRequestedOutputTensor] raw_input_contents=7:[bytes]
ModelInferResponse: model_name=1:string model_version=2:string id=3:string parameters=4:{string,InferParameter} outputs=5:[InferOutputTensor] raw_output_contents=6:[bytes]
ModelStreamInferResponse: error_message=1:string infer_response=2:ModelInferResponse
ModelConfigRequest: name=1:string version=2:string
ModelConfigResponse: config=1:ModelConfig
enum DataType: TYPE_INVALID=0 TYPE_BOOL=1 TYPE_UINT8=2 TYPE_UINT16=3 TYPE_UINT32=4 TYPE_UINT64=5 TYPE_INT8=6 TYPE_INT16=7 TYPE_INT32=8 TYPE_INT64=9 TYPE_FP16=10 TYPE_FP32=11 TYPE_FP64=12 TYPE_STRING=13 TYPE_BF16=14
ModelInput: name=1:string data_type=2:#DataType dims=4:[int64]
ModelOutput: name=1:string data_type=2:#DataType dims=3:[int64]
ModelConfig: name=1:string platform=2:string max_batch_size=4:int32 input=5:[ModelInput] output=6:[ModelOutput] backend=17:string
ModelStatisticsRequest: name=1:string version=2:string
StatisticDuration: count=1:uint64 ns=2:uint64
InferStatistics: success=1:StatisticDuration fail=2:StatisticDuration queue=3:StatisticDuration compute_input=4:StatisticDuration compute_infer=5:StatisticDuration compute_output=6:StatisticDuration
ModelStatistics: name=1:string version=2:string last_inference=3:uint64 inference_count=4:uint64 execution_count=5:uint64 inference_stats=6:InferStatistics
ModelStatisticsResponse: model_stats=1:[ModelStatistics]
ModelRepositoryParameter: parameter_choice|bool_param=1:bool parameter_choice|int64_param=2:int64 parameter_choice|string_param=3:string parameter_choice|bytes_param=4:bytes
RepositoryIndexRequest: repository_name=1:string ready=2:bool
ModelIndex: name=1:string version=2:string state=3:string reason=4:string
RepositoryIndexResponse: models=1:[ModelIndex]
RepositoryModelLoadRequest: repository_name=1:string model_name=2:string parameters=3:{string,ModelRepositoryParameter}
RepositoryModelLoadResponse: model_name=1:string isLoaded=2:bool
RepositoryModelUnloadRequest: repository_name=1:string model_name=2:string parameters=3:{string,ModelRepositoryParameter}
RepositoryModelUnloadResponse: model_name=1:string isUnloaded=2:bool
";

const TENSORFLOW: &str = "
tensorflow/core/slipway.proto tensorflow
enum DataType: DT_INVALID=0 DT_FLOAT=1 DT_DOUBLE=2 DT_INT32=3 DT_UINT8=4 DT_INT16=5 DT_INT8=6 DT_STRING=7 DT_INT64=9 DT_BOOL=10 DT_BFLOAT16=14 DT_UINT16=17 DT_HALF=19 DT_UINT32=22 DT_UINT64=23
TensorDim: size=1:int64 name=2:string
TensorShapeProto: dim=2:[TensorDim] unknown_rank=3:bool
TensorProto: dtype=1:#DataType tensor_shape=2:TensorShapeProto version_number=3:int32 tensor_content=4:bytes float_val=5:[float] double_val=6:[double] int_val=7:[int32] string_val=8:[bytes] int64_val=10:[int64] bool_val=11:[bool] half_val=13:[int32] uint32_val=16:[uint32] uint64_val=17:[uint64]
TensorInfo: encoding|name=1:string dtype=2:#DataType tensor_shape=3:TensorShapeProto
SignatureDef: inputs=1:{string,TensorInfo} outputs=2:{string,TensorInfo} method_name=3:string
BytesList: value=1:[bytes]
FloatList: value=1:[float]
Int64List: value=1:[int64]
Feature: kind|bytes_list=1:BytesList kind|float_list=2:FloatList kind|int64_list=3:Int64List
Features: feature=1:{string,Feature}
Example: features=1:Features
";

const TFS: &str = "
tensorflow_serving/apis/slipway.proto tensorflow.serving tensorflow/core/slipway.proto google/protobuf/wrappers.proto google/protobuf/any.proto
service PredictionService: Classify(ClassificationRequest)ClassificationResponse Regress(RegressionRequest)RegressionResponse Predict(PredictRequest)PredictResponse MultiInference(MultiInferenceRequest)MultiInferenceResponse GetModelMetadata(GetModelMetadataRequest)GetModelMetadataResponse
service ModelService: GetModelStatus(GetModelStatusRequest)GetModelStatusResponse HandleReloadConfigRequest(ReloadConfigRequest)ReloadConfigResponse
ModelSpec: name=1:string version_choice|version=2:google.protobuf.Int64Value signature_name=3:string version_choice|version_label=4:string
PredictRequest: model_spec=1:ModelSpec inputs=2:{string,tensorflow.TensorProto} output_filter=3:[string]
PredictResponse: outputs=1:{string,tensorflow.TensorProto} model_spec=2:ModelSpec
ExampleList: examples=1:[tensorflow.Example]
ExampleListWithContext: examples=1:[tensorflow.Example] context=2:tensorflow.Example
Input: kind|example_list=1:ExampleList kind|example_list_with_context=2:ExampleListWithContext
Class: label=1:string score=2:float
Classifications: classes=1:[Class]
ClassificationResult: classifications=1:[Classifications]
ClassificationRequest: model_spec=1:ModelSpec input=2:Input
ClassificationResponse: result=1:ClassificationResult model_spec=2:ModelSpec
Regression: value=1:float
RegressionResult: regressions=1:[Regression]
RegressionRequest: model_spec=1:ModelSpec input=2:Input
RegressionResponse: result=1:RegressionResult model_spec=2:ModelSpec
InferenceTask: model_spec=1:ModelSpec method_name=2:string
InferenceResult: model_spec=1:ModelSpec result|classification_result=2:ClassificationResult result|regression_result=3:RegressionResult
MultiInferenceRequest: tasks=1:[InferenceTask] input=2:Input
MultiInferenceResponse: results=1:[InferenceResult]
SignatureDefMap: signature_def=1:{string,tensorflow.SignatureDef}
GetModelMetadataRequest: model_spec=1:ModelSpec metadata_field=2:[string]
GetModelMetadataResponse: model_spec=1:ModelSpec metadata=2:{string,google.protobuf.Any}
enum State: UNKNOWN=0 START=10 LOADING=20 AVAILABLE=30 UNLOADING=40 END=50
StatusProto: error_code=1:int32 error_message=2:string
GetModelStatusRequest: model_spec=1:ModelSpec
ModelVersionStatus: version=1:int64 state=2:#State status=3:StatusProto
GetModelStatusResponse: model_version_status=1:[ModelVersionStatus]
Latest: num_versions=1:uint32
All:
Specific: versions=1:[int64]
ServableVersionPolicy: policy_choice|latest=100:Latest policy_choice|all=101:All policy_choice|specific=102:Specific
ModelConfig: name=1:string base_path=2:string model_platform=4:string model_version_policy=7:ServableVersionPolicy version_labels=8:{string,int64}
ModelConfigList: config=1:[ModelConfig]
ModelServerConfig: config|model_config_list=1:ModelConfigList
ReloadConfigRequest: config=1:ModelServerConfig metric_names=2:[string]
ReloadConfigResponse: status=1:StatusProto
";

const HEALTH: &str = "
grpc/health/v1/health.proto grpc.health.v1
service Health: Check(HealthCheckRequest)HealthCheckResponse Watch(HealthCheckRequest)*HealthCheckResponse
HealthCheckRequest: service=1:string
enum ServingStatus: UNKNOWN=0 SERVING=1 NOT_SERVING=2 SERVICE_UNKNOWN=3
HealthCheckResponse: status=1:#ServingStatus
";

macro_rules! reflection {
    ($head:literal) => {
        concat!(
            $head,
            "
service ServerReflection: ServerReflectionInfo(*ServerReflectionRequest)*ServerReflectionResponse
ServerReflectionRequest: host=1:string message_request|file_by_filename=3:string message_request|file_containing_symbol=4:string message_request|file_containing_extension=5:ExtensionRequest message_request|all_extension_numbers_of_type=6:string message_request|list_services=7:string
ExtensionRequest: containing_type=1:string extension_number=2:int32
ServerReflectionResponse: valid_host=1:string original_request=2:ServerReflectionRequest message_response|file_descriptor_response=4:FileDescriptorResponse message_response|all_extension_numbers_response=5:ExtensionNumberResponse message_response|list_services_response=6:ListServiceResponse message_response|error_response=7:ErrorResponse
FileDescriptorResponse: file_descriptor_proto=1:[bytes]
ExtensionNumberResponse: base_type_name=1:string extension_number=2:[int32]
ListServiceResponse: service=1:[ServiceResponse]
ServiceResponse: name=1:string
ErrorResponse: error_code=1:int32 error_message=2:string
"
        )
    };
}

const REFLECTION: &str = reflection!("grpc/reflection/v1/reflection.proto grpc.reflection.v1");
const REFLECTION_ALPHA: &str =
    reflection!("grpc/reflection/v1alpha/reflection.proto grpc.reflection.v1alpha");
