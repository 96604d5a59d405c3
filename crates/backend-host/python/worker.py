"""The worker for models that need Python: reads one model and answers calls on one lane.

Started by the server as `python worker.py --lanes SOCKET:MEMORY`. It needs the standard library and numpy; what reads a
model (joblib, mlflow, torch, the model's own modules) is imported when a model asks for it. The protocol is described in
`src/protocol.rs`. Inputs are copied out of the lane's memory, because a model may keep what it is given.

Not here: who may run Python at all, time limits, restarts (the server).
"""

import asyncio
import inspect
import json
import os
import re
import socket
import struct
import sys
import time
import types
import warnings

import numpy as np

VERSION = 1
LOAD, READY, RUN, ANSWER, REFUSAL = 1, 2, 3, 4, 5
INPUT, INTERNAL = 1, 2
HEADER = struct.Struct("<BBBBIQQQ")
PLACE = struct.Struct("<BBHIQQ")
TEXT_BYTES_MAX = 8 << 10
PACKET_BYTES_MAX = 64 << 10
NAMES = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"]
NUMPY = ["?", "u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f2", None, "<f4", "<f8", None]
DTYPES = [None if code is None else np.dtype(code) for code in NUMPY]
BF16, BYTES = NAMES.index("BF16"), NAMES.index("BYTES")
CODES = {dtype.str: code for code, dtype in enumerate(DTYPES) if dtype is not None}


class Refused(Exception):
    """The caller's mistake, or a model that cannot be read: the text says what and why."""


# --- Tensors -----------------------------------------------------------------------------------------------------------


def read_tensor(file, code, dims, offset, length):
    """One tensor out of the memory, in memory of its own."""
    dtype = DTYPES[code]
    if dtype is not None:
        array = np.empty(dims, dtype)
        if length and os.preadv(file, [memoryview(array.reshape(-1)).cast("B")], offset) != length:
            raise RuntimeError("an input lies outside of the memory")
        return array
    data = os.pread(file, length, offset)
    if code == BF16:
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(dims)
    texts, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        texts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    try:
        texts = [text.decode() for text in texts]
    except UnicodeDecodeError:
        pass  # Bytes that are no text stay bytes.
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(dims)


def plain(value):
    """Any library's array as one of numpy's whose type has a number in the protocol, or of objects that are texts."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        value = value.numpy()
    elif hasattr(value, "toarray"):
        value = value.toarray()
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    if array.dtype.kind == "O":
        flat = array.reshape(-1).tolist()
        if flat and all(isinstance(item, (int, float, np.number)) for item in flat):
            return np.ascontiguousarray(np.asarray(flat).reshape(array.shape))
        return array
    if array.dtype.kind in "US":
        return array.astype(object)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype("<f8")
    if array.dtype.str not in CODES and array.dtype.newbyteorder("<").str in CODES:
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype.kind != "O" and array.dtype.str.replace("=", "<") not in CODES:
        raise RuntimeError(f"an answer of the type {array.dtype} cannot be passed on")
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def code_of(array):
    return BYTES if array.dtype.kind == "O" else CODES[array.dtype.str]


def encode(array):
    """The bytes of a tensor."""
    if array.dtype.kind != "O":
        return memoryview(array.reshape(-1)).cast("B") if array.size else b""
    out = bytearray()
    for item in array.reshape(-1):
        item = item if isinstance(item, bytes) else str(item).encode()
        out += struct.pack("<I", len(item)) + item
    return out


def outputs_of(result):
    """A model's answer as names and arrays: an array, several, a table, or a dict of them."""
    if hasattr(result, "to_numpy") and hasattr(result, "columns"):
        return [(str(name), plain(result[name].to_numpy())) for name in result.columns]
    if hasattr(result, "to_numpy"):
        return [("output-0", plain(result.to_numpy()))]
    if isinstance(result, dict):
        return [(str(name), plain(value)) for name, value in result.items()]
    several = isinstance(result, (list, tuple)) and result and all(
        isinstance(item, np.ndarray) or hasattr(item, "detach") for item in result
    )
    arrays = result if several else [result]
    return [(f"output-{index}", plain(array)) for index, array in enumerate(arrays)]


def described(name, code, row):
    return {"name": name, "dtype": NAMES[code], "row": [None if dim is None or dim < 0 else int(dim) for dim in row]}


def table(width):
    return [described("input-0", NAMES.index("FP64"), [width])]


GUESS = [described("output-0", NAMES.index("FP64"), [])]


# --- Models ------------------------------------------------------------------------------------------------------------


