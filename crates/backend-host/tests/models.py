"""Classes of an operator's own, for `python.rs`: in the shape of KServe's `Model`, of MLServer's `MLModel`, and hostile."""
import ctypes
import os
import sys
import threading
import time

import numpy as np
from kserve import InferInput, InferRequest, InferResponse, Model
from kserve.errors import InvalidInput
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Doubler(Model):
    def load(self):
        self.factor = 2
        self.ready = True
        return self.ready

    def preprocess(self, payload, headers=None):
        if "instances" not in payload:
            raise InvalidInput("expected instances")
        return payload["instances"]

    async def predict(self, payload, headers=None):
        return np.asarray(payload) * self.factor

    def postprocess(self, result, headers=None):
        return {"predictions": result, "by": self.name}


class Millimetres(Model):
    """A transformer: what it asks knows centimetres."""

    def preprocess(self, payload, headers=None):
        if isinstance(payload, InferRequest):
            table = payload.inputs[0].as_numpy() / 10
            given = InferInput("input-0", list(table.shape), "FP64")
            given.set_data_from_numpy(table, binary_data=False)
            return InferRequest(self.name, [given])
        return {"instances": [[number / 10 for number in row] for row in payload["instances"]]}

    def postprocess(self, answer, headers=None):
        if isinstance(answer, InferResponse):
            return answer
        return {**answer, "asked": self.predictor_host}


class Twice(Millimetres):
    """The same with a function around the asking."""

    async def predict(self, payload, headers=None):
        await super().predict(payload, headers)
        return await super().predict(payload, headers)


class Totals(MLModel):
    async def load(self):
        self.offset = self.settings.parameters.extra["offset"]
        return True

    async def predict(self, payload):
        table = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        total = table.sum(axis=1) + self.offset
        outputs = [NumpyCodec.encode_output(name="total", payload=total)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)


class Hostile:
    """Does what the first number asks for."""

    def predict(self, payload):
        what = payload["instances"][0][0]
        if what == 1:
            threading.Event().wait()
        if what == 2:
            os._exit(3)
        if what == 3:
            ctypes.string_at(0)
        if what == 4:
            line = "x" * 10_000 + "\n"
            for _ in range(5_000):
                sys.stderr.write(line)
        if what == 5:
            return {"predictions": [[1.0], [2.0], [3.0]]}
        if what == 6:
            raise RuntimeError("not today")
        if what == 7:
            return {"predictions": np.zeros((1, 8 << 20))}
        if what == 8:
            seen = sorted(int(name) for name in os.listdir("/proc/self/fd"))
            links = []
            for fd in seen:
                try:
                    links.append(os.readlink(f"/proc/self/fd/{fd}"))
                except OSError:
                    pass
            return {"fds": links, "env": sorted(os.environ), "pid": os.getpid()}
        if what == 9:
            # A child that holds on to nothing of the lane, and that must not outlive its worker's group.
            os.system("sleep 1000 &")
            return {"predictions": [os.getpid()]}
        if what == 10:
            time.sleep(0.05)
        return {"predictions": [0.0 for _ in payload["instances"]]}
