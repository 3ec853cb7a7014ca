"""Random augmentation of training images."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_resnet.data.augmentation import crops, mixing, policies
from keras_resnet.data.augmentation.timm_rand_augment import parsed, rand_augment
from keras_resnet.fields import (
    FRACTION,
    NOT_NEGATIVE,
    Rule,
    check,
    documented,
    field,
    numbers,
    whole,
)
from keras_resnet.preprocessing import Preprocessing

POLICIES = {
    "rand_augment": policies.rand_augment,
    "trivial_augment_wide": policies.trivial_augment_wide,
    "augmix": policies.augmix,
}
POLICY = Rule(
    lambda name: isinstance(name, str) and (name in POLICIES or parsed(name) is not None),
    f'{", ".join(POLICIES)}, or timm\'s "rand-m7-mstd0.5-inc1" or the like',
)


@documented
@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random augmentation of training images, in torchvision's order; a function of the seed."""

    crop_scale: tuple[float, float] | None = field(
        (0.08, 1.0),
        numbers(
            2,
            lambda low, high: 0 < low <= high <= 1,
            "a range, low to high, of more than 0 and at most 1",
        ),
        "Range of the area of the random crop, as a fraction of the image's. None for the resize "
        "and centre crop of the evaluation transform.",
    )
    crop_ratio: tuple[float, float] = field(
        (3 / 4, 4 / 3),
        numbers(2, lambda low, high: 0 < low <= high, "a range, low to high, of positive numbers"),
        "Range of the aspect ratio of the random crop, width / height.",
    )
    padding: int | None = field(
        None,
        whole(0),
        "If given, images are not resized: each side is padded with this many black pixels before "
        "a random crop (He et al., 2015, section 4.2, for CIFAR).",
    )
    flip: float = field(0.5, FRACTION, "Probability of a horizontal flip, 0 to 1.")
    color_jitter: tuple[float, float, float, float] | None = field(
        None,
        numbers(
            4,
            lambda *jitter: min(jitter) >= 0 and jitter[3] <= 0.5,
            "(brightness, contrast, saturation, hue), each 0 or more, hue at most 0.5",
        ),
        "Strength of the color jitter: (brightness, contrast, saturation, hue). None to disable.",
    )
    policy: str | None = field(
        None,
        POLICY,
        'Augmentation policy: "rand_augment", "trivial_augment_wide" or "augmix", as in '
        "torchvision; or RandAugment as in timm, with its configuration string, "
        '"rand-m7-mstd0.5-inc1" for example. None to disable.',
    )
    erasing: float = field(
        0.0, FRACTION, "Probability of erasing a random rectangle of an image, 0 to 1."
    )
    mixup: float = field(
        0.0,
        NOT_NEGATIVE,
        "Alpha of MixUp; 0 to disable. With both MixUp and CutMix, each batch gets one of them.",
    )
    cutmix: float = field(0.0, NOT_NEGATIVE, "Alpha of CutMix; 0 to disable.")
    label_smoothing: float = field(
        0.0, FRACTION, "Fraction of each label that is spread evenly over all classes, 0 to 1."
    )
    repeats: int = field(
        1,
        whole(1),
        "Number of consecutive copies of each image, each augmented differently; an epoch has "
        "fewer different images by this factor (https://arxiv.org/abs/1901.09335). MixUp and "
        "CutMix never mix copies of the same image; the batch size should be at least twice this.",
    )

    def __post_init__(self):
        """Validates each field."""
        check(self)

    @property
    def mixes_images(self) -> bool:
        """Whether MixUp or CutMix is enabled."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def mixes_labels(self) -> bool:
        """Whether labels become probabilities of the classes, float32 (batch, classes)."""
        return self.mixes_images or self.label_smoothing > 0

    def image(
        self, image_bytes: tf.Tensor, preprocessing: Preprocessing, key: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Decodes and augments one image.

        Args:
            image_bytes: Scalar string tensor: an encoded image.
            preprocessing: Gives the size, the interpolation and whether EXIF is applied.
            key: int64 tensor (2,), the random seed: equal keys give equal images.

        Returns:
            The image, uint8 (height, width, 3), and the rectangle to erase, int32 (4,).
        """
        sides, exif = preprocessing.sides, preprocessing.exif
        keys = tf.unstack(tf.random.split(key, 5))
        if self.padding is None and self.crop_scale is None:
            image = preprocessing.pixels(image_bytes)
        elif self.padding is None:
            image = crops.random_resized_crop(
                image_bytes,
                sides,
                keys[0],
                self.crop_scale,
                self.crop_ratio,
                exif=exif,
                interpolation=preprocessing.interpolation,
            )
        else:
            image = crops.random_padded_crop(image_bytes, sides, keys[0], self.padding, exif=exif)
        if self.flip:
            image = crops.random_flip(image, keys[1], self.flip)
        if self.color_jitter is not None:
            image = policies.color_jitter(image, keys[2], *self.color_jitter)
        if self.policy in POLICIES:
            image = POLICIES[self.policy](image, keys[3])
        elif self.policy is not None:
            sampling = {
                "interpolation": preprocessing.interpolation,
                "fill": [round(255 * value) for value in preprocessing.mean],
            }
            image = rand_augment(image, keys[3], parsed(self.policy), **sampling)
        if not self.erasing:
            return image, tf.zeros(4, tf.int32)
        return image, crops.random_erasure(sides, keys[4], self.erasing)

    def drawn(
        self,
        pixels: tf.Tensor,
        labels: tf.Tensor,
        erasures: tf.Tensor,
        key: tf.Tensor,
        classes: int,
        weights: tf.Tensor | None = None,
    ) -> tuple:
        """Draws the random numbers for a batch, which `apply` uses.

        Args:
            pixels: uint8 (batch, height, width, 3).
            labels: int64 (batch,), or float32 (batch, classes).
            erasures: int32 (batch, 4), from `image`.
            key: int64 tensor (2,), the random seed.
            classes: Number of classes.
            weights: Weight of each image's loss, float32 (batch,), if images weigh differently.

        Returns:
            A dictionary for `apply`, with "pixels", if there is erasing "erasures", and if images
            are mixed "partners", "shares" and "boxes" of `mixing.draw`; the labels, int64 (batch,),
            or float32 (batch, classes) if they were or `mixes_labels`; and the weights, if any.
        """
        batch = {"pixels": pixels}
        if self.erasing:
            batch["erasures"] = erasures
        if self.mixes_labels and labels.dtype.is_integer:
            labels = mixing.smooth_labels(labels, classes, self.label_smoothing)
        if self.mixes_images:
            draws = mixing.draw(pixels, key, self.mixup, self.cutmix, self.repeats)
            batch["partners"], batch["shares"], batch["boxes"], label_shares = draws
            return batch, *mixing.mix_labels(labels, batch["partners"], label_shares, weights)
        return (batch, labels) if weights is None else (batch, labels, weights)

    def apply(self, batch: Mapping[str, Any], preprocessing: Preprocessing, ops: Any = tf) -> Any:
        """Normalises, erases and mixes the images of a batch from `drawn`.

        Args:
            batch: The dictionary that `drawn` returns. A replica's part of a batch also has
                "others", the images to mix with, and "other_erasures", their rectangles.
            preprocessing: Gives the mean and the standard deviation.
            ops: `tf`, or `keras.ops` inside a step of Keras' backend.

        Returns:
            float32 (batch, height, width, 3).
        """

        def erased(pixels, erasures):
            images = preprocessing.normalise(pixels, ops)
            return images if erasures is None else crops.erase(images, erasures, ops)

        images = erased(batch["pixels"], batch.get("erasures"))
        if "shares" not in batch:
            return images
        if "others" in batch:
            others = erased(batch["others"], batch.get("other_erasures"))
        else:
            gather = tf.gather if ops is tf else ops.take
            others = gather(images, batch["partners"], axis=0)
        return mixing.blend(images, others, batch["shares"], batch["boxes"], ops)