class Model:
    """What every kind of model has. `outputs` is None where only an answer tells what they are."""

    platform, format = "python", "python"
    outputs, columns, documents, row_cost_ns = None, (), False, 0

    def ready(self):
        signature = {"inputs": self.inputs, "outputs": self.outputs or self.guess(), "columns": list(self.columns)}
        return {
            "signature": signature,
            "row_cost_ns": self.row_cost_ns,
            "platform": self.platform,
            "format": self.format,
            "takes_documents": self.documents,
            "outputs_vary": self.outputs is None,
        }

    def guess(self):
        return GUESS

    def probe(self, arrays):
        """Learns from an answer to made-up rows what answers look like, and what a row costs."""
        try:
            outputs = outputs_of(self.run(arrays, 1))
            start = time.perf_counter_ns()
            self.run(arrays, 1)
            self.row_cost_ns = time.perf_counter_ns() - start
        except Exception as error:
            print(f"the model was not warmed up: {type(error).__name__}: {error}", file=sys.stderr)
            return
        if all(array.shape[:1] == (1,) for _, array in outputs):
            self.outputs = [described(name, code_of(array), array.shape[1:]) for name, array in outputs]

    def nothing(self):
        """The answer to no rows, which libraries refuse."""
        return {
            spec["name"]: np.empty([0] + [dim or 0 for dim in spec["row"]], DTYPES[NAMES.index(spec["dtype"])] or object)
            for spec in self.outputs
        }


class Estimator(Model):
    """Anything with scikit-learn's methods."""

    def __init__(self, estimator, method, form):
        kind = type(estimator)
        self.platform = kind.__module__.split(".")[0].replace("__main__", "python")
        self.format = form
        names = [method, "transform"] if method == "predict" else [method]
        self.call = next((getattr(estimator, name) for name in names if hasattr(estimator, name)), None)
        if self.call is None:
            raise Refused(f"{kind.__module__}.{kind.__qualname__} has no {' and no '.join(names)}")
        width = getattr(estimator, "n_features_in_", None)
        self.columns = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
        self.inputs = table(width)
        self.frame = None
        if width is not None:
            self.probe([np.zeros((1, width))])
            if self.outputs is None and self.columns:
                self.frame = __import__("pandas").DataFrame
                self.probe([np.zeros((1, width))])

    def run(self, arrays, rows):
        if rows == 0 and self.outputs is not None:
            return self.nothing()
        array = arrays[0] if arrays[0].dtype == np.float64 else arrays[0].astype(np.float64)
        return self.call(array if self.frame is None else self.frame(array, columns=self.columns))


class Pyfunc(Model):
    """An MLflow model of the flavor `python_function`."""

    TYPES = {"integer": "<i4", "long": "<i8", "float": "<f4", "double": "<f8", "boolean": "?"}

    def __init__(self, path):
        try:
            import mlflow.pyfunc
        except ImportError as error:
            raise Refused(f"an MLflow model of the flavor python_function needs mlflow in the worker's Python: {error}")
        import pandas

        self.pandas = pandas
        self.model = mlflow.pyfunc.load_model(path)
        flavor = self.model.metadata.flavors.get("python_function", {})
        self.platform, self.format = "mlflow", f"pyfunc {flavor.get('loader_module', '')}".strip()
        schema = self.model.metadata.get_input_schema()
        self.schema_out = self.model.metadata.get_output_schema()
        self.kinds = None
        if schema is None:
            self.inputs = table(None)
            self.kind = "frame"
        elif schema.is_tensor_spec():
            self.kind = "tensors"
            specs = [(spec.name or f"input-{i}", spec.type, spec.shape) for i, spec in enumerate(schema.inputs)]
            self.names = [spec.name for spec in schema.inputs]
            self.inputs = [described(name, self.code(dtype), shape[1:]) for name, dtype, shape in specs]
        else:
            self.kind = "frame"
            specs = [(spec.name or str(i), str(spec.type)) for i, spec in enumerate(schema.inputs)]
            kinds = [re.sub(r"^DataType\.", "", kind) for _, kind in specs]
            self.columns, self.kinds = [name for name, _ in specs], [self.TYPES.get(kind) for kind in kinds]
            if None not in self.kinds:
                self.inputs = table(len(specs))
            else:
                codes = [NAMES.index("FP64") if kind else BYTES for kind in self.kinds]
                self.inputs = [described(name, code, []) for name, code in zip(self.columns, codes)]

    @staticmethod
    def code(dtype):
        return CODES.get(np.dtype(dtype).newbyteorder("<").str, BYTES)

    def guess(self):
        specs = list(self.schema_out.inputs) if self.schema_out is not None else []
        made = []
        for index, spec in enumerate(specs):
            name = spec.name or f"output-{index}"
            if hasattr(spec, "shape"):
                made.append(described(name, self.code(spec.type), spec.shape[1:]))
            else:
                kind = self.TYPES.get(re.sub(r"^DataType\.", "", str(spec.type)))
                made.append(described(name, BYTES if kind is None else CODES[np.dtype(kind).str], []))
        return made or GUESS

    def run(self, arrays, rows):
        if self.kind == "tensors":
            given = dict(zip(self.names, arrays)) if self.names[0] else arrays[0]
            return self.model.predict(given)
        if len(arrays) == 1 and arrays[0].ndim == 2:
            frame = self.pandas.DataFrame(arrays[0], columns=self.columns or None)
        else:
            frame = self.pandas.DataFrame({name: array.reshape(-1) for name, array in zip(self.columns, arrays)})
        if self.kinds:
            kinds = {name: kind for name, kind in zip(self.columns, self.kinds) if kind}
            frame = frame.astype(kinds)
        return self.model.predict(frame)


