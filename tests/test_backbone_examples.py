"""The examples of object detection and segmentation on drawn scenes."""

import importlib
import json
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_resnet
from keras_resnet import features
from keras_resnet.drawn_flowers import KINDS, cut_out

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module", autouse=True)
def examples():
    """Makes the examples importable by name, as they import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield
        for name in ("detection_backbone", "segmentation", "drawn_scenes"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def scenes_of(examples):
    return importlib.import_module("drawn_scenes")


@pytest.fixture(scope="module")
def detection(examples):
    return importlib.import_module("detection_backbone")


@pytest.fixture(scope="module")
def segmentation(examples):
    return importlib.import_module("segmentation")


def backbone_of(size):
    return features.pyramid("resnet18", ("C3", "C4", "C5"), input_shape=(size, size, 3))


def colours(file):
    with Image.open(file) as image:
        return len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0))


# --- the scenes


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_what_hides_the_background(kind, scenes_of):
    """The opacity of a pixel is 1 - (its value on white - its value on black) / 255."""
    flower = cut_out(kind, "mask", 48)
    assert max(flower.size) == 48
    on = [Image.new("RGB", flower.size, colour) for colour in ("black", "white")]
    for picture in on:
        picture.paste(flower, mask=flower)
    black, white = (np.asarray(picture).astype(float) for picture in on)
    covered = 1 - (white - black).mean(axis=2) / 255
    mask = scenes_of.flower_mask(flower)
    assert mask[covered > 0.21].all()
    if kind == "rose":  # no gaps between its petals
        assert (mask == (covered > 0.2)).mean() > 0.97
    if kind == "dandelion":  # its head, without the rays
        assert mask.mean() > 0.6


def test_boxes_fit_their_masks(scenes_of):
    kinds, counts = set(), set()
    for scene in scenes_of.draw_scenes(30, 64, "boxes"):
        assert (scene.image.shape, scene.image.dtype) == ((64, 64, 3), np.uint8)
        left = scene.mask.copy()
        for label, box in zip(scene.labels, scene.boxes, strict=True):
            x1, y1, x2, y2 = box.astype(int)
            assert 13 <= max(x2 - x1, y2 - y1) <= 42  # 0.65 of 64 pixels
            # Every edge of the box touches the flower, in its first or last row or column.
            own = scene.mask[y1:y2, x1:x2] == label + 1
            assert own[0].any() and own[-1].any() and own[:, 0].any() and own[:, -1].any()
            left[y1:y2, x1:x2] = 0
        assert not left.any()
        for label in set(scene.labels):  # one of its kind: its box is the extent of the mask
            if (scene.labels == label).sum() == 1:
                y, x = np.nonzero(scene.mask == label + 1)
                (box,) = scene.boxes[scene.labels == label]
                assert [x.min(), y.min(), x.max() + 1, y.max() + 1] == box.tolist()
        kinds |= set(scene.labels.tolist())
        counts.add(len(scene.labels))
    assert (kinds, counts) == ({0, 1, 2, 3, 4}, {1, 2, 3})


def test_equal_keys_draw_equal_scenes(scenes_of):
    one, same, other = (scenes_of.draw_scene(64, key) for key in ("a", "a", "b"))
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.mask, same.mask)
    assert (one.image != other.image).any()


# --- the detector


def test_iou_counts_pixels(detection):
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 20, (60, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1) + 1], axis=1).astype(np.float32)

    def pixels(box):
        grid = np.zeros((21, 21), bool)
        x1, y1, x2, y2 = box.astype(int)
        grid[y1:y2, x1:x2] = True
        return grid

    expected = [
        (pixels(boxes[0]) & pixels(box)).sum() / (pixels(boxes[0]) | pixels(box)).sum()
        for box in boxes
    ]
    np.testing.assert_allclose(detection.iou(boxes[0], boxes), expected, rtol=1e-6)
    assert expected[0] == 1 and min(expected) == 0


def test_levels_of_the_feature_pyramid(detection):
    """For 352 pixels, P3 to P5 are 44, 22 and 11 wide; each level adds the upsampled one above."""
    levels = detection.feature_pyramid(backbone_of(352).output)
    assert [level.shape[1:3] for level in levels] == [(44, 44), (22, 22), (11, 11)]
    assert len({level.shape[3] for level in levels}) == 1

    rng = np.random.default_rng(0)
    maps = {
        f"C{5 - n}": rng.normal(size=(1, 2 << n, 3 << n, 1)).astype("float32") for n in range(3)
    }
    inputs = {name: keras.Input(value.shape[1:], name=name) for name, value in maps.items()}
    model = keras.Model(inputs, detection.feature_pyramid(inputs))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):  # 1x1 ones copy, 3x3 ones are identities
            kernel = np.zeros(layer.kernel.shape, "float32")
            middle = kernel.shape[0] // 2
            kernel[middle, middle] = 1 if middle == 0 else np.eye(kernel.shape[2])
            layer.kernel.assign(kernel)
    p5 = maps["C5"][0, ..., 0]
    p4 = maps["C4"][0, ..., 0] + np.kron(p5, np.ones((2, 2)))
    p3 = maps["C3"][0, ..., 0] + np.kron(p4, np.ones((2, 2)))
    for level, expected in zip(model(maps), (p3, p4, p5), strict=True):
        level = keras.ops.convert_to_numpy(level)[0]
        np.testing.assert_allclose(level[..., 0], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(level[..., 0], level[..., -1])


def test_outputs_and_their_positions(detection):
    backbone = backbone_of(64)
    model = detection.detector(backbone)
    assert {name: output.shape[1:] for name, output in model.output.items()} == {
        "classes": (8 * 8 + 4 * 4 + 2 * 2, 5),
        "boxes": (84, 4),
    }
    centres, strides = detection.positions(backbone)
    assert strides.tolist() == [8] * 64 + [16] * 16 + [32] * 4
    assert centres[[0, 1, 8, 63, 64, 83]].tolist() == [
        *([4, 4], [12, 4], [4, 12], [60, 60]),
        *([8, 8], [48, 48]),
    ]
    # Initial scores are near 0.01, so that the loss of the background does not dominate.
    outputs = model(np.zeros((1, 64, 64, 3), "float32"))
    scores = keras.ops.convert_to_numpy(keras.ops.sigmoid(outputs["classes"]))
    np.testing.assert_allclose(scores, 0.01, atol=0.005)


def scene(scenes_of, boxes, labels, size=64):
    image = np.zeros((size, size, 3), np.uint8)
    return scenes_of.Scene(image, np.array(labels), np.array(boxes, np.float32), image[..., 0])


def test_targets_of_one_flower(detection, scenes_of):
    """A flower of 24x16 pixels with stride 8: the 3x2 positions in it, and their distances."""
    places = detection.positions(backbone_of(64))
    wanted = detection.targets(scene(scenes_of, [[8, 16, 32, 32]], [3]), *places)
    rows = wanted["classes"].argmax(axis=1)[wanted["classes"].any(axis=1)]
    assert rows.tolist() == [3] * 6
    assert places[0][wanted["classes"].any(axis=1)].tolist() == [
        *([12, 20], [20, 20], [28, 20]),
        *([12, 28], [20, 28], [28, 28]),
    ]
    first = wanted["boxes"][wanted["classes"].any(axis=1)][0]
    assert first.tolist() == [0.5, 0.5, 2.5, 1.5]  # 4, 4, 20 and 12 pixels, divided by the stride 8
    assert not wanted["boxes"][~wanted["classes"].any(axis=1)].any()


@pytest.mark.parametrize(
    "side, stride", [(24, 8), (40, 8), (41, 16), (80, 16), (81, 32), (128, 32)]
)
def test_a_flower_belongs_to_one_level(side, stride, detection, scenes_of):
    centres, strides = detection.positions(backbone_of(128))
    wanted = detection.targets(scene(scenes_of, [[0, 0, side, 20]], [0], 128), centres, strides)
    assert set(strides[wanted["classes"].any(axis=1)]) == {stride}


class Told:
    """A stand-in for a model with given outputs."""

    def __init__(self, outputs):
        self.outputs = outputs

    def predict(self, images, batch_size, verbose):
        return self.outputs


def test_decoding_targets_returns_the_boxes(detection, scenes_of):
    """Boxes survive encoding and decoding; several positions of one flower give a single box."""
    scenes = scenes_of.draw_scenes(20, 64, "found")
    places = detection.positions(backbone_of(64))
    each = [detection.targets(scene, *places) for scene in scenes]
    outputs = {name: np.stack([one[name] for one in each]) for name in each[0]}
    outputs["classes"] = outputs["classes"] * 20 - 10  # logits
    found = detection.find(Told(outputs), np.stack([scene.image for scene in scenes]), places)
    for scene_, row in zip(scenes, found, strict=True):
        expected = sorted(zip(scene_.labels.tolist(), scene_.boxes.tolist(), strict=True))
        assert sorted((label, box.round(3).tolist()) for _, label, box in row) == expected
    assert [detection.average_precision(found, scenes, label) for label in range(5)] == [1] * 5


def test_average_precision_by_hand(detection, scenes_of):
    """Three flowers; right, wrong, right: precision 1 up to recall 1/3, 2/3 up to recall 2/3."""
    boxes = np.array([[0, 0, 20, 20], [30, 30, 50, 50], [0, 30, 20, 50]], np.float32)
    scenes = [scene(scenes_of, boxes, [1, 1, 1]), scene(scenes_of, boxes[:1], [2])]
    found = [
        [(0.9, 1, boxes[0]), (0.8, 1, boxes[0] + 2), (0.7, 1, boxes[1] + [0, 0, 0, 5])],
        [(0.1, 2, boxes[0] + 15)],
    ]
    assert detection.average_precision(found, scenes, 1) == pytest.approx((1 + 2 / 3) / 3)
    assert detection.average_precision(found, scenes, 2) == 0


# --- the segmentation


def test_class_ious(segmentation):
    masks = np.array([[0, 0, 1, 1], [0, 2, 2, 2]])
    predicted = np.array([[0, 1, 1, 1], [0, 2, 0, 0]])
    ious = segmentation.class_ious(masks, predicted)
    np.testing.assert_allclose(ious, [2 / 5, 2 / 3, 1 / 3, np.nan, np.nan, np.nan])

    rng = np.random.default_rng(0)
    masks, predicted = rng.integers(0, 6, (2, 3, 16, 16))
    metric = keras.metrics.MeanIoU(6)
    metric.update_state(masks, predicted)
    expected = float(metric.result())
    assert segmentation.class_ious(masks, predicted).mean() == pytest.approx(expected, rel=1e-5)


def test_the_segmenter_sees_a_map_8_times_smaller(segmentation):
    model = segmentation.segmenter(64)
    assert model.get_layer("layer4.1").output.shape == (None, 8, 8, 512)
    assert model.output.shape == (None, 64, 64, 6)
    dilations = {layer.dilation_rate for layer in model.layers if hasattr(layer, "dilation_rate")}
    assert {(1, 1), *((rate, rate) for rate in segmentation.RATES)} <= dilations


# --- the programs

LOADED = """
import keras, keras_resnet, numpy
outputs = {}
for name in ("detector", "segmenter"):
    found = keras.models.load_model(f"{name}.keras")(numpy.load("images.npy"))
    outputs |= found if isinstance(found, dict) else {"mask": found}
