#!/usr/bin/env python3
"""Packs the binary into a Python wheel, so that `pip install slipway` puts it on the path: wheel.py BINARY DIST_FOLDER."""
import base64
import hashlib
import platform
import re
import sys
import zipfile
from pathlib import Path

root = Path(__file__).resolve().parent.parent
binary, dist = Path(sys.argv[1]), Path(sys.argv[2])
version = re.search(r'^version = "(.+)"', (root / "Cargo.toml").read_text(), re.M).group(1)
libc, glibc = platform.libc_ver(str(binary))
if libc != "glibc":
    sys.exit(f"wheel: {binary} is not linked to glibc ({libc or 'unknown'}); a manylinux wheel cannot be made")
tag = f"py3-none-manylinux_{glibc.replace('.', '_')}_{platform.machine()}"
info = f"slipway-{version}.dist-info"
files = {
    f"slipway-{version}.data/scripts/slipway": binary.read_bytes(),
    f"{info}/METADATA": (
        f"Metadata-Version: 2.4\nName: slipway\nVersion: {version}\n"
        "Summary: Trains, tunes, launches and serves models the Kubernetes way, in one binary\n"
        "License-Expression: Apache-2.0\nRequires-Python: >=3.8\nDescription-Content-Type: text/markdown\n\n"
        + (root / "README.md").read_text()
    ).encode(),
    f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: slipway\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
    f"{info}/licenses/LICENSE": (root / "LICENSE").read_bytes(),
}


def digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


record = "".join(f"{name},{digest(content)},{len(content)}\n" for name, content in files.items())
files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
dist.mkdir(parents=True, exist_ok=True)
wheel = dist / f"slipway-{version}-{tag}.whl"
with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in files.items():
        entry = zipfile.ZipInfo(name, date_time=(2026, 1, 1, 0, 0, 0))
        entry.external_attr = (0o755 if name.endswith("scripts/slipway") else 0o644) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, content)
print(wheel)