class Torch(Model):
    """A TorchScript module or an exported program."""

    platform = "pytorch"

    def __init__(self, path, options):
        import torch

        self.torch = torch
        if path.endswith(".pt2"):
            self.format = "torch.export"
            program = torch.export.load(path)
            self.module = program.module()
            given = program.example_inputs
            if given is None:
                raise Refused(f"{path}: the exported program has no example inputs, which tell what it takes")
            examples = [plain(tensor) for tensor in given[0]]
            self.inputs = [described(f"input-{i}", code_of(a), a.shape[1:]) for i, a in enumerate(examples)]
        else:
            self.format = "TorchScript"
            self.module = torch.jit.load(path, map_location="cpu").eval()
            self.inputs = declared(options, "inputs") or [described("input-0", NAMES.index("FP32"), [None])]
        self.dtypes = [DTYPES[NAMES.index(spec["dtype"])] for spec in self.inputs]
        if all(dim is not None for spec in self.inputs for dim in spec["row"]):
            self.probe([np.zeros([1] + spec["row"], dtype) for spec, dtype in zip(self.inputs, self.dtypes)])

    def run(self, arrays, rows):
        if rows == 0 and self.outputs is not None:
            return self.nothing()
        given = [a if d is None or a.dtype == d else a.astype(d) for a, d in zip(arrays, self.dtypes)]
        with self.torch.inference_mode():
            return self.module(*[self.torch.from_numpy(array) for array in given])


def wait(result):
    """The result of a function, async or not."""
    if inspect.isawaitable(result):
        return LOOP.run_until_complete(result)
    return result


LOOP = None


def takes(function, count):
    """Whether a function can be called with so many arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
        return True
    except TypeError:
        return False


def takes_names(kind):
    try:
        return bool(inspect.signature(kind).parameters)
    except (TypeError, ValueError):
        return False


def jsonable(value):
    if hasattr(value, "to_dict") and not isinstance(value, type):
        return value.to_dict()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy().tolist()
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(f"an answer holds a {type(value).__name__}, which is no JSON")


PREDICTOR = None


class Predictor:
    """Another server, which a transformer asks: over HTTP, in the protocol that the operator named."""

    def __init__(self, options):
        self.host, self.protocol = options["host"], options["protocol"]
        self.timeout, self.retries, self.use_ssl = options["timeout"], options["retries"], options["use_ssl"]
        self.connection = None

    def made(self, kind, name):
        """A model of a class that may or may not take what its own main function would have read from flags."""
        known = {
            "name": name,
            "predictor_host": self.host,
            "predictor_protocol": self.protocol,
            "protocol": self.protocol,
            "predictor_use_ssl": self.use_ssl,
            "predictor_request_timeout_seconds": self.timeout,
            "predictor_request_retries": self.retries,
        }
        wanted = inspect.signature(kind).parameters if takes_names(kind) else {}
        model = kind(**{key: known[key] for key in wanted if key in known}) if "name" in wanted else kind(name)
        model.predictor_host, model.protocol, model.timeout = self.host, self.protocol, self.timeout
        model.use_ssl, model.retries = self.use_ssl, self.retries
        return model

    def ask(self, name, payload):
        """The predictor's answer to a document."""
        path = f"/v2/models/{name}/infer" if self.protocol == "v2" else f"/v1/models/{name}:predict"
        payload = payload.to_rest() if hasattr(payload, "to_rest") else payload
        body = json.dumps(payload, default=jsonable).encode()
        status, answer = self.send(path, body)
        if status == 200:
            return self.made_of(json.loads(answer))
        try:
            told = json.loads(answer)["error"]
        except (ValueError, KeyError, TypeError):
            told = answer[:200].decode(errors="replace")
        # A mistake in what was sent is the caller's, as far as anybody here can know.
        kind = Refused if status in (400, 413, 422) else RuntimeError
        raise kind(f"the predictor {self.host} answers {status}: {told}")

    def made_of(self, answer):
        """What KServe's class answers: a dict in V1, a response of its own type in V2."""
        if self.protocol != "v2":
            return answer
        kinds = sys.modules["kserve"]
        outputs = [
            kinds.InferOutput(one["name"], one["shape"], one["datatype"], one["data"]) for one in answer["outputs"]
        ]
        return kinds.InferResponse(answer.get("id"), answer["model_name"], outputs)

    def send(self, path, body):
        import http.client

        kind = http.client.HTTPSConnection if self.use_ssl else http.client.HTTPConnection
        tries = 0
        while True:
            is_new = self.connection is None
            try:
                if is_new:
                    self.connection = kind(self.host, timeout=self.timeout)
                self.connection.request("POST", path, body, {"content-type": "application/json"})
                answer = self.connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.connection.close()
                self.connection = None
                # A kept connection may have ended while nobody asked, which is no try.
                tries += is_new
                if tries > self.retries or isinstance(error, TimeoutError):
                    raise RuntimeError(f"the predictor {self.host} does not answer: {explain(error)}")


