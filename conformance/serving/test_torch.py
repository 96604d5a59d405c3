"""TorchScript and exported programs through the Python worker: answers equal torch's. Debian's torch makes and serves them."""
import json
import subprocess

import pytest

PYTHON = "/usr/bin/python3"
MAKE = """
import json, sys
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
image = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten()).eval()
rows, pixels = torch.rand(5, 4), torch.rand(2, 3, 6, 6)
torch.jit.script(model).save(sys.argv[1] + "/rows/model.pt")
torch.jit.trace(image, pixels).save(sys.argv[1] + "/images/model.pt")
exports = hasattr(torch, "export") and hasattr(torch.export, "save")
if exports:
    batch = {"dynamic_shapes": ({0: torch.export.Dim("rows")},)}
    torch.export.save(torch.export.export(model, (rows,), **batch), sys.argv[1] + "/exported/model.pt2")
with torch.inference_mode():
    print(json.dumps({"rows": rows.tolist(), "want": model(rows).tolist(), "pixels": pixels.tolist(),
                      "pixels_want": image(pixels).tolist(), "exports": exports}))
"""
SETTINGS = {"implementation": "unused", "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 3, 6, 6]}]}


class Folder:
    def __init__(self, folder):
        self.folder = folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    for name in ("rows", "images", "exported"):
        (folder / name).mkdir()
    done = subprocess.run([PYTHON, "-c", MAKE, str(folder)], capture_output=True, text=True, timeout=300)
    if "No module named 'torch'" in done.stderr:
        pytest.skip("no torch in " + PYTHON)
    assert done.returncode == 0, done.stderr
    (folder / "images" / "model-settings.json").write_text(json.dumps(SETTINGS))
    return folder, json.loads(done.stdout)


def start(serve, folder):
    return serve(Folder(folder), "--allow_python", f"--python={PYTHON}")


def close(got, want):
    return got == pytest.approx(want, rel=1e-5, abs=1e-6)


def test_a_scripted_module_answers_as_torch_does(serve, made):
    folder, made = made
    server = start(serve, folder / "rows")
    code, text = server.curl("/v1/models/iris:predict", json.dumps({"instances": made["rows"]}))
    assert code == 200, text
    assert all(close(got, want) for got, want in zip(json.loads(text)["predictions"], made["want"]))
    flat = [number for row in made["rows"] for number in row]
    body = {"inputs": [{"name": "input-0", "datatype": "FP32", "shape": [5, 4], "data": flat}]}
    code, text = server.curl("/v2/models/iris/infer", json.dumps(body))
    answer = json.loads(text)
    assert (code, answer["outputs"][0]["datatype"], answer["outputs"][0]["shape"]) == (200, "FP32", [5, 3])
    assert close(answer["outputs"][0]["data"], [number for row in made["want"] for number in row])
    maps = open(f"/proc/{server.process.pid}/maps").read()
    assert "libtorch" not in maps and "libpython" not in maps


def test_a_traced_module_takes_the_images_that_its_settings_declare(serve, made):
    folder, made = made
    server = start(serve, folder / "images")
    code, text = server.curl("/v1/models/iris:predict", json.dumps({"instances": made["pixels"]}))
    assert code == 200, text
    assert all(close(got, want) for got, want in zip(json.loads(text)["predictions"], made["pixels_want"]))
    assert server.curl("/v1/models/iris:predict", '{"instances": [[[1.0]]]}')[0] == 400


def test_an_exported_program_answers_as_torch_does(serve, made):
    folder, made = made
    if not made["exports"]:
        pytest.skip("this torch has no torch.export")
    server = start(serve, folder / "exported")
    code, text = server.curl("/v1/models/iris:predict", json.dumps({"instances": made["rows"]}))
    assert code == 200, text
    assert all(close(got, want) for got, want in zip(json.loads(text)["predictions"], made["want"]))
