"""MixUp, CutMix and label smoothing, of whole batches.

What is drawn are some numbers a row; `blend` applies them to pixels, in the pipeline or in a step.
"""

import tensorflow as tf

from keras_resnet.data.augmentation.crops import inside


def smooth_labels(labels, classes, smoothing):
    """Labels as shares of each class: float32 (batch, classes).

    Source: torch.nn.CrossEntropyLoss (https://arxiv.org/abs/1512.00567, section 7).
    """
    return tf.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def mix(images, labels, key, mixup, cutmix, repeats=1):
    """Mixes each image with the one before it in the batch, and their labels alike.

    Where an image comes `repeats` times in a row, the batch is taken for as many batches, rows
    c, c + repeats, ..., that are mixed apart, each with draws of its own: those of the processes of
    torchvision's repeated augmentation, of which none gets an image twice.

    Args:
        images: float32 (batch, height, width, channels).
        labels: float32 (batch, classes).
        key: int64 tensor (2,): equal keys, equal mixtures.
        mixup: MixUp's alpha, 0 for none.
        cutmix: CutMix's alpha, 0 for none; with both, one of them is drawn for the batch.
        repeats: How many times in a row an image comes. A row that has no partner, since the batch
            has less than twice as many rows, stays as it is.

    Source: torchvision.transforms.v2.MixUp and CutMix (https://arxiv.org/abs/1710.09412,
    https://arxiv.org/abs/1905.04899); RASampler in its references/classification.
    """
    if not mixup and not cutmix:
        return images, labels
    partners, shares, boxes, label_shares = draw(images, key, mixup, cutmix, repeats)
    mixed = blend(images, tf.gather(images, partners), shares, boxes)
    return mixed, *mix_labels(labels, partners, label_shares)


def draw(images, key, mixup, cutmix, repeats=1):
    """What mixes the rows of a batch; arguments as of `mix`.

    Returns:
        For each row: the row that it is mixed with, int32; MixUp's share of its own pixels;
        (top, left, bottom, right) of what CutMix takes from the other; and the share of its own
        label, float32.
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
    last = rows + (count - 1 - rows) // repeats * repeats  # of the same of the batches
    partners = tf.where(rows < repeats, last, rows - repeats)
    return partners, *(tf.gather(tf.stack(column), rows % repeats) for column in drawn)


def mix_labels(labels, partners, shares, weights=None):
    """(labels,) of a mixed batch, float32 (batch, classes), or (labels, weights).

    With weights, a mixture's loss is that of its two images, each times its weight, by their
    shares: cross-entropies are linear in the labels, which are therefore mixed by share times
    weight, and weighed by the sum of both.

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
    """Mixes images with others; `shares` and `boxes` are those of `draw`.

    Args:
        images: float32 (batch, height, width, channels).
        others: What each is mixed with.
        shares: float32 (batch,).
        boxes: float32 (batch, 4).
        ops: `tf`, or `keras.ops` in a step of Keras' backend.
    """
    cut = inside(images.shape[1:3], boxes[:, :2], boxes[:, 2:], ops)
    own = shares[:, None, None, None] * (1.0 - ops.cast(cut, "float32"))
    return images * own + others * (1.0 - own)


def cut_box(height_width, keys, alpha):
    """(top, left, bottom, right) of what is cut out of an image, and the share that is left."""
    height, width = height_width
    half = 0.5 * tf.sqrt(1 - _beta(keys[:2], alpha))
    sides = tf.constant([height, width], tf.float32)
    centre = tf.floor(tf.random.stateless_uniform((2,), keys[2]) * sides)
    reach = tf.floor(half * sides)
    low, high = tf.maximum(centre - reach, 0.0), tf.minimum(centre + reach, sides)
    share = 1 - tf.reduce_prod(high - low) / (height * width)
    return tf.concat([low, high], 0), share


def _beta(keys, alpha):
    """A number of the distribution Beta(alpha, alpha), by two of Gamma(alpha)."""
    # Small alphas draw numbers that underflow in float32.
    first, second = (tf.random.stateless_gamma((), key, alpha, dtype=tf.float64) for key in keys)
    total = first + second
    return tf.cast(tf.where(total > 0, first / total, 0.5), tf.float32)