class Custom(Model):
    """A class in the shape of KServe's `Model`: dicts of the V1 protocol in and out.

    With a predictor it is a transformer: what its base class would do in `predict` is to ask that one. In V2 a call
    then is an `InferRequest`, as it is for KServe's own server.
    """

    platform, documents = "kserve-custom", True

    def __init__(self, kind, name, options):
        self.format = f"{kind.__module__}:{kind.__qualname__}"
        global PREDICTOR
        self.predictor = PREDICTOR = Predictor(options["predictor"]) if options.get("predictor") else None
        if self.predictor is not None:
            self.model = self.predictor.made(kind, name)
            self.platform = "kserve-transformer"
        else:
            self.model = kind(name) if takes(kind, 1) else kind()
        self.name = name
        if hasattr(self.model, "load"):
            wait(self.model.load())
        own = getattr(type(self.model), "predict", None)
        inherited = own is getattr(sys.modules["kserve"].Model, "predict", None)
        # What KServe's own class does in `predict` is done here, whichever of its versions is installed.
        self.asks = self.predictor is not None and (own is None or inherited)
        if not self.asks and own is None:
            raise Refused(f"{self.format} has no predict")
        if not self.asks and inherited:
            raise Refused(f"{self.format} has no predict of its own, and there is no --predictor_host to ask")
        self.inputs = declared(options, "inputs") or table(None)

    def answer(self, payload):
        for name in ("preprocess", "predict", "postprocess"):
            step = getattr(self.model, name, None)
            if name == "predict" and self.asks:
                payload = self.predictor.ask(self.name, payload)
            elif step is not None:
                payload = wait(step(payload, {}) if takes(step, 2) else step(payload))
        return payload

    def document(self, text):
        try:
            payload = json.loads(text)
        except ValueError as error:
            raise Refused(f"Unrecognized request format: {error}")
        if not isinstance(payload, dict):
            raise Refused("Unrecognized request format: expected an object")
        return json.dumps(self.answer(payload), default=jsonable).encode()

    def run_v2(self, arrays):
        kinds = sys.modules["kserve"]
        inputs = []
        for spec, array in zip(self.inputs, arrays):
            name = NAMES[code_of(array)]
            given = kinds.InferInput(spec["name"], list(array.shape), name)
            given.set_data_from_numpy(array, binary_data=False)
            inputs.append(given)
        answer = self.answer(kinds.InferRequest(self.name, inputs))
        answer = answer.to_rest() if hasattr(answer, "to_rest") else answer
        if not isinstance(answer, dict) or not isinstance(answer.get("outputs"), list):
            raise RuntimeError(f"{self.format} answers no outputs, which a V2 answer has")
        made = {}
        for output in answer["outputs"]:
            dtype = DTYPES[NAMES.index(output["datatype"])]
            made[output["name"]] = np.asarray(output["data"], dtype or object).reshape(output["shape"])
        return made

    def run(self, arrays, rows):
        if self.predictor is not None and self.predictor.protocol == "v2":
            return self.run_v2(arrays)
        names = [spec["name"] for spec in self.inputs]
        lists = [array.tolist() for array in arrays]
        instances = lists[0] if len(lists) == 1 else [dict(zip(names, row)) for row in zip(*lists)]
        answer = self.answer({"instances": instances})
        if isinstance(answer, dict):
            answer = answer.get("predictions", answer)
        if isinstance(answer, list) and answer and isinstance(answer[0], dict):
            return {name: [row[name] for row in answer] for name in answer[0]}
        return answer if isinstance(answer, dict) else plain(answer)


