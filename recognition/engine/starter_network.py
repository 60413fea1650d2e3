"""The starter networks in Paddle, and their export. Run in a child process (child.py), as paddle
is loaded at import; the training script uses the trunk as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle2onnx
import yaml
from paddle import nn
from paddle.nn.functional import adaptive_avg_pool2d, avg_pool2d, relu6
from paddle.static import InputSpec

from recognition.engine import starter
from recognition.engine.conversion import OPSET

# (kernel, stride of the first block, number of blocks); widths and expansion are in the weights.
STAGES = ((3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4), (3, 1, 1))
EMBEDDER_SIZE, DETECTOR_SIZE = 224, 320  # pixels
STRIDE = 16  # pixels per cell of the detector's map
MEAN, STD = 127 / 255, 128 / 255  # as EfficientNet-Lite was trained; ImageNet's lose 3 points

# multiclass_nms3's attributes in its own order.
NMS = (
    0.05,  # lowest score
    400,  # candidates kept before: every cell, as ONNX has no such limit
    50,  # boxes kept after
    0.4,  # IoU; low, because the head tends to box parts of a large object once more
    True,  # boxes are left, top, right, bottom without the +1 of integer pixels
    1.0,  # the IoU does not adapt
    -1,  # no class is background
)


def convolution(
    weights: Mapping[str, np.ndarray], name: str, *, stride: int = 1, padding: Any = 0
) -> nn.Conv2D:
    """A convolution with the numbers of `name`; depthwise when its kernel has one input."""
    kernel = weights[f"{name}.weight"].astype(np.float32)
    width, inputs, size, _ = kernel.shape
    depthwise = inputs == 1
    layer = nn.Conv2D(
        width if depthwise else inputs,
        width,
        size,
        stride=stride,
        padding=padding,
        groups=width if depthwise else 1,
    )
    layer.weight.set_value(kernel)
    layer.bias.set_value(weights[f"{name}.bias"].astype(np.float32))
    return layer


def same_padding(kernel: int, stride: int) -> list[int]:
    """TensorFlow's SAME for even sizes: top, bottom, left, right. Symmetric costs accuracy."""
    half = kernel // 2
    return [half - 1, half] * 2 if stride == 2 else [half] * 4


class Block(nn.Layer):
    """MBConv without squeeze-and-excite."""

    def __init__(
        self, weights: Mapping[str, np.ndarray], name: str, kernel: int, stride: int
    ) -> None:
        super().__init__()
        widened = f"{name}.expand.weight" in weights
        self.expand = convolution(weights, f"{name}.expand") if widened else None
        self.depthwise = convolution(
            weights, f"{name}.depthwise", stride=stride, padding=same_padding(kernel, stride)
        )
        self.project = convolution(weights, f"{name}.project")
        if widened:
            inputs = weights[f"{name}.expand.weight"].shape[1]
        else:
            inputs = weights[f"{name}.depthwise.weight"].shape[0]
        self.residual = stride == 1 and inputs == weights[f"{name}.project.weight"].shape[0]

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        inside = relu6(self.expand(x)) if self.expand is not None else x
        out = self.project(relu6(self.depthwise(inside)))
        return x + out if self.residual else out


class Trunk(nn.Layer):
    """EfficientNet-Lite0 without its classifier."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.stem = convolution(weights, "stem", stride=2, padding=same_padding(3, 2))
        self.stages = nn.LayerList()
        number = 0
        for kernel, stride, count in STAGES:
            blocks = [
                Block(weights, f"blocks.{number + i}", kernel, stride if i == 0 else 1)
                for i in range(count)
            ]
            self.stages.append(nn.Sequential(*blocks))
            number += count
        self.head = convolution(weights, "head")

    def maps(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """The output of each stage; stages 3, 5 and 7 end at stride 8, 16 and 32."""
        x, outputs = relu6(self.stem(x)), []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs

    def pooled(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, 1280): what ImageNet's classifier would see."""
        return adaptive_avg_pool2d(relu6(self.head(self.maps(x)[-1])), 1).flatten(1)

    def fused(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, 472, H/16, W/16): strides 8, 16 and 32 on one grid, what the detector head sees."""
        maps = self.maps(x)
        _, width, rows, columns = maps[6].shape
        # Nearest x2 as reshape and tile: oneDNN and paddle2onnx fail on Paddle 3.3's interpolate.
        doubled = maps[6].reshape([-1, width, rows, 1, columns, 1]).tile([1, 1, 1, 2, 1, 2])
        doubled = doubled.reshape([-1, width, rows * 2, columns * 2])
        return paddle.concat([avg_pool2d(maps[2], 2), maps[4], doubled], axis=1)


class Head(nn.Layer):
    """Objectness logit and log distances left, top, right, bottom (in cells) of every cell."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.reduce = convolution(weights, "reduce")
        self.dw = nn.LayerList([convolution(weights, f"dw.{i}", padding=2) for i in range(3)])
        self.pw = nn.LayerList([convolution(weights, f"pw.{i}") for i in range(3)])
        self.out = convolution(weights, "out")

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = relu6(self.reduce(x))
        for i in range(len(self.dw)):
            x = x + relu6(self.pw[i](self.dw[i](x)))
        return self.out(x)


