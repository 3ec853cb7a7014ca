"""Image preprocessing for validation, prediction and export.

The evaluation transform is torchvision's Resize, CenterCrop, ToTensor and Normalize on a PIL
image; its image functions are TensorFlow's, to run in tf.data and in exported graphs.
"""

import dataclasses
import functools
import importlib.resources
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_resnet.configs import IMAGENET_MEAN, IMAGENET_STD
from keras_resnet.fields import Rule, a, check, documented, field, numbers, one_of, whole

__all__ = ["Preprocessing", "decode_predictions", "imagenet_classes", "preprocess_input"]

MAX_SIDE = 2**14  # pixels; an image of this size takes 3 GB as float32
MIN_STD = 1e-6  # normalised values would overflow float16 with less
RADII = {"bilinear": 1, "bicubic": 2}  # support of the filters, in pixels
# Pillow's bicubic filter: precision of its weights in bits; and the number of rows computed at a
# time here, all with as many weights as the rows cover together.
PRECISION, ROWS = 22, 32

SIDES = Rule(
    lambda sides: (
        len(pair(sides)) == 2
        and all(whole(1).fits(side) and side <= MAX_SIDE for side in pair(sides))
    ),
    f"a side in pixels or (height, width), integers from 1 to {MAX_SIDE:,}",
)
MEAN = numbers(3, lambda *mean: 0 <= min(mean) <= max(mean) <= 1, "of RGB, each 0 to 1")
STD = numbers(3, lambda *std: min(std) >= MIN_STD, "of RGB in 0..1, each more than 0")
INTERPOLATION, CROP_MODE = one_of(*RADII), one_of("center", "squash", "border")


