"""PaddleX's Python interface over HTTP: a script of `paddlex.create_pipeline` changes one line.

    from recognition.client import create_pipeline

    pipeline = create_pipeline("http://host:8000", token="...")
    index = pipeline.build_index(gallery_imgs="drinks/", gallery_label="drinks/gallery.txt")
    for result in pipeline.predict("photos/", index=index):
        result.print()
        result.save_to_img("output/")
        result.save_to_json("output/")

Needs httpx, pillow and numpy (and the font package to draw); no Django, no Paddle.
"""

from recognition.client.asynchronous import AsyncIndex, AsyncPipeline, create_async_pipeline
from recognition.client.pipeline import Index, Pipeline, create_pipeline
from recognition.client.results import ShiTuResult
from recognition.client.transport import ServerError

__all__ = [
    "AsyncIndex",
    "AsyncPipeline",
    "Index",
    "Pipeline",
    "ServerError",
    "ShiTuResult",
    "create_async_pipeline",
    "create_pipeline",
]
