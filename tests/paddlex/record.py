"""Records what PaddleX's own serving app answers, so that our answers can be held against it.

    python tests/paddlex/record.py            # into tests/paddlex/recorded/

Needs paddlex with its `serving` and `cv` extras, and the starter models in SHITU_MODELS_DIR
(`manage.py models build-starter`); no Django, no network. The app is PaddleX's own, on a real
socket, with one line mended without which 3.5 to 3.7 cannot build an index: every picture gets its
own row of the batch's feature matrix.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import io
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.paddlex.cases import (  # noqa: E402
    ADD,
    BUILD,
    GALLERY,
    PICTURES,
    RECORDED,
    REMOVE,
    Case,
    all_cases,
    pair,
    resolved,
)

MODELS = Path(os.environ.get("SHITU_MODELS_DIR", ROOT / "var" / "models"))
PACKAGES = ("paddlex", "fastapi", "starlette", "pydantic", "faiss-cpu", "paddlepaddle")


def pipeline_config(**storage: str) -> dict[str, Any]:
    """PaddleX's own YAML with the starter models in it, and where its server keeps indexes."""
    return {
        "pipeline_name": "PP-ShiTuV2",
        "index": None,
        "det_threshold": 0.5,
        "rec_threshold": 0.5,
        "rec_topk": 5,
        "SubModules": {
            "Detection": {
                "module_name": "text_detection",
                "model_name": "PP-ShiTuV2_det",
                "model_dir": str(MODELS / "starter_det"),
                "batch_size": 1,
            },
            "Recognition": {
                "module_name": "text_recognition",
                "model_name": "PP-ShiTuV2_rec",
                "model_dir": str(MODELS / "starter_rec"),
                "batch_size": 1,
            },
        },
        "Serving": {"extra": {"index_storage": storage or {"type": "memory"}}},
    }


def create_pipeline() -> Any:
    """The pipeline, each picture with its own feature."""
    from paddlex import create_pipeline
    from paddlex.inference.models.image_feature.predictor import ImageFeatureRunnerPredictor

    process = ImageFeatureRunnerPredictor.process

    @functools.wraps(process)
    def mended(self: Any, batch_data: Any) -> dict[str, Any]:
        answer = process(self, batch_data)
        return answer | {
            "feature": list(answer["feature"])
        }  # a matrix is not taken apart, a list is

    ImageFeatureRunnerPredictor.process = mended
    return create_pipeline(config=pipeline_config(), device="cpu")