class Runtime(Model):
    """A class in the shape of MLServer's `MLModel`: its own types in and out."""

    platform = "mlserver-custom"

    def __init__(self, kind, name, options):
        import mlserver
        from mlserver import types as kinds

        self.kinds = kinds
        self.format = f"{kind.__module__}.{kind.__qualname__}"
        settings = dict(options.get("settings") or {})
        settings["name"] = name
        settings.setdefault("implementation", self.format)
        make = mlserver.ModelSettings
        self.model = kind(make.model_validate(settings) if hasattr(make, "model_validate") else make(**settings))
        loaded = wait(self.model.load())
        if loaded is False:
            raise Refused(f"{self.format}.load() answered False")
        self.inputs = declared(options, "inputs") or table(None)
        self.announced = declared(options, "outputs")

    def guess(self):
        return self.announced or GUESS

    def run(self, arrays, rows):
        kinds = self.kinds
        inputs = []
        for spec, array in zip(self.inputs, arrays):
            name = NAMES[code_of(array)]
            data = array.reshape(-1).tolist()
            inputs.append(kinds.RequestInput(name=spec["name"], shape=list(array.shape), datatype=name, data=data))
        response = wait(self.model.predict(kinds.InferenceRequest(inputs=inputs)))
        made = {}
        for output in response.outputs:
            data = getattr(output.data, "root", getattr(output.data, "__root__", output.data))
            dtype = DTYPES[NAMES.index(output.datatype)] if output.datatype in NAMES else None
            array = np.asarray(data, dtype or object)
            made[output.name] = array.reshape(output.shape)
        return made


def declared(options, which):
    """Inputs or outputs that the operator declared, as in MLServer's `model-settings.json`: the first dimension is the
    rows."""
    made = []
    for spec in (options.get("settings") or options.get("declared") or {}).get(which) or []:
        if spec.get("datatype") not in NAMES:
            raise Refused(f"{which}: {spec.get('name')!r}: datatype {spec.get('datatype')!r} is none of {', '.join(NAMES)}")
        made.append(described(spec["name"], NAMES.index(spec["datatype"]), spec.get("shape", [-1])[1:]))
    return made


# --- Stand-ins ---------------------------------------------------------------------------------------------------------


def stand_ins():
    """Modules that custom classes import their bases from, where the real ones are not installed: only what a class needs
    to be a model, none of the servers."""
    for name, make in (("kserve", kserve_stand_in), ("mlserver", mlserver_stand_in)):
        try:
            found = __import__("importlib.util").util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            make()


def module(name, **members):
    made = types.ModuleType(name, "A stand-in of the model server's worker.")
    made.__dict__.update(members)
    sys.modules[name] = made
    return made