numpy.savez("outputs.npz", **{name: keras.ops.convert_to_numpy(x) for name, x in outputs.items()})
"""


def modules_of(config):
    """Yields the modules in a model's config, which loading would import."""
    if isinstance(config, dict):
        yield from [config["module"]] if isinstance(config.get("module"), str) else []
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from modules_of(part)


def test_files_name_nothing_of_the_examples(detection, segmentation, tmp_path):
    for model in (detection.detector(backbone_of(64)), segmentation.segmenter(64)):
        model.save(tmp_path / "m.keras")
        with zipfile.ZipFile(tmp_path / "m.keras") as archive:
            found = set(modules_of(json.loads(archive.read("config.json"))))
        assert {name.split(".")[0] for name in found} == {"keras", "keras_resnet"}


@pytest.mark.slow
def test_models_load_where_the_examples_are_not(
    detection, segmentation, scenes_of, run_python, tmp_path
):
    scenes = scenes_of.draw_scenes(4, 64, "save")
    images = np.stack([scene.image for scene in scenes])
    backbone = backbone_of(64)
    detector, segmenter = detection.detector(backbone), segmentation.segmenter(64)
    detection.train(detector, scenes, detection.positions(backbone), 1)
    segmentation.train(segmenter, scenes, 1)
    expected = {**detector(images), "mask": segmenter(images)}
    detector.save(tmp_path / "detector.keras")
    segmenter.save(tmp_path / "segmenter.keras")
    np.save(tmp_path / "images.npy", images)
    done = run_python("-c", LOADED)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "outputs.npz") as outputs:
        assert set(outputs) == set(expected)
        for key, value in expected.items():
            value = keras.ops.convert_to_numpy(value)
            np.testing.assert_allclose(outputs[key], value, rtol=1e-4, atol=1e-5)