def boxes_of(out: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Head output -> logits (N, cells) and boxes (N, cells, 4) in pixels of the network's input."""
    _, _, rows, columns = out.shape
    y, x = np.mgrid[:rows, :columns].reshape(2, 1, -1).astype(np.float32) + 0.5
    flat = out.flatten(2)
    left, top, right, bottom = paddle.exp(flat[:, 1:].clip(-3.0, 3.5)).unbind(axis=1)
    x, y = paddle.to_tensor(x), paddle.to_tensor(y)
    return flat[:, 0], paddle.stack([x - left, y - top, x + right, y + bottom], axis=2) * STRIDE


class StarterDetector(nn.Layer):
    """PP-ShiTuV2_det's contract: image and scale_factor in, boxes in original pixels out."""

    def __init__(self, trunk: Trunk, head: Head) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(
        self, image: paddle.Tensor, scale_factor: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        logits, boxes = boxes_of(self.head(self.trunk.fused(image)))
        scale = scale_factor.flip(axis=[1]).tile([1, 2]).unsqueeze(1)  # (h, w) -> (w, h, w, h)
        scores = nn.functional.sigmoid(logits).unsqueeze(1)
        regions = None  # only asked for when boxes come from a region proposal network
        found, _, counts = paddle._C_ops.multiclass_nms3(
            boxes / scale,
            scores,
            regions,  # type: ignore[arg-type]
            *NMS,
        )
        return found, counts


class StarterEmbedder(nn.Layer):
    """PP-ShiTuV2_rec's contract: (N, 3, 224, 224) in, (N, 512) out, not yet of length 1."""

    def __init__(self, trunk: Trunk, mean: np.ndarray, basis: np.ndarray) -> None:
        super().__init__()
        self.trunk = trunk
        self.project = nn.Linear(*basis.shape)
        self.project.weight.set_value(basis)
        self.project.bias.set_value((-mean.astype(np.float64) @ basis).astype(np.float32))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.project(self.trunk.pooled(x))


def load_trunk(checkpoint: Path) -> tuple[Trunk, np.ndarray]:
    """The trunk, ready for inference, and the classifier's weight (1000, 1280)."""
    with checkpoint.open("rb") as file:
        state = starter.read_checkpoint(file)
    trunk = Trunk(starter.fold_batch_norm(state))
    trunk.eval()
    return trunk, state["_fc.weight"]


def export(checkpoint: Path, detector: Path, embedder: Path) -> None:
    """Write the files of both starter models, for Paddle and for ONNX Runtime."""
    trunk, classifier = load_trunk(checkpoint)
    with np.load(starter.HEAD) as head:
        finder = StarterDetector(trunk, Head(dict(head)))
    describer = StarterEmbedder(trunk, np.load(starter.MEAN), starter.projection(classifier))
    save(finder, detector, detector_inputs, DETECTOR_SETTINGS)
    save(describer, embedder, embedder_inputs, EMBEDDER_SETTINGS)


def detector_inputs(batch: int | None, size: int = DETECTOR_SIZE) -> list[InputSpec]:
    """Of PP-ShiTuV2_det's contract, with pictures of `size` pixels."""
    return [
        InputSpec([batch, 3, size, size], "float32", name="image"),
        InputSpec([batch, 2], "float32", name="scale_factor"),
    ]


def embedder_inputs(batch: int | None, size: int = EMBEDDER_SIZE) -> list[InputSpec]:
    """Of PP-ShiTuV2_rec's. Only the detector's NMS needs a fixed batch in ONNX."""
    return [InputSpec([None, 3, size, size], "float32", name="x")]


def save(network: nn.Layer, folder: Path, inputs: Any, settings: dict[str, Any]) -> None:
    """Write a network as PaddleX reads it: for Paddle, in ONNX, and with `settings`.

    `inputs` gives the InputSpecs for a batch size, None for any.
    """
    network.eval()
    for name, batch in (("onnx", 1), ("paddle", None)):
        prefix = folder / name / "inference"
        paddle.jit.save(network, str(prefix), input_spec=inputs(batch))
    onnx = folder / "inference.onnx"
    source = folder / "onnx" / "inference"
    paddle2onnx.export(f"{source}.json", f"{source}.pdiparams", str(onnx), opset_version=OPSET)
    if not onnx.is_file():  # paddle2onnx logs some failures and returns
        raise RuntimeError(f"paddle2onnx made no {onnx.name}")
    for file in ("inference.json", "inference.pdiparams"):
        (folder / "paddle" / file).rename(folder / file)
    for name in ("onnx", "paddle"):
        for left_over in (folder / name).iterdir():
            left_over.unlink()
        (folder / name).rmdir()
    text = yaml.safe_dump(settings, sort_keys=False)
    (folder / "inference.yml").write_text(text, encoding="utf-8")


DETECTOR_SETTINGS: dict[str, Any] = {
    "Global": {"model_name": "PP-ShiTuV2_det"},
    "arch": "PicoDet",
    "draw_threshold": 0.5,
    "Preprocess": [
        {
            "type": "Resize",
            "target_size": [DETECTOR_SIZE] * 2,
            "keep_ratio": False,
            "interp": 1,
        },
        {"type": "NormalizeImage", "mean": [MEAN] * 3, "std": [STD] * 3, "is_scale": True},
        {"type": "Permute"},
    ],
    "label_list": ["foreground"],
}
EMBEDDER_SETTINGS: dict[str, Any] = {
    "Global": {"model_name": "PP-ShiTuV2_rec"},
    "PreProcess": {
        "transform_ops": [
            {
                "ResizeImage": {
                    "size": [EMBEDDER_SIZE] * 2,
                    "return_numpy": False,
                    "interpolation": "bilinear",
                    "backend": "cv2",
                }
            },
            {
                "NormalizeImage": {
                    "scale": 1 / 255,
                    "mean": [MEAN] * 3,
                    "std": [STD] * 3,
                    "order": "hwc",
                }
            },
            {"ToCHWImage": None},
        ]
    },
    "PostProcess": {"NormalizeFeatures": None},
}
