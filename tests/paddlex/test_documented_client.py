"""The client of PaddleX's documentation, unchanged but for the address, on the running site."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.paddlex.cases import PICTURES

# "Multi-language Service Call Example", Python, of the General Image Recognition pipeline tutorial.
CLIENT = """
import base64
import pprint
import sys

import requests

API_BASE_URL = "http://0.0.0.0:8080"

base_image_label_pairs = [
    {"image": "./demo0.jpg", "label": "Rabbit"},
    {"image": "./demo1.jpg", "label": "Rabbit"},
    {"image": "./demo2.jpg", "label": "Dog"},
]
image_label_pairs_to_add = [
    {"image": "./demo3.jpg", "label": "Dog"},
]
ids_to_remove = [1]
infer_image_path = "./demo4.jpg"
output_image_path = "./out.jpg"

for pair in base_image_label_pairs:
    with open(pair["image"], "rb") as file:
        image_bytes = file.read()
        image_data = base64.b64encode(image_bytes).decode("ascii")
    pair["image"] = image_data

payload = {"imageLabelPairs": base_image_label_pairs}
resp_index_build = requests.post(f"{API_BASE_URL}/shitu-index-build", json=payload)
if resp_index_build.status_code != 200:
    print(f"Request to shitu-index-build failed with status code {resp_index_build}.")
    pprint.pp(resp_index_build.json())
    sys.exit(1)
result_index_build = resp_index_build.json()["result"]
print(f"Number of images indexed: {COUNT(result_index_build)}")

for pair in image_label_pairs_to_add:
    with open(pair["image"], "rb") as file:
        image_bytes = file.read()
        image_data = base64.b64encode(image_bytes).decode("ascii")
    pair["image"] = image_data

payload = {"imageLabelPairs": image_label_pairs_to_add, "indexKey": result_index_build["indexKey"]}
resp_index_add = requests.post(f"{API_BASE_URL}/shitu-index-add", json=payload)
if resp_index_add.status_code != 200:
    print(f"Request to shitu-index-add failed with status code {resp_index_add}.")
    pprint.pp(resp_index_add.json())
    sys.exit(1)
result_index_add = resp_index_add.json()["result"]
print(f"Number of images indexed: {COUNT(result_index_add)}")

payload = {"ids": ids_to_remove, "indexKey": result_index_build["indexKey"]}
resp_index_remove = requests.post(f"{API_BASE_URL}/shitu-index-remove", json=payload)
if resp_index_remove.status_code != 200:
    print(f"Request to shitu-index-remove failed with status code {resp_index_remove}.")
    pprint.pp(resp_index_remove.json())
    sys.exit(1)
result_index_remove = resp_index_remove.json()["result"]
print(f"Number of images indexed: {COUNT(result_index_remove)}")

with open(infer_image_path, "rb") as file:
    image_bytes = file.read()
    image_data = base64.b64encode(image_bytes).decode("ascii")

payload = {"image": image_data, "indexKey": result_index_build["indexKey"]}
resp_infer = requests.post(f"{API_BASE_URL}/shitu-infer", json=payload)
if resp_infer.status_code != 200:
    print(f"Request to shitu-infer failed with status code {resp_infer}.")
    pprint.pp(resp_infer.json())
    sys.exit(1)
result_infer = resp_infer.json()["result"]

with open(output_image_path, "wb") as file:
    file.write(base64.b64decode(result_infer["image"]))
print(f"Output image saved at {output_image_path}")
print("\\nDetected objects:")
pprint.pp(result_infer["detectedObjects"])
"""
DIALECTS = {
    "3.0": "len({}['idMap'])",
    "3.7.2": "{}['imageCount']",
}


def in_dialect(dialect: str) -> str:
    """The two printed versions differ in how they count."""
    text = CLIENT
    for name in ("build", "add", "remove"):
        result = f"result_index_{name}"
        text = text.replace(f"COUNT({result})", DIALECTS[dialect].format(result))
    return text


@pytest.mark.parametrize("way", ["token in the address", "anonymous user"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_documented_client_runs(serve, token, someone, tmp_path, dialect, way):
    anonymous = way == "anonymous user"
    site = serve(SHITU_PADDLEX_ANONYMOUS_USER=someone.username if anonymous else "")
    for number, name in enumerate(
        ["milk-1.jpg", "milk-2.jpg", "noodles-1.jpg", "noodles-2.jpg", "single.jpg"]
    ):
        shutil.copy(PICTURES / name, tmp_path / f"demo{number}.jpg")
    address = str(site.base_url).rstrip("/") + ("" if anonymous else f"/paddlex/{token}")
    script = tmp_path / "client.py"
    script.write_text(in_dialect(dialect).replace("http://0.0.0.0:8080", address))

    ran = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    counted = [line for line in ran.stdout.splitlines() if line.startswith("Number")]
    assert counted == [f"Number of images indexed: {count}" for count in (3, 4, 3)]
    assert "'label': 'Dog'" in ran.stdout
    drawn = Image.open(io.BytesIO((tmp_path / "out.jpg").read_bytes()))
    assert (drawn.format, drawn.size) == ("JPEG", Image.open(PICTURES / "single.jpg").size)

    # The token is nowhere in the log of the site.
    log = Path(tmp_path / "web.log").read_text()
    assert "POST /shitu-infer" in log
    assert token not in log