@contextmanager
def serving(pipeline: Any, **storage: str) -> Iterator[str]:
    """PaddleX's app on a free port; yields its address."""
    import uvicorn
    from paddlex.inference.serving.basic_serving import create_pipeline_app

    config = uvicorn.Config(
        create_pipeline_app(pipeline, pipeline_config(**storage)),
        port=free_port(),
        log_level="error",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{config.port}"
    finally:
        server.should_exit = True
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def files() -> Iterator[str]:
    """A server of the pictures; yields its address."""
    handler = functools.partial(_Quiet, directory=str(PICTURES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(client: Any, case: Case, keys: dict[str, str], files_url: str) -> Any:
    """Send one case over `client` (httpx); remembers the key of an index that it built."""
    content = case.raw
    if content is None and case.body is not None:
        content = json.dumps(resolved(case.body, keys, files_url)).encode()
    headers = (
        {"Content-Type": case.content_type} if case.content_type and content is not None else {}
    )
    response = client.request(case.method, case.path, content=content, headers=headers, timeout=120)
    if case.key:
        keys[case.key] = response.json()["result"]["indexKey"]
    return response


def summary(body: Any) -> Any:
    """An answer without what differs every time: a picture becomes its format and size."""
    from PIL import Image

    picture = body.get("result", {}).get("image") if isinstance(body, dict) else None
    if picture is not None:
        image = Image.open(io.BytesIO(base64.b64decode(picture)))
        body["result"]["image"] = [image.format, *image.size]
    return body


def record_serving(pipeline: Any) -> dict[str, Any]:
    import httpx

    answers: dict[str, Any] = {}
    keys: dict[str, str] = {}
    # The app drops the connection after every 500, so none is used twice.
    once = httpx.Limits(max_keepalive_connections=0)
    with (
        serving(pipeline) as url,
        files() as files_url,
        httpx.Client(base_url=url, limits=once) as client,
    ):
        for case in all_cases():
            response = ask(client, case, keys, files_url)
            answers[case.name] = {
                "status": response.status_code,
                "content_type": response.headers["content-type"],
                "body": summary(response.json()),
            }
            sys.stdout.write(f"{response.status_code} {case.name}\n")
    return answers


def record_together(pipeline: Any) -> dict[str, Any]:
    """What is left when 16 clients add one picture each to an index of one, kept as by default."""
    import httpx

    def add(key: str) -> httpx.Response:
        body = {"imageLabelPairs": [pair("milk-2.jpg", "Milk")], "indexKey": key}
        return httpx.post(f"{url}{ADD}", json=body, timeout=120)

    with tempfile.TemporaryDirectory() as directory:
        storage = {"type": "file_system", "directory": f"{directory}/index"}
        with serving(pipeline, **storage) as url:
            body = {"imageLabelPairs": [pair("milk-1.jpg", "Milk")]}
            built = httpx.post(f"{url}{BUILD}", json=body, timeout=120).json()
            key = built["result"]["indexKey"]
            with ThreadPoolExecutor(16) as clients:
                answers = list(clients.map(add, [key] * 16))
            last = httpx.post(f"{url}{REMOVE}", json={"ids": [], "indexKey": key}, timeout=120)
    return {
        "succeeded": sum(answer.status_code == 200 for answer in answers),
        "images_left": last.json()["result"]["imageCount"],
        "images_sent": 17,
    }


def record_library(pipeline: Any) -> dict[str, Any]:
    """What the Python library says about the same pictures, and the names of the files it saves."""
    index = pipeline.build_index(
        [str(PICTURES / name) for name, _ in GALLERY],
        [label for _, label in GALLERY],
        index_type="Flat",
    )
    asked = [str(PICTURES / name) for name in ("scene.jpg", "single.jpg")]
    results = list(pipeline.predict(asked, index=index))
    with tempfile.TemporaryDirectory() as out:
        for result in results:
            result.save_to_json(out)
            result.save_to_img(out)
        saved = sorted(path.name for path in Path(out).iterdir())
        text = Path(out, "single_res.json").read_text(encoding="utf-8")
    answers = [result.json for result in results]
    for answer in answers:
        answer["res"]["input_path"] = Path(answer["res"]["input_path"]).name
    return {
        "id_map": {str(number): label for number, label in index.id_map.items()},
        "results": answers,
        "saved": saved,
        "saved_keys": list(json.loads(text)),
        "image_keys": list(results[0].img),
        "keys": list(results[0]),
    }


def main() -> None:
    import noto_cjk_sans_otc

    # PaddleX would fetch a font from the network to draw with.
    font = Path(noto_cjk_sans_otc.__file__).parent / "NotoSansCJK-Regular.ttc"
    os.environ["PADDLE_PDX_LOCAL_FONT_FILE_PATH"] = str(font)
    os.environ.setdefault("PADDLE_PDX_CACHE_HOME", tempfile.mkdtemp(prefix="paddlex-"))
    os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"
    pipeline = create_pipeline()
    about = {
        "packages": {name: version(name) for name in PACKAGES},
        "models": {
            name: json.loads((MODELS / name / "shitu.json").read_text())["digest"]
            for name in ("starter_det", "starter_rec")
        },
        "pictures": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(PICTURES.iterdir())
        },
    }
    RECORDED.mkdir(exist_ok=True)
    for name, answers in (
        ("serving", record_serving(pipeline)),
        ("library", record_library(pipeline)),
        ("together", record_together(pipeline)),
    ):
        text = json.dumps(about | {"answers": answers}, indent=1, ensure_ascii=False)
        (RECORDED / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
