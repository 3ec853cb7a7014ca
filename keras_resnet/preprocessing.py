"""What happens to an image before a network sees it, in validation, prediction and export alike.

The evaluation transform is torchvision's Resize, CenterCrop, ToTensor and Normalize on a PIL
image; its image functions are TensorFlow's, to run in tf.data and in exported graphs.
"""

import dataclasses
import functools
import importlib.resources

import keras
import numpy as np

from keras_resnet.configs import IMAGENET_MEAN, IMAGENET_STD


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The evaluation transform: resize the shorter side, crop the centre, normalise.

    Args:
        resize: Length of the shorter side after resizing, in pixels.
        crop: Side of the square cut from the centre, in pixels; black where the image is smaller.
        mean: Mean of each RGB channel, of values scaled to 0..1.
        std: Standard deviation of each RGB channel, of values scaled to 0..1.

    Example:
    >>> preprocessing = keras_resnet.Preprocessing(resize=256, crop=224)
    >>> image = preprocessing(tf.io.read_file("daisy.jpg"))  # doctest: +SKIP
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self):
        """Refuses numbers that cannot be meant."""
        if self.crop < 1 or self.resize < 1:
            raise ValueError(
                "resize and crop are sides in pixels and should be 1 or more. "
                f"Received: resize={self.resize}, crop={self.crop}"
            )

    @classmethod
    def for_crop(cls, crop, resize=None):
        """The transform for images of `crop` pixels; by default 256 / 224 of it are resized to."""
        return cls(resize or round(crop * 256 / 224), crop)

    def __call__(self, image_bytes):
        """Turns one encoded image into the network's input.

        Args:
            image_bytes: Scalar string tensor: a whole JPEG, PNG, GIF or BMP file.

        Returns:
            float32 tensor (crop, crop, 3), RGB, normalised.

        Raises:
            tf.errors.InvalidArgumentError: when it runs, if the bytes are no such image.
        """
        return self.normalise(self.pixels(image_bytes))

    def pixels(self, image_bytes):
        """As a call, but before normalising: float32 whole numbers 0..255."""
        import tensorflow as tf

        image = decode(image_bytes)
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        shorter = tf.minimum(height, width)
        # The longer side is rounded down, as torchvision does.
        height, width = height * self.resize // shorter, width * self.resize // shorter
        corner = [self._margin(side) for side in (height, width)]
        return resample(image, (height, width), corner, self.crop)

    def _margin(self, side):
        """Pixels before the crop; negative for padding, of which torchvision puts less before."""
        import tensorflow as tf

        spare = side - self.crop
        rounded = tf.cast(tf.round(tf.cast(spare, tf.float32) / 2), tf.int32)
        return tf.where(spare < 0, -((-spare) // 2), rounded)

    def normalise(self, pixels):
        """From 0..255 to zero mean and unit variance, float32, over the last axis."""
        return normalise(pixels, self.mean, self.std)


def normalise(pixels, mean=IMAGENET_MEAN, std=IMAGENET_STD, *, channels_first=False):
    """(pixels / 255 - mean) / std for each channel, for numpy arrays and tensors."""
    shape = (-1, 1, 1) if channels_first else (-1,)
    mean, std = (np.reshape(value, shape) for value in (mean, std))
    return pixels * np.float32(1 / (255 * std)) + np.float32(-mean / std)


def decode(image_bytes, window=None):
    """Decodes an image to RGB, the first frame if there are several.

    Args:
        image_bytes: Scalar string tensor: a JPEG, PNG, GIF or BMP file. Alpha is dropped, and
            grey is repeated. EXIF orientation is not applied, as PIL does not.
        window: None for the whole image, or (top, left, height, width) in pixels. Of a JPEG only
            this part is decoded.

    Returns:
        uint8 tensor (height, width, 3).
    """
    import tensorflow as tf

    # PIL decodes JPEGs with the accurate DCT; TensorFlow's default is the fast one.
    accurate = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}

    def jpeg():
        if window is None:
            return tf.io.decode_jpeg(image_bytes, **accurate)
        return tf.image.decode_and_crop_jpeg(image_bytes, window, **accurate)

    def other():
        image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
        if window is None:
            return image
        top, left, height, width = tf.unstack(window)
        return image[top : top + height, left : left + width]

    image = tf.cond(tf.io.is_jpeg(image_bytes), jpeg, other)
    return tf.ensure_shape(image, (None, None, 3))


def image_size(image_bytes):
    """(height, width) of an encoded image, int32; a JPEG is not decoded for it."""
    import tensorflow as tf

    return tf.cond(
        tf.io.is_jpeg(image_bytes),
        lambda: tf.image.extract_jpeg_shape(image_bytes)[:2],
        lambda: tf.shape(tf.io.decode_image(image_bytes, channels=3, expand_animations=False))[:2],
    )


def resample(image, resized, corner, crop):
    """Resizes with PIL's antialiased bilinear filter and crops, in one operation.

    Args:
        image: uint8 tensor (height, width, 3).
        resized: (height, width) of the whole image after resizing, int32.
        corner: (top, left) of the crop within the resized image, int32; may be negative.
        crop: Side of the square crop.

    Returns:
        float32 tensor (crop, crop, 3) of whole numbers 0..255, 0 outside of the image.
    """
    import tensorflow as tf

    before = tf.cast(tf.shape(image)[:2], tf.float32)
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis],
        size=(crop, crop),
        scale=tf.cast(tf.stack(resized), tf.float32) / before,
        translation=-tf.cast(tf.stack(corner), tf.float32),
        kernel_type="triangle",
        antialias=True,
    )[0]
    return tf.clip_by_value(tf.round(pixels), 0.0, 255.0)


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
    return normalise(x, channels_first=axis == -3)


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """(WordNet id, name) of each of ImageNet's 1,000 classes, in torchvision's order."""
    text = importlib.resources.files("keras_resnet").joinpath("imagenet_classes.txt").read_text()
    return tuple(tuple(line.split("\t")) for line in text.splitlines())


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
