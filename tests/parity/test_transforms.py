"""The transforms compared with torchvision's, on photographs and on images of unusual shapes."""

import io
import math

import numpy as np
import pytest
import timm.data
import torch
import torchvision
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional, v2

import tensorflow as tf  # isort: skip (torch comes first)
import keras_resnet  # isort: skip
from comparison import pillow_13
from oracles import compared
from small_networks import small

from keras_resnet.data.augmentation import crops, mixing, operations, policies
from keras_resnet.data.images import list_images

pytestmark = pytest.mark.parity

RANGES = {
    "RandAugment": policies.RAND,
    "TrivialAugmentWide": policies.WIDE,
    "AugMix": policies.AUGMIX,
}
THEIR_NAMES = {
    **{"shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX"},
    **{"translate_y": "TranslateY", "saturation": "Color", "autocontrast": "AutoContrast"},
}


def torchvisions(image, resize, crop):
    chain = transforms.Compose(
        [transforms.Resize(resize), transforms.CenterCrop(crop), transforms.PILToTensor()]
    )
    return chain(image.convert("RGB")).permute(1, 2, 0).numpy().astype(int)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.real_data
@pytest.mark.parametrize("resize", [256, 232])
def test_evaluation_on_photographs(real_data, resize):
    preprocessing = keras_resnet.Preprocessing(resize, 224)
    pixels = tf.function(preprocessing.pixels, input_signature=[tf.TensorSpec((), tf.string)])
    files = sorted((real_data / "imagenet").glob("*.JPEG"))
    assert len(files) == 100
    for file in files:
        expected = torchvisions(Image.open(file), resize, 224)
        difference = np.abs(pixels(file.read_bytes()).numpy() - expected)
        assert difference.max() <= 1, file
        assert difference.mean() <= 0.3, file


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("resize, crop", [(256, 224), (232, 224), (224, 224), (64, 128)])
def test_evaluation_on_odd_shapes(kind, resize, crop):
    """1 pixel, smaller than the crop, very long, and large."""
    rng = np.random.default_rng(0)
    preprocessing = keras_resnet.Preprocessing(resize, crop)
    sides = [(1, 1), (1, 40), (40, 1), (2, 3), (100, 150), (223, 225), (30, 3000), (3000, 30)]
    for height, width in [*sides, (900, 1400)]:
        small = rng.integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), np.uint8)
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        content = encoded(image, kind)
        expected = torchvisions(Image.open(io.BytesIO(content)), resize, crop)
        difference = np.abs(preprocessing.pixels(content).numpy() - expected)
        assert difference.max() <= 1, (height, width)
        assert difference.mean() <= 0.3, (height, width)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Returns a function from a preprocessing to a network and its SavedModel with image input."""

    def export(preprocessing):
        model = small("basic", input_shape=(*preprocessing.sides, 3))
        folder = tmp_path_factory.mktemp("served")
        version = keras_resnet.export.saved_model(model, folder, preprocessing=preprocessing)
        return model, tf.saved_model.load(version)

    return export


@pillow_13
@pytest.mark.real_data
@pytest.mark.parametrize(
    "side, share, mode, interpolation",
    [
        (224, 0.875, "center", "bicubic"),
        (224, 0.95, "squash", "bilinear"),
        (224, 0.9, "border", "bicubic"),
        (288, 1.0, "center", "bicubic"),
        (288, 0.95, "squash", "bicubic"),
        (288, 1.0, "border", "bilinear"),
        ((224, 288), 0.9, "center", "bicubic"),
        ((224, 288), 0.9, "border", "bicubic"),
    ],
)
def test_timms_evaluation_on_photographs(real_data, served, side, share, mode, interpolation):
    """Pixels in tf.data differ by at most 1; a SavedModel has the model's outputs for them."""
    sides = side if isinstance(side, tuple) else (side, side)
    theirs = timm.data.create_transform(
        (3, *sides), interpolation=interpolation, crop_pct=share, crop_mode=mode, normalize=False
    )
    resize = tuple(math.floor(length / share) for length in sides)
    options = {"interpolation": interpolation, "crop_mode": mode}
    preprocessing = keras_resnet.Preprocessing(resize, side, **options)
    files = sorted((real_data / "imagenet").glob("*.JPEG"))
    assert len(files) == 100
    contents = [file.read_bytes() for file in files]
    images = tf.data.Dataset.from_tensor_slices(contents).map(preprocessing.pixels)
    for file, pixels in zip(files, images, strict=True):
        expected = theirs(Image.open(file).convert("RGB")).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(pixels.numpy() - expected).max() <= (interpolation == "bilinear"), file
    model, loaded = served(preprocessing)
    answers = loaded.signatures["serving_default"](tf.constant(contents[:8]))["probabilities"]
    inputs = preprocessing.normalise(np.stack(list(images.take(8)))).numpy()
    np.testing.assert_allclose(answers, model.predict_on_batch(inputs), rtol=1e-5, atol=1e-6)


