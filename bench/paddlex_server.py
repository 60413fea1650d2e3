"""PaddleX's own server with given vectors as its index; started by bench/serving.py.

    python bench/paddlex_server.py MODELS DETECTOR EMBEDDER INDEXES PORT

Runs under a Python that has PaddleX with its serving extras, and knows nothing of Django. INDEXES
is a directory of `<key>.npy` (vectors) and `<key>.json` (labels). Everything is as PaddleX ships it
but for two things without which there is nothing to measure: every picture gets its own row of a
batch's feature matrix (3.5 to 3.7 give it the whole matrix), and nothing is fetched from a network.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def config(models: Path, detector: str, embedder: str, storage: Path) -> dict[str, Any]:
    """PaddleX's own pipeline file with these models in it."""

    def module(name: str, official: str, folder: str) -> dict[str, Any]:
        directory = str(models / folder)
        return {
            "module_name": name,
            "model_name": official,
            "model_dir": directory,
            "batch_size": 1,
        }

    return {
        "pipeline_name": "PP-ShiTuV2",
        "index": None,
        "det_threshold": 0.5,
        "rec_threshold": 0.5,
        "rec_topk": 5,
        "SubModules": {
            "Detection": module("text_detection", "PP-ShiTuV2_det", detector),
            "Recognition": module("text_recognition", "PP-ShiTuV2_rec", embedder),
        },
        "Serving": {
            "visualize": False,
            "extra": {"index_storage": {"type": "file_system", "directory": str(storage)}},
        },
    }


def main() -> None:
    models, detector, embedder, indexes, port = sys.argv[1:]
    os.environ.setdefault("PADDLE_PDX_CACHE_HOME", tempfile.mkdtemp(prefix="paddlex-"))
    os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"
    from paddlex import create_pipeline
    from paddlex.inference.models.image_feature.predictor import ImageFeatureRunnerPredictor
    from paddlex.inference.pipelines.components.faisser import FaissBuilder
    from paddlex.inference.serving.basic_serving import create_pipeline_app, run_server

    process = ImageFeatureRunnerPredictor.process

    @functools.wraps(process)
    def row_by_row(self: Any, batch_data: Any) -> dict[str, Any]:
        answer = process(self, batch_data)
        return answer | {"feature": list(answer["feature"])}

    ImageFeatureRunnerPredictor.process = row_by_row
    storage = Path(indexes, "storage")
    storage.mkdir(exist_ok=True)
    for file in sorted(Path(indexes).glob("*.npy")):
        vectors = np.load(file)
        built = FaissBuilder.build(
            list(range(len(vectors))),
            json.loads(file.with_suffix(".json").read_text()),
            lambda rows, vectors=vectors: ({"feature": vectors[row]} for row in rows),
            index_type="Flat",  # as its server builds them
        )
        (storage / file.stem).write_bytes(built.to_bytes())
    settings = config(Path(models), detector, embedder, storage)
    pipeline = create_pipeline(config=settings, device="cpu")
    run_server(create_pipeline_app(pipeline, settings), host="127.0.0.1", port=int(port))


if __name__ == "__main__":
    main()