def kserve_stand_in():
    class Model:
        def __init__(self, name, *args, **kwargs):
            self.name, self.ready = name, False
            self.predictor_host, self.protocol, self.timeout = None, "v1", 600

        def load(self):
            self.ready = True
            return self.ready

        async def predict(self, payload, headers=None):
            if PREDICTOR is None:
                raise NotImplementedError("Could not find predictor_host.")
            return PREDICTOR.ask(self.name, payload)

    class InferInput:
        def __init__(self, name, shape, datatype, data=None, parameters=None):
            self.name, self.shape, self.datatype = name, list(shape), datatype
            self.data, self.parameters = data, parameters or {}

        def as_numpy(self):
            if isinstance(self.data, np.ndarray):
                return self.data
            return np.asarray(self.data, DTYPES[NAMES.index(self.datatype)] or object).reshape(self.shape)

        def set_data_from_numpy(self, array, binary_data=True):
            self.shape, self.data = list(array.shape), array.reshape(-1).tolist()

        def to_rest(self):
            made = {"name": self.name, "shape": self.shape, "datatype": self.datatype}
            data = self.data.reshape(-1).tolist() if isinstance(self.data, np.ndarray) else self.data
            return {**made, "data": data, **({"parameters": self.parameters} if self.parameters else {})}

    class InferRequest:
        def __init__(self, model_name, infer_inputs, request_id=None, parameters=None, **kwargs):
            self.model_name, self.inputs = model_name, list(infer_inputs)
            self.id, self.parameters = request_id, parameters or {}

        def get_input_by_name(self, name):
            return next((given for given in self.inputs if given.name == name), None)

        def to_rest(self):
            made = {"inputs": [given.to_rest() for given in self.inputs]}
            return {**made, **({"id": self.id} if self.id else {})}

    class InferResponse:
        def __init__(self, response_id, model_name, infer_outputs, *args, parameters=None, **kwargs):
            self.id, self.model_name, self.outputs = response_id, model_name, list(infer_outputs)
            self.parameters = parameters or {}

        def to_rest(self):
            outputs = [output.to_rest() for output in self.outputs]
            return {"id": self.id, "model_name": self.model_name, "outputs": outputs}

    InferOutput = type("InferOutput", (InferInput,), {})

    class InvalidInput(ValueError):
        def __init__(self, reason):
            self.reason = reason
            super().__init__(reason)

    class InferenceError(RuntimeError):
        def __init__(self, reason, *args):
            super().__init__(reason)

    class ModelServer:
        def __init__(self, *args, **kwargs):
            pass

        def start(self, models):
            pass

    errors = module("kserve.errors", InvalidInput=InvalidInput, InferenceError=InferenceError)
    model = module("kserve.model", Model=Model)
    kinds = {kind.__name__: kind for kind in (InferInput, InferOutput, InferRequest, InferResponse)}
    protocol = module("kserve.protocol", __path__=[])
    module("kserve.protocol.infer_type", **kinds)
    module(
        "kserve", Model=Model, ModelServer=ModelServer, errors=errors, model=model, protocol=protocol, __path__=[], **kinds
    )


def mlserver_stand_in():
    class Record:
        def __init__(self, **fields):
            for name in self.FIELDS:
                setattr(self, name, fields.pop(name, None))
            self.__dict__.update(fields)

    def record(name, *fields):
        return type(name, (Record,), {"FIELDS": fields})

    RequestInput = record("RequestInput", "name", "shape", "datatype", "parameters", "data")
    ResponseOutput = record("ResponseOutput", "name", "shape", "datatype", "parameters", "data")
    InferenceRequest = record("InferenceRequest", "id", "parameters", "inputs", "outputs")
    InferenceResponse = record("InferenceResponse", "model_name", "model_version", "id", "parameters", "outputs")
    Parameters = record("Parameters", "content_type", "headers")

    class ModelSettings(Record):
        FIELDS = ("name", "implementation", "parameters", "version")

        def __init__(self, **fields):
            super().__init__(**fields)
            if isinstance(self.parameters, dict):
                self.parameters = record("ModelParameters", "uri", "version", "extra")(**self.parameters)

    class NumpyCodec:
        ContentType = "np"

        @classmethod
        def decode_input(cls, given):
            dtype = DTYPES[NAMES.index(given.datatype)]
            return np.asarray(given.data, dtype or object).reshape(given.shape)

        @classmethod
        def encode_output(cls, name, payload, **kwargs):
            array = plain(payload)
            data = array.reshape(-1).tolist()
            return ResponseOutput(name=name, shape=list(array.shape), datatype=NAMES[code_of(array)], data=data)

    class StringCodec(NumpyCodec):
        ContentType = "str"

        @classmethod
        def decode_input(cls, given):
            return [item.decode() if isinstance(item, bytes) else item for item in given.data]

        @classmethod
        def encode_output(cls, name, payload, **kwargs):
            return ResponseOutput(name=name, shape=[len(payload), 1], datatype="BYTES", data=list(payload))

    class NumpyRequestCodec:
        ContentType = "np"

        @classmethod
        def decode_request(cls, request):
            return NumpyCodec.decode_input(request.inputs[0])

        @classmethod
        def encode_response(cls, model_name, payload, model_version=None, **kwargs):
            output = NumpyCodec.encode_output("output-0", payload)
            return InferenceResponse(model_name=model_name, model_version=model_version, outputs=[output])

    class MLModel:
        def __init__(self, settings):
            self._settings, self.ready = settings, False

        name = property(lambda self: self._settings.name)
        settings = property(lambda self: self._settings)
        version = property(lambda self: getattr(self._settings.parameters, "version", None))

        async def load(self):
            return True

        async def unload(self):
            return True

        def decode(self, given, default_codec=NumpyCodec):
            return default_codec.decode_input(given)

        def decode_request(self, request, default_codec=NumpyRequestCodec):
            return default_codec.decode_request(request)

        def encode(self, payload, output, default_codec=NumpyCodec):
            return default_codec.encode_output(output.name, payload)

        def encode_response(self, payload, default_codec=NumpyRequestCodec):
            return default_codec.encode_response(self.name, payload, self.version)

    class MLServerError(Exception):
        pass

    class InferenceError(MLServerError):
        pass

    async def get_model_uri(settings, wellknown_filenames=()):
        folder = settings.parameters.uri
        found = [os.path.join(folder, name) for name in wellknown_filenames]
        return next((path for path in found if os.path.exists(path)), folder)

    kinds = module(
        "mlserver.types",
        RequestInput=RequestInput,
        ResponseOutput=ResponseOutput,
        InferenceRequest=InferenceRequest,
        InferenceResponse=InferenceResponse,
        Parameters=Parameters,
    )
    codecs = module(
        "mlserver.codecs", NumpyCodec=NumpyCodec, NumpyRequestCodec=NumpyRequestCodec, StringCodec=StringCodec
    )
    errors = module("mlserver.errors", MLServerError=MLServerError, InferenceError=InferenceError)
    utils = module("mlserver.utils", get_model_uri=get_model_uri)
    settings = module("mlserver.settings", ModelSettings=ModelSettings)
    module(
        "mlserver", MLModel=MLModel, ModelSettings=ModelSettings, types=kinds, codecs=codecs, errors=errors,
        utils=utils, settings=settings, __path__=[],
    )