def losses(text, what):
    return [
        float(line.split(what)[1].split()[0].rstrip(","))
        for line in text.splitlines()
        if what in line
    ]


@pytest.mark.slow
def test_detection(detection, tmp_path, capsys):
    detection.main(images=6, epochs=2, image_size=64, output=tmp_path / "found.png")
    printed = capsys.readouterr().out
    assert len(losses(printed, "of the classes ")) == 2
    assert len(losses(printed, "of the boxes ")) == 2
    assert 0 <= float(printed.split("Mean average precision ")[1].split()[0].rstrip(".")) <= 1
    assert colours(tmp_path / "found.png") > 1000
    assert [file.name for file in tmp_path.iterdir()] == ["found.png"]


@pytest.mark.slow
def test_segmentation_from_weights(run_python, tmp_path):
    backbone = keras_resnet.ResNet18(classes=7)
    keras_resnet.weights.save(backbone, tmp_path / "resnet18.pth")
    done = run_python(
        *(EXAMPLES / "segmentation.py", "--images", 6, "--epochs", 2),
        *("--image-size", 64, "--weights", "resnet18.pth"),
    )
    assert done.returncode == 0, done.stderr
    assert len(losses(done.stdout, "loss ")) == 2
    mean, nothing = (
        float(done.stdout.split(text)[1].split()[0].rstrip(".)"))
        for text in ("Mean IoU ", "background everywhere: ")
    )
    assert 0 <= mean <= 1 and 0.1 < nothing < 1 / 6
    assert colours(tmp_path / "segmentation.png") > 1000


