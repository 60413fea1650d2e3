"""Networks with the structure of PP-ShiTuV2's and random weights, for figures of speed alone.

    python -m bench.archexact            # builds them into var/bench/archexact, once

The structure comes from the packages PaddleClas and PaddleDetection (Apache-2.0), installed without
what they depend on into a folder of their own; the project never needs them. Features:
PPLCNetV2_base_ShiTu (512 numbers, stride 1 in the last stage, re-parameterised) and BNNeck.
Detector: LCNet x2.5, CSPPAN with 128 channels and four levels, PicoHead with four shared
convolutions, boxes from distributions over 0..7, NMS inside, 640 pixels.

Three things differ from what those packages would export. Nearest up-sampling is written as reshape
and tile (Paddle 3.3's interpolate breaks oneDNN and paddle2onnx). Batch norms have the statistics
of a few rendered pictures, so that activations neither die out nor overflow, and the class logits
are spread out, so that boxes have different scores. What is detected stays arbitrary: who measures
with them settles how many objects a picture has (`detThreshold`, see bench/serving.py).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from recognition.engine.store import ModelStore

PACKAGES = ("paddleclas==2.6.0", "paddledet==2.6.0")
DETECTOR, EMBEDDER = "archexact_det", "archexact_rec"
FOLDER = Path(__file__).resolve().parent.parent / "var" / "bench" / "archexact"
SEED = 7

# Millions; the official detector's file has the size that this gives, the feature model's 7 % less.
PARAMETERS = {DETECTOR: 7.09, EMBEDDER: 4.58}
DETECTOR_SIZE, EMBEDDER_SIZE = 640, 224
STRIDES, REG_MAX, CHANNELS = (8, 16, 32, 64), 7, 128
CANDIDATES = 1000  # of each level, before NMS
NMS = (0.025, 1000, 100, 0.6, True, 1.0, -1)  # as PicoDet's: see starter_network.NMS
CANDIDATE, SUREST = -3.66, 2.0  # class logits of a level's surest hundredth, and of its best cell
BOX_SPREAD = 10.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build() -> Path:
    """The models directory in which both are, built there if they are not."""
    store = ModelStore(FOLDER / "models")
    if {DETECTOR, EMBEDDER} <= set(store.names()):
        return store.root
    packages = FOLDER / "packages"
    if not packages.is_dir():
        _install(packages)
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: it loads paddle, and modules with stubs in their places.
        subprocess.run(
            [sys.executable, "-m", "bench.archexact", "--export", folder, str(packages)],
            check=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
        for name, role in ((DETECTOR, "detector"), (EMBEDDER, "embedder")):
            store.add_directory(name, role, Path(folder, name))
    return store.root


def _install(packages: Path) -> None:
    packages.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=packages.parent) as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*command, "--target", f"{folder}/new", *PACKAGES], check=True)
        Path(folder, "new").rename(packages)


class _WithoutInit:
    """Finds packages as if their `__init__`, which import too much, were empty."""

    def __init__(self, packages: Path) -> None:
        self.roots = {"ppcls": packages / "paddleclas", "ppdet": packages}

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        root = self.roots.get(name.partition(".")[0])
        if root is None or not (directory := root / name.replace(".", "/")).is_dir():
            return None
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(directory)]
        return spec


# Modules that only training needs, and what is imported from them.
_FAKES = {
    "ppcls.utils.save_load": ("load_dygraph_pretrain", "load_dygraph_pretrain_from_url"),
}


def _modules(packages: Path) -> None:
    sys.meta_path.insert(0, _WithoutInit(packages))  # type: ignore[arg-type]
    for name, things in _FAKES.items():
        sys.modules[name] = types.ModuleType(name)
        for thing in things:
            setattr(sys.modules[name], thing, None)


def export(target: Path, packages: Path) -> None:
    """Write both networks as PaddleX reads them, for Paddle and in ONNX."""
    import paddle

    from recognition.engine import starter_network

    _modules(packages)
    paddle.seed(SEED)
    for name, network, inputs in (
        (EMBEDDER, _embedder(), starter_network.embedder_inputs),
        (DETECTOR, _detector(), starter_network.detector_inputs),
    ):
        size = EMBEDDER_SIZE if name == EMBEDDER else DETECTOR_SIZE
        starter_network.save(
            network, target / name, lambda batch, i=inputs, s=size: i(batch, s), _settings(name)
        )
        weights = (target / name / "inference.pdiparams").stat().st_size / 4e6
        print(f"{name}: {weights:.2f} million numbers, {PARAMETERS[name]} expected")
        assert abs(weights / PARAMETERS[name] - 1) < 0.03


def _embedder() -> Any:
    import paddle
    from paddle import nn

    backbones = importlib.import_module("ppcls.arch.backbone.variant_models.pp_lcnetv2_variant")
    gears = importlib.import_module("ppcls.arch.gears.bnneck")

    class Embedder(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbones.PPLCNetV2_base_ShiTu(class_expand=512)
            self.backbone.stop_after("flatten")
            self.neck = gears.BNNeck(512)

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return self.neck(self.backbone(x))

    network = Embedder()
    _calibrate(network, _photos(EMBEDDER_SIZE))
    return network


def _detector() -> Any:
    import paddle
    from paddle import nn

    lcnet = importlib.import_module("ppdet.modeling.backbones.lcnet")
    necks = importlib.import_module("ppdet.modeling.necks.csp_pan")
    heads = importlib.import_module("ppdet.modeling.heads.pico_head")

    class Detector(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = lcnet.LCNet(scale=2.5, feature_maps=[3, 4, 5])
            widths = [shape.channels for shape in self.backbone.out_shape]
            self.neck = necks.CSPPAN(widths, CHANNELS, num_features=4)
            self.head = heads.PicoHead(
                conv_feat=heads.PicoFeat(
                    CHANNELS, CHANNELS, num_fpn_stride=4, num_convs=4, share_cls_reg=True
                ),
                num_classes=1,
                fpn_stride=list(STRIDES),
                loss_class=types.SimpleNamespace(use_sigmoid=True),
                loss_dfl=None,
                loss_bbox=None,
                assigner=None,
                reg_max=REG_MAX,
                feat_in_chan=CHANNELS,
                cell_offset=0.5,
            )
            self.neck.upsample = _Twice()

        def maps(self, image: paddle.Tensor) -> list[paddle.Tensor]:
            """For each level (N, 1 + 4 x 8, H, W): logit, and a distribution for each side."""
            features = self.neck(self.backbone({"image": image}))
            return [
                self.head.head_cls_list[level](self.head.conv_feat(map_, level)[0])
                for level, map_ in enumerate(features)
            ]

        def forward(
            self, image: paddle.Tensor, scale_factor: paddle.Tensor
        ) -> tuple[paddle.Tensor, paddle.Tensor]:
            maps = self.maps(image)
            found = [_decoded(maps[level], stride) for level, stride in enumerate(STRIDES)]
            scores = paddle.concat([scores for scores, _ in found], axis=1)
            boxes = paddle.concat([boxes for _, boxes in found], axis=1)
            scale = scale_factor.flip(axis=[1]).tile([1, 2]).unsqueeze(1)
            kept, _, counts = paddle._C_ops.multiclass_nms3(
                boxes / scale, scores.unsqueeze(1), None, *NMS
            )
            return kept, counts

    network = Detector()
    photos = _photos(DETECTOR_SIZE)
    _calibrate(network, photos)
    _spread(network, photos)
    return network


def _decoded(levels: Any, stride: int) -> tuple[Any, Any]:
    """Scores (N, n) and boxes (N, n, 4) in pixels of a level, of its best CANDIDATES cells."""
    import paddle

    _, _, rows, columns = levels.shape
    flat = levels.flatten(2).transpose([0, 2, 1])
    scores = paddle.nn.functional.sigmoid(flat[:, :, 0])
    sides = flat[:, :, 1:].reshape([-1, rows * columns, 4, REG_MAX + 1])
    bins = paddle.arange(REG_MAX + 1, dtype="float32")
    far = (paddle.nn.functional.softmax(sides, axis=-1) * bins).sum(-1) * stride
    y, x = paddle.meshgrid(
        (paddle.arange(rows, dtype="float32") + 0.5) * stride,
        (paddle.arange(columns, dtype="float32") + 0.5) * stride,
    )
    centre = paddle.stack([x.flatten(), y.flatten()], axis=-1)
    boxes = paddle.concat([centre - far[:, :, :2], centre + far[:, :, 2:]], axis=-1)
    boxes = boxes.clip(0.0, float(DETECTOR_SIZE))
    if rows * columns > CANDIDATES:
        scores, best = paddle.topk(scores, CANDIDATES, axis=1)
        boxes = paddle.take_along_axis(boxes, best.unsqueeze(-1).tile([1, 1, 4]), axis=1)
    return scores, boxes


def _Twice() -> Any:  # noqa: N802  (a layer, once paddle is there)
    from paddle import nn

    class Twice(nn.Layer):
        """Nearest neighbours, twice as large; oneDNN and paddle2onnx fail on Paddle's own."""

        def forward(self, x: Any) -> Any:
            _, width, rows, columns = x.shape
            x = x.reshape([-1, width, rows, 1, columns, 1]).tile([1, 1, 1, 2, 1, 2])
            return x.reshape([-1, width, rows * 2, columns * 2])

    return Twice()