# --- Reading models ----------------------------------------------------------------------------------------------------

PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".skops")
TORCHES = (".pt", ".pth", ".ts", ".torchscript", ".pt2")


def model_file(folder):
    names = sorted(os.listdir(folder))
    found = [name for name in names if name.endswith(PICKLES + TORCHES)]
    if len(found) != 1:
        count = "no model file" if not found else "more than one model file"
        raise Refused(f"{count} ({', '.join(PICKLES + TORCHES)}) in {folder}; it holds [{', '.join(names[:8])}]")
    return os.path.join(folder, found[0])


def open_model(load):
    path, options = load["path"], load.get("options") or {}
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    document = os.path.join(folder, "model-settings.json")
    if "settings" not in options and os.path.isfile(document):
        with open(document, "rb") as file:
            options["declared"] = json.load(file)
    for place in reversed([options.get("code") or folder, os.path.join(folder, "code")]):
        if os.path.isdir(place):
            sys.path.insert(0, place)
    if load.get("class"):
        return open_class(load["class"], load["name"], options)
    if load.get("file"):
        path = os.path.join(path, load["file"])
    elif os.path.isfile(os.path.join(path, "MLmodel")):
        return Pyfunc(path)
    elif os.path.isdir(path):
        path = model_file(path)
    if path.endswith(TORCHES):
        return Torch(path, options)
    if path.endswith(".skops"):
        import skops.io

        return Estimator(skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path)), load["method"], "skops")
    try:
        import joblib

        estimator, form = joblib.load(path), "joblib"
    except ImportError as error:
        if error.name != "joblib":
            raise
        import pickle

        with open(path, "rb") as file:
            estimator, form = pickle.load(file), "pickle"
    return Estimator(estimator, load["method"], form)


def open_class(text, name, options):
    stand_ins()
    where, _, kind = text.rpartition(":" if ":" in text else ".")
    if not where or not kind:
        raise Refused(f"the class {text!r} is none: expected module:Class")
    made = __import__("importlib").import_module(where)
    kind = getattr(made, kind, None)
    if not inspect.isclass(kind):
        raise Refused(f"the module {where} has no class {text[len(where) + 1:]!r}")
    of_mlserver = any(base.__module__.split(".")[0] == "mlserver" for base in kind.__mro__)
    # The base class of a stand-in is defined here.
    of_mlserver = of_mlserver or issubclass(kind, sys.modules["mlserver"].MLModel) if "mlserver" in sys.modules else of_mlserver
    return (Runtime if of_mlserver or options.get("settings") else Custom)(kind, name, options)


# --- The lane ----------------------------------------------------------------------------------------------------------