@documented
@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The evaluation transform: resize, centre crop, normalise.

    Example:
    >>> preprocessing = keras_resnet.Preprocessing(resize=256, crop=224)
    >>> image = preprocessing(tf.io.read_file("daisy.jpg"))  # doctest: +SKIP
    """

    resize: int | tuple[int, int] = field(
        256,
        SIDES,
        "Length of the shorter side after resizing, in pixels; `crop_mode` changes which side it "
        "is. (height, width) for a rectangular crop.",
    )
    crop: int | tuple[int, int] = field(
        224,
        SIDES,
        "Size of the centre crop in pixels, the side of a square or (height, width). Smaller "
        "images are padded with black.",
    )
    mean: tuple[float, float, float] = field(
        IMAGENET_MEAN, MEAN, "Mean of each RGB channel, for values in 0..1."
    )
    std: tuple[float, float, float] = field(
        IMAGENET_STD, STD, "Standard deviation of each RGB channel, for values in 0..1."
    )
    exif: bool = field(
        False,
        a(bool),
        "Whether to apply the EXIF orientation of JPEG files; torchvision does not.",
    )
    interpolation: str = field(
        "bilinear", INTERPOLATION, 'Interpolation of the resizing, "bilinear" or "bicubic".'
    )
    crop_mode: str = field(
        "center",
        CROP_MODE,
        'How images are resized, as in timm: "center" resizes the shorter side to `resize`, '
        '"squash" both sides, without keeping the aspect ratio, "border" the longer side, and pads '
        "with the mean.",
    )

    def __post_init__(self) -> None:
        """Validates each field."""
        for name in ("resize", "crop", "mean", "std"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        check(self)
        for name in ("resize", "crop"):
            height, width = pair(getattr(self, name))
            object.__setattr__(self, name, height if height == width else (height, width))

    @classmethod
    def for_crop(cls, crop: int, resize: int | None = None, **arguments: Any) -> "Preprocessing":
        """Returns the transform for a crop in pixels; `resize` defaults to 256 / 224 of it."""
        return cls(resize or round(crop * 256 / 224), crop, **arguments)

    def of_side(self, crop: int | tuple[int, int]) -> "Preprocessing":
        """Returns the transform for another crop, with `resize` in the same ratio to it."""
        sides = zip(pair(crop), pair(self.resize), self.sides, strict=True)
        resize = tuple(round(side * resized / before) for side, resized, before in sides)
        return dataclasses.replace(self, crop=crop, resize=resize)

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width) of the crop, in pixels."""
        return pair(self.crop)

    def __call__(self, image_bytes: Any) -> Any:
        """Decodes and preprocesses one image.

        Args:
            image_bytes: Scalar string tensor: the content of a JPEG, PNG, GIF, BMP or WebP file.

        Returns:
            float32 tensor (height, width, 3), RGB, normalised.

        Raises:
            tf.errors.InvalidArgumentError: at run time, if the image cannot be decoded.
        """
        return self.normalise(self.pixels(image_bytes))

    def batch(self, images: Mapping[str, bytes], *, normalise: bool = True) -> np.ndarray:
        """Decodes and preprocesses several images.

        Args:
            images: Contents of image files by name; error messages use the names.
            normalise: Whether to normalise. False returns pixel values, uint8 in 0..255.

        Returns:
            Array (images, height, width, 3), float32 or uint8.

        Raises:
            ValueError: if an image cannot be decoded.
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

    def pixels(self, image_bytes: Any) -> Any:
        """Decodes, resizes and crops one image, without normalising: uint8, 0..255."""
        import tensorflow as tf

        from keras_resnet.decoding import decode_window

        radius = RADII[self.interpolation]

        def needed(size):
            """Returns the window of the image that affects the crop."""
            resized, corner = self._placed(size)
            scale = tf.cast(resized, tf.float32) / tf.cast(size, tf.float32)
            first = tf.cast(corner, tf.float32) / scale
            # The filter's radius, or radius / scale; a JPEG's chroma upsampling adds two.
            reach = tf.math.ceil(radius / scale) + 4
            last = tf.cast(first + self.sides / scale + reach, tf.int32)
            first = tf.clip_by_value(tf.cast(first - reach, tf.int32), 0, size - 1)
            return tf.concat([first, tf.clip_by_value(last, first + 1, size) - first], 0)

        image, size, window = decode_window(image_bytes, needed, exif=self.exif)
        resized, corner = self._placed(size)
        places = {"size": size, "resized": resized, "start": window[:2], "corner": corner}
        pixels = resample(image, self.sides, interpolation=self.interpolation, **places)
        if self.crop_mode != "border":
            return pixels
        rows, columns = (
            (0 <= corner[axis] + tf.range(side)) & (corner[axis] + tf.range(side) < resized[axis])
            for axis, side in enumerate(self.sides)
        )
        inside = rows[:, tf.newaxis, tf.newaxis] & columns[:, tf.newaxis]
        return tf.where(inside, pixels, tf.constant([round(255 * m) for m in self.mean], tf.uint8))

    def _placed(self, size):
        """Returns the (height, width) after resizing, and the crop's (top, left), int32.

        Coordinates are negative for padding; if it is odd, the first side has less, as in
        torchvision.
        """
        import tensorflow as tf

        sides = pair(self.resize)
        if self.crop_mode == "squash":
            resized = tf.constant(sides)
        elif self.crop_mode == "center" and sides[0] == sides[1]:
            # The longer side is rounded down, as in torchvision.
            resized = size * sides[0] // tf.reduce_min(size)
        else:  # rounded as in timm's ResizeKeepRatio
            lengths = tf.cast(size, tf.float64)
            ratios = lengths / sides
            ratio = tf.reduce_max(ratios) if self.crop_mode == "border" else tf.reduce_min(ratios)
            resized = tf.cast(tf.round(lengths / ratio), tf.int32)
        resized = tf.maximum(resized, 1)
        spare = resized - self.sides
        cut = tf.cast(tf.round(tf.cast(spare, tf.float32) / 2), tf.int32)
        return resized, tf.where(spare < 0, -((-spare) // 2), cut)

    def normalise(self, pixels: Any, ops: Any = None) -> Any:
        """Normalises pixel values in 0..255 by the mean and the standard deviation.

        Args:
            pixels: Tensor (..., height, width, 3); the width should be known, and at most one
                other dimension unknown.
            ops: `keras.ops` inside a step of Keras' backend. Default: TensorFlow.

        Returns:
            float32 tensor of the same shape.
        """
        if ops is None:
            import tensorflow

            ops = tensorflow
        # On whole rows, since broadcasting over an axis of size 3 takes five times as long.
        *sides, width, _ = (-1 if side is None else side for side in pixels.shape)
        factor, offset = (np.tile(value, width) for value in affine(self.mean, self.std))
        rows = ops.reshape(pixels, (*sides, width * 3))
        return ops.reshape(ops.cast(rows, "float32") * factor + offset, (*sides, width, 3))


def pair(side: Any) -> tuple[Any, ...]:
    """Returns (height, width) from a single length or a pair."""
    return tuple(side) if isinstance(side, (tuple, list)) else (side, side)


def _plain(values):
    """Converts sequences to tuples of Python numbers."""
    if isinstance(values, (tuple, list)):
        return tuple(map(_plain, values))
    return values.item() if isinstance(values, np.generic) else values


def affine(mean: Any, std: Any) -> tuple[Any, Any]:
    """Returns (factor, offset) per channel for pixels * factor + offset, float32."""
    mean, std = np.asarray(mean), np.asarray(std)
    return np.float32(1 / (255 * std)), np.float32(-mean / std)


def resample(
    image: Any,
    sides: tuple[int, int],
    *,
    size: Any,
    resized: Any,
    start: Any = (0, 0),
    corner: Any = (0, 0),
    interpolation: str = "bilinear",
) -> Any:
    """Resizes with one of PIL's antialiased filters, and crops in the same step.

    Args:
        image: uint8 tensor (height, width, 3), a part of the source image.
        sides: (height, width) of the result.
        size: int32, (height, width) of the whole source image.
        resized: int32, (height, width) of the whole image after resizing.
        start: int32, (top, left) of the part in the source image.
        corner: int32, (top, left) of the crop in the resized image; may be negative.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 tensor (height, width, 3), 0 outside the image.
    """
    import tensorflow as tf

    if interpolation == "bicubic":
        # In Pillow 13's order, with rounding in between: first the axis that shrinks by far more.
        shrinks = size - resized
        rows_first = (shrinks[0] > 0) & (shrinks[0] > 2 * shrinks[1])
        first = tf.where(rows_first, 0, 1)
        for axis in (first, 1 - first):
            to_front = tf.stack([axis, 1 - axis, 2])  # its own inverse
            ends = (tf.gather(part, axis) for part in (sides, size, resized, start, corner))
            image = tf.transpose(_bicubic(tf.transpose(image, to_front), *ends), to_front)
        return tf.ensure_shape(image, (*sides, 3))
    scale = tf.cast(resized, tf.float32) / tf.cast(size, tf.float32)
    shift = tf.cast(start, tf.float32) * scale - tf.cast(corner, tf.float32)

    def along_first_axis(image, axis):
        # The other axes are merged into channels, over which TensorFlow's loop is fast; a loop over
        # the second axis was three times slower in total.
        others = tf.shape(image)[1] * 3
        resized = tf.raw_ops.ScaleAndTranslate(
            images=tf.reshape(image, tf.stack([1, -1, 1, others])),
            size=(sides[axis], 1),
            scale=tf.stack([scale[axis], 1.0]),
            translation=tf.stack([shift[axis], 0.0]),
            kernel_type="triangle",
            antialias=True,
        )
        return tf.transpose(tf.reshape(resized, (sides[axis], -1, 3)), (1, 0, 2))

    image = along_first_axis(along_first_axis(image, 0), 1)
    # Weights are positive and sum to 1, so the values are in 0..255 up to rounding.
    return tf.ensure_shape(tf.cast(image + 0.5, tf.uint8), (*sides, 3))


def _bicubic(image, side, size, resized, start, corner):
    """Resizes along the first axis with Pillow's integer arithmetic, exact in float64.

    Arguments as for `resample`. TensorFlow's own operation computes positions in float32, which led
    to differences of two grey levels.

    Source: Pillow 13, src/libImaging/Resample.c (Keys, 1981, with a = -0.5).
    """
    import tensorflow as tf

    length, others = tf.shape(image)[0], tf.shape(image)[1] * 3
    rows = tf.reshape(image, tf.stack([length, others]))
    scale = tf.cast(size, tf.float64) / tf.cast(resized, tf.float64)
    stretch = tf.maximum(scale, 1.0)
    reach = RADII["bicubic"] * stretch
    taken = tf.cast(tf.math.ceil((ROWS - 1) * scale + 2 * reach), tf.int32) + 2
    taken = tf.minimum(taken, length)

    def some(first):
        places = (first + corner + tf.range(ROWS))[:, tf.newaxis]
        centres = (tf.cast(places, tf.float64) + 0.5) * scale
        begin = tf.cast(tf.floor(centres[0, 0] - reach), tf.int32) - start
        begin = tf.clip_by_value(begin, 0, length - taken)
        pixels = tf.cast(start + begin + tf.range(taken), tf.float64)
        within = (pixels >= tf.floor(centres - reach + 0.5)) & (
            pixels < tf.floor(centres + reach + 0.5)
        )
        x = tf.abs(pixels - centres + 0.5) / stretch
        near, far = ((1.5 * x - 2.5) * x * x + 1), (((-0.5 * x + 2.5) * x - 4) * x + 2)
        within &= (x < 2) & (places >= 0) & (places < resized)
        weights = tf.where(within, tf.where(x < 1, near, far), 0)
        weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, 1, keepdims=True))
        weights = tf.sign(weights) * tf.floor(tf.abs(weights) * 2**PRECISION + 0.5)
        found = tf.matmul(weights, tf.cast(rows[begin : begin + taken], tf.float64))
        found = tf.clip_by_value(tf.floor(found / 2**PRECISION + 0.5), 0, 255)
        return tf.cast(found, tf.uint8)  # 0 outside the image, where there are no weights

    firsts = tf.range(0, side, ROWS)
    found = tf.map_fn(some, firsts, fn_output_signature=tf.uint8, parallel_iterations=1)
    return tf.reshape(found, tf.stack([-1, others // 3, 3]))[:side]


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Normalises images by ImageNet's mean and standard deviation, as torchvision does.

    Args:
        x: Array or tensor, 3D or 4D, RGB with values in 0..255. It is not modified.
        data_format: "channels_last" or "channels_first". Default: Keras' setting.

    Returns:
        float32, same shape: (x / 255 - mean) / std.

    Raises:
        ValueError: if the images do not have 3 channels.
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
    """Returns (WordNet id, name) of ImageNet's 1,000 classes, in torchvision's order."""
    text = importlib.resources.files("keras_resnet").joinpath("imagenet_classes.txt").read_text()
    lines = (line.split("\t") for line in text.splitlines())
    return tuple((wnid, name) for wnid, name in lines)


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Returns the names of the top ImageNet classes for each image.

    Args:
        preds: Array or tensor of probabilities or logits, (batch, 1000).
        top: Number of classes to return for each image.

    Returns:
        For each image a list of (WordNet id, name, score), highest score first.

    Raises:
        ValueError: if `preds` has another shape.
    """
    preds = keras.ops.convert_to_numpy(preds)
    if preds.ndim != 2 or preds.shape[1] != 1000:
        raise ValueError(
            "decode_predictions expects predictions for ImageNet's classes, (batch, 1000). "
            f"Received: preds.shape={preds.shape}"
        )
    classes = imagenet_classes()
    return [
        [(*classes[index], float(scores[index])) for index in np.argsort(-scores)[:top]]
        for scores in preds
    ]
