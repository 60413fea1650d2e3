"""What the tests have PaddleX itself do, in a process of its own: importing it takes seconds.

`python paddlex_side.py NAME REQUEST.json ANSWER.json`. Written against PaddleX 3.7.2.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def pipeline(models: str):
    """PP-ShiTuV2 with the starter models.

    With the one line without which PaddleX 3.5 to 3.7 cannot build or search an index: each
    feature result carries the features of its whole batch, because only lists are split by row.
    """
    from paddlex import create_pipeline
    from paddlex.inference.models.image_feature.predictor import ImageFeatureRunnerPredictor

    process = ImageFeatureRunnerPredictor.process
    if not getattr(process, "by_row", False):

        def fixed(self, *args, **kwargs):
            found = process(self, *args, **kwargs)
            return found | {"feature": list(found["feature"])}

        fixed.by_row = True
        ImageFeatureRunnerPredictor.process = fixed
    config = {
        "pipeline_name": "PP-ShiTuV2",
        "index": None,
        "det_threshold": 0.5,
        "rec_threshold": 0.5,
        "rec_topk": 5,
        "SubModules": {
            "Detection": {
                "module_name": "object_detection",
                "model_name": "PP-ShiTuV2_det",
                "model_dir": f"{models}/starter_det",
                "batch_size": 1,
            },
            "Recognition": {
                "module_name": "image_feature",
                "model_name": "PP-ShiTuV2_rec",
                "model_dir": f"{models}/starter_rec",
                "batch_size": 8,
            },
        },
    }
    return create_pipeline(config=config, device="cpu", engine_config={"cpu_threads": 2})


def ask(pipe, index, pictures: list[str]) -> list[dict]:
    """Labels and scores of each picture as a whole: nothing is detected with threshold 1.0."""
    answers = []
    for result in pipe.predict(pictures, index=index, det_threshold=1.0, rec_threshold=-10.0):
        [box] = result.json["res"]["boxes"]
        answers.append({"labels": box["labels"], "scores": box["rec_scores"]})
    return answers


def build(models: str, gallery: str, labels: str, kinds: list, output: str, queries: list) -> dict:
    """Build an index of each (type, metric) from a gallery list, save it, ask it."""
    pipe = pipeline(models)
    answers = {}
    for index_type, metric in kinds:
        made = pipe.build_index(gallery, labels, metric_type=metric, index_type=index_type)
        made.save(f"{output}/{index_type}-{metric}")
        answers[f"{index_type}-{metric}"] = ask(pipe, thorough(made), queries)
    return answers


def load(models: str, directories: list[str], queries: list[str]) -> dict:
    """Load each directory, ask it as it is and searching all of it; then append and remove."""
    from paddlex.inference.pipelines.components.faisser import FaissBuilder, IndexData

    pipe = pipeline(models)
    answers = {}
    for directory in directories:
        index, id_map, metric, index_type = IndexData.load(directory)
        info = {"id_map": id_map, "metric_type": metric, "index_type": index_type}
        answers[Path(directory).name] = {
            "ntotal": index.ntotal,
            "as_it_is": ask(pipe, directory, queries),
            "thorough": ask(pipe, thorough(IndexData(index, info)), queries),
        }
        grown = pipe.append_index(queries[:1], ["appended"], directory)
        answers[Path(directory).name]["appended_id"] = int(max(grown.id_map))
        if index_type == "Flat":
            first = int(min(id_map))
            smaller = FaissBuilder.remove([first], directory)
            answers[Path(directory).name]["removed"] = first not in smaller.id_map
    return answers


def thorough(index):
    """Make IVF look into every list and HNSW at every vector: what is compared is the content.

    PaddleX itself leaves nprobe at 1 and efSearch at 16.
    """
    import faiss

    base = faiss.downcast_index(index.index.index)
    if hasattr(base, "nprobe"):
        base.nprobe = base.nlist
    if hasattr(base, "hnsw"):
        base.hnsw.efSearch = index.index.ntotal
    return index


def check_dataset(dataset: str, output: str) -> dict:
    """PaddleX's own check before it trains PP-ShiTuV2_rec on a data set.

    Its histogram sets a font in a way that today's matplotlib refuses, whatever the data set.
    """
    from matplotlib.axes import Axes
    from paddlex.modules.general_recognition import ShiTuRecDatasetChecker
    from paddlex.utils.config import AttrDict

    set_xticks = Axes.set_xticks
    Axes.set_xticks = lambda axes, ticks, **options: set_xticks(axes, ticks)
    config = AttrDict(
        Global=AttrDict(
            model="PP-ShiTuV2_rec", mode="check_dataset", dataset_dir=dataset, output=output
        ),
        CheckDataset=AttrDict(
            convert=AttrDict(enable=False, src_dataset_type=None),
            split=AttrDict(enable=False),
        ),
    )
    return ShiTuRecDatasetChecker(config).check()


if __name__ == "__main__":
    name, request, answer = sys.argv[1:]
    function = {"build": build, "load": load, "check_dataset": check_dataset}[name]
    told = function(**json.loads(Path(request).read_text()))
    Path(answer).write_text(json.dumps(told, default=float))
