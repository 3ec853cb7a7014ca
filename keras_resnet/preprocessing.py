"""What happens to an image before a network sees it, in validation, prediction and export alike.

The evaluation transform is torchvision's Resize, CenterCrop, ToTensor and Normalize on a PIL
image; its image functions are TensorFlow's, to run in tf.data and in exported graphs.
"""

import dataclasses
import functools
import importlib.resources
import math
import numbers

import keras
import numpy as np

from keras_resnet.configs import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["Preprocessing", "decode_predictions", "imagenet_classes", "preprocess_input"]

MAX_SIDE = 2**14  # pixels: an image of that side takes 3 GB as float32
MIN_STD = 1e-6  # less would make of any pixel what is too large for 16 bits


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The evaluation transform: resize the shorter side, crop the centre, normalise.

    Args:
        resize: Length of the shorter side after resizing, in pixels.
        crop: Side of the square cut from the centre, in pixels; black where the image is smaller.
        mean: Mean of each RGB channel, of values scaled to 0..1.
        std: Standard deviation of each RGB channel, of values scaled to 0..1.
        exif: True to turn JPEGs as their EXIF orientation says. torchvision does not.

    Example:
    >>> preprocessing = keras_resnet.Preprocessing(resize=256, crop=224)
    >>> image = preprocessing(tf.io.read_file("daisy.jpg"))  # doctest: +SKIP
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    exif: bool = False

    def __post_init__(self):
        """Refuses numbers that cannot be meant."""
        sides = (self.resize, self.crop)
        whole = (isinstance(side, numbers.Integral) and side is not True for side in sides)
        if not all(whole) or not 1 <= min(sides) <= max(sides) <= MAX_SIDE:
            raise ValueError(
                f"resize and crop are sides in pixels and should be 1 to {MAX_SIDE:,}, whole "
                f"numbers. Received: resize={self.resize!r}, crop={self.crop!r}"
            )
        if not _three(self.mean, 0, 1) or not _three(self.std, MIN_STD, math.inf):
            raise ValueError(
                "mean and std should be three numbers each, of RGB in 0..1, and std more than 0. "
                f"Received: mean={self.mean!r}, std={self.std!r}"
            )
        if not isinstance(self.exif, bool):
            raise ValueError(f"exif should be True or False. Received: exif={self.exif!r}")

    @classmethod
    def for_crop(cls, crop, resize=None, **arguments):
        """The transform for images of `crop` pixels; by default, `resize` is 256 / 224 of it."""
        return cls(resize or round(crop * 256 / 224), crop, **arguments)

    def __call__(self, image_bytes):
        """Turns one encoded image into the network's input.

        Args:
            image_bytes: Scalar string tensor: a whole JPEG, PNG, GIF, BMP or WebP file.

        Returns:
            float32 tensor (crop, crop, 3), RGB, normalised.

        Raises:
            tf.errors.InvalidArgumentError: when it runs, if the bytes are no such image.
        """
        return self.normalise(self.pixels(image_bytes))

    def batch(self, images, *, normalise=True) -> np.ndarray:
        """Turns encoded images into the network's input.

        Args:
            images: Whole image files, bytes, by the name that an error calls them.
            normalise: False for pixels, uint8.

        Returns:
            Array (images, crop, crop, 3).

        Raises:
            ValueError: if one cannot be decoded.
        """
        import tensorflow as tf

        from keras_resnet.decoding import reason

        inputs = []
        for name, content in images.items():
            try:
                inputs.append((self if normalise else self.pixels)(content).numpy())
            except tf.errors.InvalidArgumentError as error:
                raise ValueError(
                    f"{name} cannot be decoded: expected a JPEG, PNG, GIF, BMP or WebP file, "
                    f"received {len(content)} bytes that start with {content[:8]!r}: "
                    f"{reason(error)}."
                ) from error
        return np.stack(inputs)

    def pixels(self, image_bytes):
        """As a call, but before normalising: uint8, 0..255."""
        import tensorflow as tf

        from keras_resnet.decoding import decode_window

        def needed(size):
            """The part of the image that the crop is made of, with what the filter reaches."""
            scale, corner = self._placed(size)
            first = tf.cast(corner, tf.float32) / scale
            # The triangle reaches one pixel, or 1 / scale; a JPEG's chroma two more.
            reach = tf.math.ceil(1 / scale) + 4
            last = tf.cast(first + self.crop / scale + reach, tf.int32)
            first = tf.clip_by_value(tf.cast(first - reach, tf.int32), 0, size - 1)
            return tf.concat([first, tf.clip_by_value(last, first + 1, size) - first], 0)

        image, size, window = decode_window(image_bytes, needed, exif=self.exif)
        scale, corner = self._placed(size)
        shift = tf.cast(window[:2], tf.float32) * scale - tf.cast(corner, tf.float32)
        return resample(image, self.crop, scale, shift)

    def _placed(self, size):
        """How an image of (height, width) lies: its scale, float32 (2,); the crop's corner, int32.

        The corner's coordinates are negative for padding, of which torchvision puts less before.
        """
        import tensorflow as tf

        # The longer side is rounded down, as torchvision does.
        resized = tf.maximum(size * self.resize // tf.reduce_min(size), 1)
        spare = resized - self.crop
        cut = tf.cast(tf.round(tf.cast(spare, tf.float32) / 2), tf.int32)
        corner = tf.where(spare < 0, -((-spare) // 2), cut)
        return tf.cast(resized, tf.float32) / tf.cast(size, tf.float32), corner

    def normalise(self, pixels, ops=None):
        """From 0..255 to zero mean and unit variance, float32, over the last axis.

        Args:
            pixels: Tensor (..., height, width, 3), of which one length may be unknown, but not the
                width.
            ops: `keras.ops` in a step of Keras' backend; else TensorFlow does it.
        """
        if ops is None:
            import tensorflow

            ops = tensorflow
        # Whole rows at a time: over an axis of 3 the same arithmetic takes five times as long.
        *sides, width, _ = (-1 if side is None else side for side in pixels.shape)
        factor, offset = (np.tile(value, width) for value in affine(self.mean, self.std))
        rows = ops.reshape(pixels, (*sides, width * 3))
        return ops.reshape(ops.cast(rows, "float32") * factor + offset, (*sides, width, 3))


def _three(values, least, most):
    """Whether these are three finite numbers in a range."""
    return (
        isinstance(values, (tuple, list))
        and len(values) == 3
        and all(
            isinstance(value, numbers.Real) and least <= value <= most and math.isfinite(value)
            for value in values
        )
    )


def affine(mean, std):
    """(factor, offset) so that pixels * factor + offset is normalised; float32 a channel."""
    mean, std = np.asarray(mean), np.asarray(std)
    return np.float32(1 / (255 * std)), np.float32(-mean / std)


def resample(image, size, scale, shift):
    """Resizes with PIL's antialiased bilinear filter and crops, in one step.

    Args:
        image: uint8 tensor (height, width, 3).
        size: Side of the square result.
        scale: How much larger things become: (vertically, horizontally), float32.
        shift: Where the image's (top, left) lies in the result, in its pixels, float32.

    Returns:
        uint8 tensor (size, size, 3), 0 outside of the image.
    """
    import tensorflow as tf

    def along_first_axis(image, axis):
        # All else is taken for channels: TensorFlow's loop over them is fast, while the one over
        # the second axis made the whole three times slower.
        others = tf.shape(image)[1] * 3
        resized = tf.raw_ops.ScaleAndTranslate(
            images=tf.reshape(image, tf.stack([1, -1, 1, others])),
            size=(size, 1),
            scale=tf.stack([scale[axis], 1.0]),
            translation=tf.stack([shift[axis], 0.0]),
            kernel_type="triangle",
            antialias=True,
        )
        return tf.transpose(tf.reshape(resized, (size, -1, 3)), (1, 0, 2))

    image = along_first_axis(along_first_axis(image, 0), 1)
    # Weights are positive and sum to 1: nothing is below 0, or above 255 by more than rounding.
    return tf.ensure_shape(tf.cast(image + 0.5, tf.uint8), (size, size, 3))


def preprocess_input(x, data_format=None):
    """Normalises images as the networks expect them: torchvision's way, by mean and deviation.

    Args:
        x: Array or tensor, 3D or 4D, RGB with values in 0..255. It is not changed.
        data_format: "channels_last" or "channels_first". Default: Keras' setting.

    Returns:
        float32, same shape: (x / 255 - mean) / std.

    Raises:
        ValueError: if there are not 3 channels.
    """
    data_format = data_format or keras.config.image_data_format()
    axis = -3 if data_format == "channels_first" else -1
    if len(x.shape) not in (3, 4) or x.shape[axis] != 3:
        raise ValueError(
            f"Expected RGB images of 3 or 4 dimensions with 3 channels on axis {axis} "
            f"({data_format}). Received: x.shape={tuple(x.shape)}"
        )
    if isinstance(x, np.ndarray):
        x = x.astype(np.float32)
    else:
        x = keras.ops.cast(x, "float32")
    shape = (-1, 1, 1) if axis == -3 else (-1,)
    factor, offset = (np.reshape(part, shape) for part in affine(IMAGENET_MEAN, IMAGENET_STD))
    return x * factor + offset


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """(WordNet id, name) of each of ImageNet's 1,000 classes, in torchvision's order."""
    text = importlib.resources.files("keras_resnet").joinpath("imagenet_classes.txt").read_text()
    lines = (line.split("\t") for line in text.splitlines())
    return tuple((wnid, name) for wnid, name in lines)


def decode_predictions(preds, top=5):
    """Names ImageNet predictions.

    Args:
        preds: Array or tensor of probabilities or logits, (batch, 1000).
        top: How many classes to return for each image.

    Returns:
        A list for each image of (WordNet id, name, score), best first.

    Raises:
        ValueError: if `preds` has another shape.
    """
    preds = keras.ops.convert_to_numpy(preds)
    if preds.ndim != 2 or preds.shape[1] != 1000:
        raise ValueError(
            "decode_predictions names ImageNet's 1,000 classes and expects (batch, 1000). "
            f"Received: preds.shape={preds.shape}"
        )
    classes = imagenet_classes()
    return [
        [(*classes[index], float(scores[index])) for index in np.argsort(-scores)[:top]]
        for scores in preds
    ]
