"""Folders in the hub's layout: those of timm and transformers, and ours loaded by them."""

import json

import numpy as np
import pytest
import timm
import torch
import transformers
from huggingface_hub import ModelCard
from PIL import Image
from torchvision.transforms import InterpolationMode

import keras_resnet  # isort: skip (torch comes first)
from comparison import pillow_13
from randomised import randomise
from small_networks import trained

from keras_resnet import weights

pytestmark = pytest.mark.parity
IMAGES = np.random.default_rng(0).normal(size=(2, 96, 64, 3)).astype(np.float32)


def answers(theirs):
    with torch.no_grad():
        found = theirs.eval()(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2)))
    return getattr(found, "logits", found).numpy()


def check(ours, expected):
    error = np.abs(ours.predict_on_batch(IMAGES) - expected).max()
    assert error <= 1e-5 * np.abs(expected).max()


USED = keras_resnet.Preprocessing(
    236, 224, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), False, "bicubic", "border"
)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_a_saved_folder(name, tmp_path):
    """Outputs of timm and transformers equal those of the network; timm prepares images equally."""
    model = trained(keras_resnet.create(name, classes=3, classifier_activation=None))
    folder = weights.save_hub(
        model,
        tmp_path / "mine",
        preprocessing=USED,
        class_names=["a", "b", "ü"],
        metrics={"accuracy": 0.912},
        data="500 photographs",
        recipe={"epochs": 3},
    )
    expected = model.predict_on_batch(IMAGES)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True)
    np.testing.assert_allclose(answers(theirs), expected, atol=1e-5 * np.abs(expected).max())
    said = timm.data.resolve_model_data_config(theirs)
    assert tuple(said["input_size"]) == (3, 224, 224) and said["interpolation"] == "bicubic"
    assert (tuple(said["mean"]), tuple(said["std"])) == (USED.mean, USED.std)
    assert said["crop_mode"] == "border"
    resizing = timm.data.create_transform(**said, is_training=False).transforms[0]
    assert resizing.size == (236, 236) and resizing.interpolation == InterpolationMode.BICUBIC
    other = transformers.AutoModelForImageClassification.from_pretrained(folder)
    np.testing.assert_allclose(answers(other), expected, atol=1e-5 * np.abs(expected).max())
    assert other.config.id2label == {0: "a", 1: "b", 2: "ü"}
    card = ModelCard.load(folder / "README.md")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.912)
    assert result.dataset_name == "500 photographs" and card.data.library_name == "timm"
    network = keras_resnet.trained.open_network(weights=folder)
    assert network.preprocessing == USED and network.class_names == ("a", "b", "ü")
    assert keras_resnet.create(name, weights=folder, classes=3).preprocessing == USED


def test_a_saved_backbone(tmp_path):
    options = {"include_top": False, "pooling": "avg", "input_shape": (None, None, 1)}
    model = trained(keras_resnet.ResNet18(**options))
    folder = weights.save_hub(model, tmp_path / "mine")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        found = theirs(torch.from_numpy(IMAGES[..., :1].transpose(0, 3, 1, 2))).numpy()
    expected = model.predict_on_batch(IMAGES[..., :1])
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "resnet18.tv_in1k", "resnet101.a1h_in1k"])
def test_a_folder_of_timm(name, tmp_path):
    """Written by timm; preprocessing is compared with timm's resolve_model_data_config."""
    theirs = randomise(timm.create_model(name, num_classes=7))
    timm.models.save_for_hf(theirs, tmp_path, model_config={"num_classes": 7})
    ours = keras_resnet.create(
        name.partition(".")[0], weights=tmp_path, classes=7, classifier_activation=None
    )
    check(ours, answers(theirs))
    said = timm.data.resolve_model_data_config(theirs)
    used = ours.preprocessing
    assert (used.mean, used.std) == (said["mean"], said["std"])
    assert (used.interpolation, used.crop_mode) == (said["interpolation"], said["crop_mode"])
    assert (3, *used.sides) == said["input_size"]
    resizing = timm.data.create_transform(**said, is_training=False).transforms[0]
    assert resizing.size == used.resize


@pillow_13
@pytest.mark.real_data
@pytest.mark.parametrize("side, share", [(224, 0.875), (288, 0.95), (384, None)])
def test_a_folder_of_transformers(side, share, tmp_path, real_data):
    """Written by transformers; images are compared with those of its own processor."""
    config = transformers.ResNetConfig(
        depths=[2, 2, 2, 2],
        hidden_sizes=[64, 128, 256, 512],
        layer_type="basic",
        id2label={0: "a", 1: "b", 2: "c"},
        label2id={"a": 0, "b": 1, "c": 2},
    )
    theirs = randomise(transformers.ResNetForImageClassification(config))
    theirs.save_pretrained(tmp_path)
    options = {"size": {"shortest_edge": side}} | ({"crop_pct": share} if share else {})
    processor = transformers.ConvNextImageProcessorPil(**options)
    processor.save_pretrained(tmp_path)
    network = keras_resnet.trained.open_network(weights=tmp_path)
    assert network.class_names == ("a", "b", "c")
    ours = keras_resnet.ResNet18(weights=tmp_path, classes=3, classifier_activation=None)
    check(ours, answers(theirs))
    used = network.preprocessing
    compared = 0
    for file in sorted((real_data / "imagenet").glob("*.JPEG")):
        image = Image.open(file).convert("RGB")
        spare = [length * used.resize // min(image.size) - used.crop for length in image.size]
        if used.crop_mode == "center" and any(side % 4 == 3 for side in spare):
            continue  # transformers rounds half a pixel down, torchvision and timm to even
        expected = processor(image, return_tensors="np")["pixel_values"]
        expected = expected[0].transpose(1, 2, 0) * used.std + used.mean
        found = used(file.read_bytes()).numpy() * used.std + used.mean
        assert np.abs(found - expected).max() <= 1e-5, file
        compared += 1
        if compared == 10:
            return


def test_folders_that_timm_does_not_support(tmp_path):
    """Such a folder is for this package only, and other libraries reject it."""
    model = trained(keras_resnet.ResNet50(classes=3, version="v1"))
    folder = weights.save_hub(model, tmp_path / "mine", preprocessing=USED)
    config = json.loads((folder / "config.json").read_text())
    assert not config.keys() & {"architecture", "model_type", "pretrained_cfg"}
    with pytest.raises(Exception, match=r"architecture|model_type"):
        timm.create_model(f"local-dir:{folder}", pretrained=True)
    with pytest.raises(ValueError, match="model_type"):
        transformers.AutoModelForImageClassification.from_pretrained(folder)
    network = keras_resnet.trained.open_network(weights=folder)
    assert network.preprocessing == USED
    np.testing.assert_allclose(
        network.model.predict_on_batch(IMAGES), model.predict_on_batch(IMAGES), atol=1e-6
    )
