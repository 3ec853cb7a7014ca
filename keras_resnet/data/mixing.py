"""MixUp, CutMix and label smoothing, of whole batches."""

import tensorflow as tf


def smooth_labels(labels, classes, smoothing):
    """Labels as shares of each class: float32 (batch, classes).

    Source: torch.nn.CrossEntropyLoss (https://arxiv.org/abs/1512.00567, section 7).
    """
    return tf.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def mix(images, labels, key, mixup, cutmix):
    """Mixes each image with the one before it in the batch, and their labels alike.

    Args:
        images: float32 (batch, height, width, channels).
        labels: float32 (batch, classes).
        key: int64 tensor (2,): equal keys, equal mixtures.
        mixup: MixUp's alpha, 0 for none.
        cutmix: CutMix's alpha, 0 for none; with both, one of them is drawn for the batch.

    Source: torchvision.transforms.v2.MixUp and CutMix (https://arxiv.org/abs/1710.09412,
    https://arxiv.org/abs/1905.04899).
    """
    if not mixup and not cutmix:
        return images, labels
    keys = tf.unstack(tf.random.split(key, 4))

    def mixed_up():
        share = _beta(keys[:2], mixup)
        return images * share + tf.roll(images, 1, 0) * (1 - share), share

    def cut():
        kept, share = cut_box(images.shape[1:3], keys, cutmix)
        return tf.where(kept[..., tf.newaxis], images, tf.roll(images, 1, 0)), share

    if mixup and cutmix:
        images, share = tf.cond(tf.random.stateless_uniform((), keys[3]) < 0.5, mixed_up, cut)
    else:
        images, share = mixed_up() if mixup else cut()
    return images, labels * share + tf.roll(labels, 1, 0) * (1 - share)


def cut_box(height_width, keys, alpha):
    """Which pixels of an image stay, bool (height, width), and their share."""
    height, width = height_width
    half = 0.5 * tf.sqrt(1 - _beta(keys[:2], alpha))
    sides = tf.constant([height, width], tf.float32)
    centre = tf.floor(tf.random.stateless_uniform((2,), keys[2]) * sides)
    reach = tf.floor(half * sides)
    low, high = tf.maximum(centre - reach, 0.0), tf.minimum(centre + reach, sides)
    rows = (tf.range(height, dtype=tf.float32) >= low[0]) & (tf.range(float(height)) < high[0])
    columns = (tf.range(width, dtype=tf.float32) >= low[1]) & (tf.range(float(width)) < high[1])
    share = 1 - tf.reduce_prod(high - low) / (height * width)
    return ~(rows[:, tf.newaxis] & columns[tf.newaxis]), share


def _beta(keys, alpha):
    """A number of the distribution Beta(alpha, alpha), by two of Gamma(alpha)."""
    # Small alphas draw numbers that underflow in float32.
    first, second = (tf.random.stateless_gamma((), key, alpha, dtype=tf.float64) for key in keys)
    total = first + second
    return tf.cast(tf.where(total > 0, first / total, 0.5), tf.float32)