def _photos(size: int) -> Any:
    """A few photos as the networks see them: (8, 3, size, size)."""
    import cv2
    import numpy as np
    import paddle

    from recognition.demo import render_demo

    shown = []
    for scene in render_demo(FOLDER / "demo").scenes[:8]:
        picture = cv2.resize(cv2.imread(str(scene.path))[:, :, ::-1], (640, 480))
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
        shown.append(((picture / 255.0 - MEAN) / STD).transpose(2, 0, 1))
    return paddle.to_tensor(np.stack(shown).astype(np.float32))


def _calibrate(network: Any, photos: Any) -> None:
    """Give the batch norms the statistics of these photos; then ready for inference."""
    import paddle

    ask = getattr(network, "maps", network)
    for layer in network.sublayers():
        if hasattr(layer, "_momentum"):
            layer._momentum = 0.0
    with paddle.no_grad():
        network.train()
        ask(photos)
        network.eval()
        ask(photos)  # re-parameterised blocks put themselves together here


def _spread(network: Any, photos: Any) -> None:
    """One cell of a hundred a candidate for NMS, as about in a trained detector; varied boxes."""
    import numpy as np
    import paddle

    with paddle.no_grad():
        for head, map_ in zip(network.head.head_cls_list, network.maps(photos), strict=True):
            logits = map_[:, 0].flatten(1).numpy()
            surest = np.quantile(logits, 0.99, axis=1).min()  # of the emptiest photo
            weight, bias = head.weight.clone(), head.bias.clone()
            factor = (SUREST - CANDIDATE) / float(logits.max() - surest)
            weight[0] = weight[0] * factor
            bias[0] = CANDIDATE - (float(surest) - float(bias[0])) * factor
            weight[1:] = weight[1:] * BOX_SPREAD
            bias[1:] = 0.0
            head.weight.set_value(weight)
            head.bias.set_value(bias)


def _settings(name: str) -> dict[str, Any]:
    """`inference.yml` as the official models have it."""
    normalise = {"mean": list(MEAN), "std": list(STD)}
    if name == DETECTOR:
        size = [DETECTOR_SIZE] * 2
        return {
            "Global": {"model_name": "PP-ShiTuV2_det"},
            "arch": "PicoDet",
            "draw_threshold": 0.5,
            "Preprocess": [
                {"type": "Resize", "target_size": size, "keep_ratio": False, "interp": 2},
                {"type": "NormalizeImage", "is_scale": True, **normalise},
                {"type": "Permute"},
            ],
            "label_list": ["foreground"],
        }
    return {
        "Global": {"model_name": "PP-ShiTuV2_rec"},
        "PreProcess": {
            "transform_ops": [
                {"ResizeImage": {"size": [EMBEDDER_SIZE] * 2}},
                {"NormalizeImage": {"scale": 1 / 255, "order": "hwc", **normalise}},
                {"ToCHWImage": None},
            ]
        },
        "PostProcess": {"NormalizeFeatures": None},
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--export"]:
        export(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(build())