class Lane:
    def __init__(self, text):
        number, memory = (int(part) for part in text.split(",")[0].split(":"))
        # What this process starts has no business with them.
        os.set_inheritable(number, False)
        os.set_inheritable(memory, False)
        self.socket = socket.socket(fileno=number)
        self.file = memory
        self.max = 1 << 20

    def receive(self):
        """Kind, detail, call, rows, mark and the places of the tensors; None when the server is gone."""
        try:
            packet = self.socket.recv(PACKET_BYTES_MAX)
        except ConnectionResetError:
            return None
        if not packet:
            return None
        version, kind, detail, _, count, call, rows, mark = HEADER.unpack_from(packet)
        if version != VERSION:
            sys.exit(f"the server speaks version {version} of the protocol, this worker {VERSION}")
        places, at = [], HEADER.size
        for _ in range(count):
            code, rank, _, _, offset, length = PLACE.unpack_from(packet, at)
            dims = struct.unpack_from(f"<{rank}Q", packet, at + PLACE.size)
            at += PLACE.size + 8 * rank
            places.append((code, dims, offset, length))
        return kind, detail, call, rows, mark, places

    def send(self, packet):
        try:
            self.socket.send(packet)
        except (BrokenPipeError, ConnectionResetError):
            pass  # The server is gone, which the next receive tells.

    def refuse(self, call, fault, text):
        self.send(HEADER.pack(VERSION, REFUSAL, fault, 0, 0, call, 0, 0) + text.encode()[:TEXT_BYTES_MAX])

    def answer(self, kind, call, rows, mark, tensors, nanos):
        """Writes tensors into the memory from `mark` on and tells where they are."""
        parts, count = [b""], 0
        for code, dims, data in tensors:
            mark = -(-mark // 64) * 64
            length = len(data)
            if mark + length > self.max:
                raise RuntimeError(f"the outputs need more than the {self.max} bytes that a worker's memory may have")
            written = 0
            while written < length:
                written += os.pwrite(self.file, data[written:] if written else data, mark + written)
            parts.append(PLACE.pack(code, len(dims), 0, 0, mark, length) + struct.pack(f"<{len(dims)}Q", *dims))
            count, mark = count + 1, mark + length
        parts[0] = HEADER.pack(VERSION, kind, 0, 0, count, call, rows, nanos)
        self.send(b"".join(parts))

    def document(self, kind, call, mark, data, nanos=0):
        self.answer(kind, call, 1, mark, [(NAMES.index("UINT8"), (len(data),), data)], nanos)


def explain(error):
    return f"{type(error).__name__}: {error}"


def is_callers_mistake(error):
    """ValueError is what scikit-learn raises for values it cannot take, and what the frameworks' own errors for bad
    input mean the same."""
    status = getattr(error, "status_code", None)
    kinds = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    of_frameworks = {"kserve.InvalidInput", "mlserver.InferenceError", "mlserver.MLServerError"}
    return isinstance(error, (Refused, ValueError)) or bool(kinds & of_frameworks) or status in range(400, 500)


def load(lane):
    received = lane.receive()
    if received is None:
        return None
    kind, _, call, _, mark, places = received
    if kind != LOAD:
        sys.exit("expected a load")
    order = json.loads(os.pread(lane.file, places[0][3], places[0][2]))
    lane.max = order["memory_bytes_max"]
    try:
        model = open_model(order)
        ready = json.dumps(model.ready()).encode()
    except Refused as error:
        return lane.refuse(call, INTERNAL, str(error))
    except Exception as error:
        __import__("traceback").print_exc()
        return lane.refuse(call, INTERNAL, explain(error))
    lane.document(READY, call, mark, ready)
    return model


def serve(lane, model):
    clock = time.perf_counter_ns
    while (received := lane.receive()) is not None:
        kind, detail, call, rows, mark, places = received
        start = clock()
        try:
            if detail == 1:
                if not model.documents:
                    raise Refused("the model takes tensors, not documents")
                text = os.pread(lane.file, places[0][3], places[0][2])
                lane.document(ANSWER, call, mark, model.document(text), clock() - start)
                continue
            arrays = [read_tensor(lane.file, *place) for place in places]
            outputs = outputs_of(model.run(arrays, rows))
            tensors = [(code_of(array), array.shape, encode(array)) for _, array in outputs]
            lane.answer(ANSWER, call, rows, mark, tensors, clock() - start)
        except Exception as error:
            if is_callers_mistake(error):
                lane.refuse(call, INPUT, str(error) if isinstance(error, Refused) else explain(error))
            else:
                __import__("traceback").print_exc()
                lane.refuse(call, INTERNAL, explain(error))


def main():
    global LOOP
    # The folder of this file is no place to import from.
    sys.path[:] = [place for place in sys.path if not place.startswith("/proc/self/fd")]
    sys.stdout.reconfigure(line_buffering=True)
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    lane = Lane(sys.argv[sys.argv.index("--lanes") + 1])
    LOOP = asyncio.new_event_loop()
    asyncio.set_event_loop(LOOP)
    model = load(lane)
    if model is not None:
        serve(lane, model)


if __name__ == "__main__":
    main()
