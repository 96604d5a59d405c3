#!/usr/bin/env python3
"""KServe's framework serving a scikit-learn file: the peer of `run.py --kserve PYTHON`.

KServe publishes its framework (`pip install kserve`), not its sklearn server; this is the same thing on it: the
model is loaded by joblib and called with the rows as they come.
"""
import glob
import os
import sys

import joblib
from kserve import Model, ModelServer
from kserve.utils.utils import get_predict_input, get_predict_response


class Sklearn(Model):
    def __init__(self, name, folder):
        super().__init__(name)
        (path,) = glob.glob(os.path.join(folder, "*.joblib"))
        self.model = joblib.load(path)
        self.ready = True

    def predict(self, payload, headers=None):
        return get_predict_response(payload, self.model.predict(get_predict_input(payload)), self.name)


if __name__ == "__main__":
    name, folder, port = sys.argv[1:]
    ModelServer(http_port=int(port), enable_grpc=False, workers=1).start([Sklearn(name, folder)])