@pytest.mark.parametrize("name", ["detection", "segmentation"])
@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"image_size": 100}, "multiple of"),
        ({"image_size": 32}, "64 or more"),
        ({"weights": Path("none.pth")}, "none.pth"),
    ],
)
def test_errors_are_one_line(name, arguments, said, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        request.getfixturevalue(name).main(**arguments)
    message = ended.value.code  # printed by Python, which exits with status 1
    assert said in message and message.startswith("Error: ") and "\n" not in message
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_flowers_are_found(run_python, tmp_path):
    done = run_python(EXAMPLES / "detection_backbone.py", timeout=1800)
    assert done.returncode == 0, done.stderr
    for what in ("of the classes ", "of the boxes "):
        values = losses(done.stdout, what)
        assert values[-1] < 0.5 * values[0]
    assert float(done.stdout.split("Mean average precision ")[1].split()[0].rstrip(".")) > 0.7


@pytest.mark.slow
def test_flowers_are_segmented(run_python, tmp_path):
    done = run_python(EXAMPLES / "segmentation.py", timeout=1800)
    assert done.returncode == 0, done.stderr
    values = losses(done.stdout, "loss ")
    assert values[-1] < 0.5 * values[0]
    assert float(done.stdout.split("Mean IoU ")[1].split()[0]) > 0.45