def test_normalising_is_torchvisions():
    content = encoded(Image.effect_noise((300, 260), 80).convert("RGB"), "PNG")
    chain = transforms.Compose(
        [
            *(transforms.CenterCrop(224), transforms.ToTensor()),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    expected = chain(Image.open(io.BytesIO(content))).permute(1, 2, 0).numpy()
    pixels = keras_resnet.Preprocessing(260, 224)(content)
    np.testing.assert_allclose(pixels, expected, atol=1e-5)


def chi_square_of_two(ours, theirs, bins=10):
    """Tests whether two samples have the same distribution; for 9 degrees, P(> 27.9) is 0.001."""
    edges = np.quantile(np.concatenate([ours, theirs]), np.linspace(0, 1, bins + 1)[1:-1])
    counts = [np.bincount(np.searchsorted(edges, part), minlength=bins) for part in (ours, theirs)]
    total = np.sum(counts, axis=0)
    return sum(((part - total / 2) ** 2 / np.maximum(total / 2, 1)).sum() for part in counts)


@pytest.mark.parametrize("height, width", [(375, 500), (500, 333), (64, 400)])
def test_crops_are_distributed_as_torchvisions(height, width):
    """Also for shapes where the first tries often fail, so that the fallback is common."""
    count = 4000
    torch.manual_seed(0)
    image = torch.zeros(3, height, width)
    get = transforms.RandomResizedCrop.get_params
    theirs = np.array([get(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)], float)
    numbers = tf.range(count, dtype=tf.int64)
    keys = tf.stack([numbers * 0, numbers * 100], 1)
    ours = tf.vectorized_map(
        lambda key: crops.random_window(tf.constant([height, width]), key), keys
    )
    ours = ours.numpy().astype(float)
    for measure in (
        lambda c: c[:, 2] * c[:, 3],
        lambda c: np.log(c[:, 3] / c[:, 2]),
        lambda c: c[:, 0] + c[:, 2] / 2,
        lambda c: c[:, 1] + c[:, 3] / 2,
    ):
        jitter = np.random.default_rng(0).uniform(0, 1e-6, (2, count))  # breaks ties evenly
        assert chi_square_of_two(measure(ours) + jitter[0], measure(theirs) + jitter[1]) < 27.9


def test_erased_rectangles_are_distributed_as_torchvisions():
    count, size = 4000, 64
    torch.manual_seed(0)
    image = torch.zeros(3, size, size)
    get = transforms.RandomErasing.get_params
    theirs = np.array(
        [get(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(count)], float
    )
    numbers = tf.range(count, dtype=tf.int64)
    keys = tf.stack([numbers * 0, numbers * 100], 1)
    ours = tf.vectorized_map(lambda key: crops.random_erasure(size, key, 1.0), keys)
    ours = ours.numpy().astype(float)
    for measure in (
        lambda c: c[:, 2] * c[:, 3],
        lambda c: np.log(c[:, 3] / c[:, 2]),
        lambda c: c[:, 0] + c[:, 2] / 2,
    ):
        jitter = np.random.default_rng(0).uniform(0, 1e-6, (2, count))
        assert chi_square_of_two(measure(ours) + jitter[0], measure(theirs) + jitter[1]) < 27.9


@pytest.mark.parametrize("name, ranges", RANGES.items(), ids=RANGES)
def test_policies_are_torchvisions(name, ranges):
    """Each operation at several magnitudes, in both directions."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    image = small.resize((96, 72), Image.Resampling.BICUBIC)
    sizes = () if name == "TrivialAugmentWide" else ((72, 96),)
    space = getattr(transforms, name)()._augmentation_space(ranges.bins, *sizes)
    ours_too = policies.OPERATIONS if "Identity" in space else policies.OPERATIONS[:-1]
    assert len(space) == len(ours_too)
    apply = torchvision.transforms.autoaugment._apply_op
    ours_at = tf.function(
        lambda operation, level, sign: policies.apply(
            tf.constant(np.asarray(image)), operation, level, sign, ranges
        )
    )
    interpolation = transforms.InterpolationMode(ranges.interpolation)
    for index, ours in enumerate(ours_too):
        theirs = THEIR_NAMES.get(ours, ours.capitalize())
        magnitudes, signed = space[theirs]
        # At 20 of 31, rows are exactly on edges.
        for level in (0, 9, 19, 30) if ranges.bins == 31 else range(policies.SEVERITY):
            for sign in (1.0, -1.0) if signed else (1.0,):
                magnitude = float(magnitudes[level]) if magnitudes.ndim > 0 else 0.0
                expected = apply(image, theirs, magnitude * sign, interpolation, None)
                pixels = ours_at(tf.constant(index), tf.constant(level), tf.constant(sign)).numpy()
                difference = np.abs(pixels.astype(int) - np.asarray(expected))
                # Positions on edges may be rounded to either side, and values differently.
                wrong = (difference.max(-1) > 1).mean()
                assert wrong < 0.01, (ours, level, sign, wrong)


def test_augmix_mixes_as_torchvisions():
    """Chains of torchvision's operations with the draws of this package."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((96, 72))
    space = transforms.AugMix()._augmentation_space(policies.AUGMIX.bins, (72, 96))
    apply = torchvision.transforms.autoaugment._apply_op
    mixed = tf.function(lambda key: policies.augmix(tf.constant(np.asarray(image)), key))
    depths_seen, shares = [], []
    for number in range(8):
        key = tf.constant([number, 3], tf.int64)
        share, weights, depths, indices, levels, signs = (
            part.numpy() for part in policies.augmix_draws(key)
        )
        expected = (1 - share) * np.asarray(image, np.float32)
        for weight, depth, *chain in zip(weights, depths, indices, levels, signs, strict=True):
            changed = image
            for index, level, sign in list(zip(*chain, strict=True))[:depth]:
                name = policies.OPERATIONS[index]
                name = THEIR_NAMES.get(name, name.capitalize())
                magnitudes, signed = space[name]
                magnitude = float(magnitudes[level]) if magnitudes.ndim > 0 else 0.0
                magnitude *= float(sign) if signed else 1.0
                bilinear = transforms.InterpolationMode.BILINEAR
                changed = apply(changed, name, magnitude, bilinear, None)
            expected += share * weight * np.asarray(changed, np.float32)
        difference = np.abs(mixed(key).numpy().astype(int) - expected.astype(int))
        shares.append((difference.max(-1) > 1).mean())
        assert weights.sum() == pytest.approx(1)
        depths_seen += depths.tolist()
    assert {*depths_seen} == {1, 2, 3}
    field = '`augmentation.policy="augmix"`: share of pixels that differ by more than 1 of 255'
    compared(field, "`torchvision.transforms.AugMix` with Pillow", max(shares), 0.02)


def test_augmix_draws_as_torchvisions():
    """The share of the chains, and of the first chain: Beta(1, 1) and Dirichlet(1, 1, 1)."""
    count = 4000
    torch.manual_seed(0)
    policy = transforms.AugMix()
    numbers = tf.range(count, dtype=tf.int64)
    keys = tf.stack([numbers, numbers * 0 + 2], 1)
    share, weights, *_ = tf.vectorized_map(policies.augmix_draws, keys)
    for ours, size in ((share, 2), (weights[:, 0], 3)):
        theirs = policy._sample_dirichlet(torch.ones(count, size))[:, 0].numpy()
        assert chi_square_of_two(ours.numpy(), theirs) < 27.9


def test_colour_jitter_is_torchvisions():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((96, 72))
    pixels = tf.constant(np.asarray(image))
    pairs = (
        (operations.brightness, functional.adjust_brightness, 1.3, 1),
        (operations.contrast, functional.adjust_contrast, 0.7, 1),
        (operations.saturation, functional.adjust_saturation, 1.3, 1),
        # PIL rounds hue and saturation to 8 bits, which matters for nearly gray pixels.
        (operations.hue, functional.adjust_hue, 0.17, 16),
    )
    for ours, theirs, amount, allowed in pairs:
        difference = ours(pixels, amount).numpy().astype(int) - np.asarray(theirs(image, amount))
        assert np.abs(difference).max() <= allowed
        assert np.abs(difference).mean() <= 1.5


def test_an_image_folder_is_torchvisions(tmp_path):
    """The same classes and files in the same order."""
    for name in ("b b", "ä", "A", "a"):
        for path in ("2.png", "10.png", "deeper/1.png", "Z.PNG"):
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(file)
    theirs = torchvision.datasets.ImageFolder(tmp_path)
    images = list_images(tmp_path)
    assert list(images.class_names) == theirs.classes
    ours = [(images.file(n), int(images.labels[n])) for n in range(len(images))]
    assert ours == theirs.samples


def test_mixtures_are_torchvisions():
    """MixUp with the share drawn by this package."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 16, 20, 3)).astype(np.float32)
    labels = np.array([0, 2, 1, 2])
    one_hot = mixing.smooth_labels(tf.constant(labels), 3, 0.0)
    ours, our_shares = mixing.mix(tf.constant(images), one_hot, tf.constant([0, 3]), 0.4, 0.0)
    drawn = float(our_shares[0, 0])
    assert 0.01 < drawn < 0.99

    class Drawn(v2.MixUp):
        def make_params(self, flat_inputs):
            return {"lam": drawn}

    chw = torch.from_numpy(images).permute(0, 3, 1, 2)
    mixed, shares = Drawn(alpha=0.4, num_classes=3)(chw, torch.from_numpy(labels))
    np.testing.assert_allclose(ours, mixed.permute(0, 2, 3, 1), atol=1e-6)
    np.testing.assert_allclose(our_shares, shares, atol=1e-6)
    assert math.isclose(float(tf.reduce_sum(our_shares)), 4, rel_tol=1e-6)
