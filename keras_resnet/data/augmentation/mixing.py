"""MixUp, CutMix and label smoothing of batches.

`draw` draws the random numbers for each row; `blend` applies them to the pixels, in the pipeline
or in the training step.
"""

import tensorflow as tf

from keras_resnet.data.augmentation.crops import inside


def smooth_labels(labels, classes, smoothing):
    """Converts class indices to smoothed one-hot labels, float32 (batch, classes).

    Source: torch.nn.CrossEntropyLoss (https://arxiv.org/abs/1512.00567, section 7).
    """
    return tf.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def mix(images, labels, key, mixup, cutmix, repeats=1):
    """Mixes each image with the previous one in the batch, and their labels accordingly.

    If each image is repeated `repeats` times in a row, rows c, c + repeats, ... are treated as one
    of `repeats` separate batches with their own random numbers, which correspond to the processes
    in torchvision's repeated augmentation. No image is mixed with its own copy.

    Args:
        images: float32 (batch, height, width, channels).
        labels: float32 (batch, classes).
        key: int64 tensor (2,), the random seed.
        mixup: Alpha of MixUp; 0 to disable.
        cutmix: Alpha of CutMix; 0 to disable. With both, one of them is drawn for each batch.
        repeats: Number of consecutive copies of each image. If the batch has fewer than twice as
            many rows, rows without a partner are unchanged.

    Source: torchvision.transforms.v2.MixUp and CutMix (https://arxiv.org/abs/1710.09412,
    https://arxiv.org/abs/1905.04899); RASampler in its references/classification.
    """
    if not mixup and not cutmix:
        return images, labels
    partners, shares, boxes, label_shares = draw(images, key, mixup, cutmix, repeats)
    mixed = blend(images, tf.gather(images, partners), shares, boxes)
    return mixed, *mix_labels(labels, partners, label_shares)


def draw(images, key, mixup, cutmix, repeats=1):
    """Draws the random numbers for mixing a batch; arguments as for `mix`.

    Returns:
        For each row: the index of the row to mix it with, int32; the weight of its own pixels in
        MixUp; the box that CutMix takes from the other row, (top, left, bottom, right); and the
        weight of its own label, float32.
    """

    def one_batch(key):
        keys = tf.unstack(tf.random.split(key, 4))

        def mixed_up():
            share = _beta(keys[:2], mixup)
            return share, tf.zeros(4), share

        def cut():
            return tf.constant(1.0), *cut_box(images.shape[1:3], keys, cutmix)

        if mixup and cutmix:
            return tf.cond(tf.random.stateless_uniform((), keys[3]) < 0.5, mixed_up, cut)
        return mixed_up() if mixup else cut()

    keys = [key] if repeats == 1 else [tf.random.fold_in(key, copy) for copy in range(repeats)]
    drawn = zip(*map(one_batch, keys), strict=True)
    count = tf.shape(images)[0]
    rows = tf.range(count)
    last = rows + (count - 1 - rows) // repeats * repeats  # of the same separate batch
    partners = tf.where(rows < repeats, last, rows - repeats)
    return partners, *(tf.gather(tf.stack(column), rows % repeats) for column in drawn)


def mix_labels(labels, partners, shares, weights=None):
    """Mixes the labels of a batch; returns (labels,), or (labels, weights) if there are weights.

    The loss of a mixed image is the weighted sum of the losses of its two images: since
    cross-entropies are linear in the labels, these are mixed by share times weight, and the new
    weight is the sum of both.

    Args:
        labels: float32 (batch, classes).
        partners: As from `draw`.
        shares: As from `draw`.
        weights: float32 (batch,).
    """

    def mixed(values):
        return values * shares[:, None] + tf.gather(values, partners) * (1 - shares[:, None])

    if weights is None:
        return (mixed(labels),)
    weights = weights[:, tf.newaxis]
    total = mixed(weights)
    return tf.math.divide_no_nan(mixed(labels * weights), total), total[:, 0]


def blend(images, others, shares, boxes, ops=tf):
    """Mixes images with others; `shares` and `boxes` are from `draw`.

    Args:
        images: float32 (batch, height, width, channels).
        others: The images to mix with, in the same order.
        shares: float32 (batch,).
        boxes: float32 (batch, 4).
        ops: `tf`, or `keras.ops` inside a step of Keras' backend.
    """
    cut = inside(images.shape[1:3], boxes[:, :2], boxes[:, 2:], ops)
    own = shares[:, None, None, None] * (1.0 - ops.cast(cut, "float32"))
    return images * own + others * (1.0 - own)


def cut_box(height_width, keys, alpha):
    """Draws CutMix's box, (top, left, bottom, right), and the fraction of the area outside it."""
    height, width = height_width
    half = 0.5 * tf.sqrt(1 - _beta(keys[:2], alpha))
    sides = tf.constant([height, width], tf.float32)
    centre = tf.floor(tf.random.stateless_uniform((2,), keys[2]) * sides)
    reach = tf.floor(half * sides)
    low, high = tf.maximum(centre - reach, 0.0), tf.minimum(centre + reach, sides)
    share = 1 - tf.reduce_prod(high - low) / (height * width)
    return tf.concat([low, high], 0), share


def _beta(keys, alpha):
    """Draws from Beta(alpha, alpha), by way of two Gamma(alpha) variables."""
    # With a small alpha, these may underflow in float32.
    first, second = (tf.random.stateless_gamma((), key, alpha, dtype=tf.float64) for key in keys)
    total = first + second
    return tf.cast(tf.where(total > 0, first / total, 0.5), tf.float32)
