"""What training does to images at random."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_resnet.data.augmentation import crops, mixing, policies
from keras_resnet.fields import (
    NOT_NEGATIVE,
    SHARE,
    check,
    documented,
    field,
    numbers,
    one_of,
    whole,
)
from keras_resnet.preprocessing import Preprocessing

POLICIES = {
    "rand_augment": policies.rand_augment,
    "trivial_augment_wide": policies.trivial_augment_wide,
}


@documented
@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What training does to images at random, in torchvision's order. Each draw has its seed."""

    crop_scale: tuple[float, float] | None = field(
        (0.08, 1.0),
        numbers(
            2,
            lambda low, high: 0 < low <= high <= 1,
            "a range, low to high, of more than 0 and at most 1",
        ),
        "Range of the crop's share of the image's area, 0 to 1. None for the evaluation "
        "transform's resizing and crop.",
    )
    crop_ratio: tuple[float, float] = field(
        (3 / 4, 4 / 3),
        numbers(2, lambda low, high: 0 < low <= high, "a range, low to high, of positive numbers"),
        "Range of the crop's width over its height.",
    )
    padding: int | None = field(
        None,
        whole(0),
        "If given, there is no resizing: this many black pixels on each side, then a crop (He et "
        "al., 2015, section 4.2, for CIFAR).",
    )
    flip: float = field(0.5, SHARE, "Share of the images that are mirrored, 0 to 1.")
    color_jitter: tuple[float, float, float, float] | None = field(
        None,
        numbers(
            4,
            lambda *jitter: min(jitter) >= 0 and jitter[3] <= 0.5,
            "(brightness, contrast, saturation, hue), each 0 or more, hue at most 0.5",
        ),
        "None, or the strength of (brightness, contrast, saturation, hue) jitter.",
    )
    policy: str | None = field(
        None, one_of(*POLICIES), 'None, "rand_augment" or "trivial_augment_wide".'
    )
    erasing: float = field(
        0.0, SHARE, "Share of the images of which a rectangle is erased, 0 to 1."
    )
    mixup: float = field(
        0.0, NOT_NEGATIVE, "Alpha of MixUp; 0 for none. With CutMix too, each batch gets one."
    )
    cutmix: float = field(0.0, NOT_NEGATIVE, "Alpha of CutMix; 0 for none.")
    label_smoothing: float = field(
        0.0, SHARE, "Share of the label that all classes get alike, 0 to 1."
    )
    repeats: int = field(
        1,
        whole(1),
        "How many times in a row an image comes, augmented anew each time, with as many fewer "
        "images an epoch (https://arxiv.org/abs/1901.09335). MixUp and CutMix never mix it with "
        "itself; for them a batch should have at least twice as many rows.",
    )

    def __post_init__(self):
        """Refuses numbers that cannot be meant."""
        check(self)

    @property
    def mixes_images(self) -> bool:
        """Whether there is MixUp or CutMix."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def mixes_labels(self) -> bool:
        """Whether labels become shares of each class, float32 (batch, classes)."""
        return self.mixes_images or self.label_smoothing > 0

    def image(
        self, image_bytes: tf.Tensor, preprocessing: Preprocessing, key: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One augmented image, uint8 (height, width, 3), and the part to erase, int32 (4,).

        Args:
            image_bytes: Scalar string tensor: an encoded image.
            preprocessing: The evaluation transform, whose crop, interpolation and `exif` hold.
            key: int64 tensor (2,): equal keys, equal images.
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
        if self.policy is not None:
            image = POLICIES[self.policy](image, keys[3])
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
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """A batch with what is drawn for it, but not yet applied.

        Args:
            pixels: uint8 (batch, height, width, 3).
            labels: int64 (batch,).
            erasures: int32 (batch, 4), from `image`.
            key: int64 tensor (2,).
            classes: How many classes there are.

        Returns:
            {"pixels": ...} with the "erasures", and the "partners", "shares" and "boxes" of
            `mixing.draw`, that there are, for `apply`; and labels: int64 (batch,), or float32
            (batch, classes) if `mixes_labels`.
        """
        batch = {"pixels": pixels}
        if self.erasing:
            batch["erasures"] = erasures
        if self.mixes_labels:
            labels = mixing.smooth_labels(labels, classes, self.label_smoothing)
        if self.mixes_images:
            draws = mixing.draw(pixels, key, self.mixup, self.cutmix, self.repeats)
            batch["partners"], batch["shares"], batch["boxes"], label_shares = draws
            labels = mixing.mix_labels(labels, batch["partners"], label_shares)
        return batch, labels

    def apply(self, batch: Mapping[str, Any], preprocessing: Preprocessing, ops: Any = tf) -> Any:
        """Normalises, erases and mixes a batch of `drawn`.

        Args:
            batch: The first part of what `drawn` returns; where it is a part of a whole batch,
                with "others", what the pixels are mixed with, and "other_erasures" of these.
            preprocessing: Whose mean and deviation are used.
            ops: `tf`, or `keras.ops` in a step of Keras' backend.

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
