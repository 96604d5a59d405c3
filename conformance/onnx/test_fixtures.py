"""ONNX Runtime answers from converted fixtures of `models` as their libraries did: labels, numbers within 2e-6.

Fixtures hold what the library answered when they were made, so no library is needed but ONNX Runtime. Not here: our own engine (crates/onnx/tests/convert.rs).
"""

import json
import os
import pathlib
import subprocess

import numpy as np
import onnxruntime
import pytest

FIXTURES = pathlib.Path(__file__).parents[2] / "crates/models/tests/fixtures"
FOLDERS = [path.parent.relative_to(FIXTURES).as_posix() for path in sorted(FIXTURES.rglob("expected.json"))]
# Explanations are no answers, and PMML is refused as a whole.
FOLDERS = [folder for folder in FOLDERS if not folder.startswith(("explain", "pmml"))]
# What the library gives under these names, in the order of preference.
METHODS = {
    "label": ["predict", "transform"],
    "variable": ["predict", "transform"],
    "probabilities": ["predict_proba", "proba"],
    "decisions": ["decision_function", "raw"],
    "scores": ["decision_function"],
}


def given(session, expected, answers):
    """The inputs of a model: one table of numbers, or a column each."""
    if "columns" in answers:
        columns = answers["columns"]
    else:
        rows = expected["tables"][answers["rows"]] if isinstance(answers["rows"], str) else answers["rows"]
        columns = list(zip(*(row if isinstance(row, list) else [row] for row in rows)))
    inputs = session.get_inputs()
    if len(inputs) == 1 and inputs[0].type == "tensor(double)":
        return {inputs[0].name: np.array(columns, dtype=float).T}
    kinds = {"tensor(double)": float, "tensor(string)": object}
    return {own.name: np.array(column, dtype=kinds[own.type]).reshape(-1, 1) for own, column in zip(inputs, columns, strict=True)}


def same(got, want):
    got = np.asarray(got)
    if got.dtype == object:
        return [str(cell) for cell in got.ravel()] == [str(cell) for cell in np.ravel(np.array(want, dtype=object))]
    want = np.array(want, dtype=float)
    return got.size == want.size and np.allclose(got.astype(float), want.reshape(got.shape), rtol=2e-6, atol=2e-6, equal_nan=True)


def check(name, model, expected, answers, folder):
    """What is wrong, or nothing; None where the model is refused."""
    made = folder / f"{model.name}.onnx"
    run = subprocess.run([os.environ["SLIPWAY_BIN"], "model", "convert", model, "-o", made], capture_output=True, text=True)
    if run.returncode != 0:
        assert "in ONNX" in run.stderr, f"{name}: {run.stderr}"
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = dict(zip(names, session.run(None, given(session, expected, answers))))
    wrong, compared = [], 0
    for output, value in values.items():
        want = next((answers[method] for method in METHODS.get(output, []) if method in answers), None)
        if want is not None:
            compared += 1
            if not same(value, want):
                wrong.append(f"{name}: {output} is {np.asarray(value).tolist()}, not {want}")
    return wrong if compared else [f"{name}: none of {names} is compared"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_onnx_runtime_answers_as_the_fixtures_say(folder, tmp_path):
    expected = json.loads((FIXTURES / folder / "expected.json").read_text())
    wrong, same_count = [], 0
    for name, answers in expected.get("models", expected).items():
        model = FIXTURES / folder / answers.get("file", f"{name}.model")
        found = check(f"{folder}/{name}", model, expected, answers, tmp_path)
        same_count += found == []
        wrong += found or []
    assert not wrong, "\n".join(wrong)
    assert same_count > 0
