"""ResNets in Keras, in one file to read or to copy: blocks, builder, training on CIFAR-10.

python resnet_in_one_file.py cifar10.npz

trains a ResNet-20 on the arrays x_train, y_train, x_test and y_test of a file: uint8 (images, 32,
32, 3), and the labels, 0 to 9. `keras.datasets.cifar10.load_data()` downloads them.

The networks are those of He et al., "Deep residual learning" (https://arxiv.org/abs/1512.03385), as
torchvision builds them; `keras_resnet` builds the same, with the same numbers, and much more.
"""

import sys

import keras
import numpy as np
from keras import layers, ops

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def convolve(x, filters, size, strides=1, groups=1):
    """Convolution and batch normalization. Zeros are padded on both sides, as in PyTorch."""
    x = layers.ZeroPadding2D(size // 2)(x) if size > 1 else x
    start = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    convolution = layers.Conv2D(
        filters, size, strides, groups=groups, use_bias=False, kernel_initializer=start
    )
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(convolution(x))


def basic(x, filters, strides, **_):
    """The main path of ResNet-18 and -34: two 3x3 convolutions (figure 5, left)."""
    x = layers.ReLU()(convolve(x, filters, 3, strides))  # (B, H / strides, W / strides, filters)
    return convolve(x, filters, 3)


def bottleneck(x, filters, strides, groups=1, width=64):
    """That of ResNet-50 and deeper: 1x1, 3x3, 1x1 (figure 5, right). The 3x3 has the stride (v1.5).

    A ResNeXt has groups of a smaller width (https://arxiv.org/abs/1611.05431, figure 3).
    """
    inner = filters // 4 * width // 64 * groups
    x = layers.ReLU()(convolve(x, inner, 1))  # (B, H, W, inner)
    x = layers.ReLU()(convolve(x, inner, 3, strides, groups))
    return convolve(x, filters, 1)  # (B, H / strides, W / strides, filters)


def projection(x, filters, strides):
    """The shortcut where the shape changes, a dashed line in the paper's figure 3 (option B)."""
    return convolve(x, filters, 1, strides)


def zeros(x, filters, strides):
    """The same without parameters (option A): every other pixel, and channels of zeros."""
    more = filters - x.shape[-1]
    x = x[:, ::strides, ::strides]
    return ops.pad(x, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))


def block(x, main, filters, strides, dashed, **options):
    """A residual block: what the main path finds is added to the shortcut."""
    y = main(x, filters, strides, **options)
    if strides > 1 or x.shape[-1] != filters:
        x = dashed(x, filters, strides)
    return layers.ReLU()(y + x)


def stages(x, main, depths, filters, dashed=projection, **options):
    """Blocks; from stage to stage half the size and twice the channels."""
    for stage, depth in enumerate(depths):
        for index in range(depth):
            strides = 2 if stage > 0 and index == 0 else 1
            x = block(x, main, filters * 2**stage, strides, dashed, **options)
    return x


def classify(inputs, x, classes):
    """The head: the mean of each channel, and a dense layer."""
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, "softmax")(x))


def resnet(main, depths, classes=1000, **options):
    """A network for ImageNet (table 1), of normalised images (B, H, W, 3), 224 px as a rule."""
    inputs = keras.Input((None, None, 3))
    x = layers.ReLU()(convolve(inputs, 64, 7, strides=2))
    # ReLU's outputs are not negative: zeros around them change no maximum.
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    x = stages(x, main, depths, 256 if main is bottleneck else 64, **options)
    return classify(inputs, x, classes)


def cifar_resnet(depth, classes=10):
    """A network for images of 32 px (section 4.2); depth is 6n + 2: 20, 32, 44, 56, 110."""
    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(convolve(inputs, 16, 3))
    return classify(inputs, stages(x, basic, [(depth - 2) // 6] * 3, 16, dashed=zeros), classes)


def resnet18(**options):
    """11,689,512 parameters."""
    return resnet(basic, (2, 2, 2, 2), **options)


def resnet50(**options):
    """25,557,032 parameters. 50 layers: 1 + 3 * (3 + 4 + 6 + 3) + 1, without the projections."""
    return resnet(bottleneck, (3, 4, 6, 3), **options)


def resnext50_32x4d(**options):
    """25,028,904 parameters."""
    return resnet(bottleneck, (3, 4, 6, 3), groups=32, width=4, **options)


def batches(x, y, size=128):
    """Endless batches of images that are padded by 4, cropped and mirrored (section 4.2)."""
    random, x = np.random.default_rng(0), np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
    while True:
        order = random.permutation(len(y))
        for start in range(0, len(y) - size + 1, size):
            chosen = order[start : start + size]
            corners = random.integers(0, 9, (size, 2))
            pairs = zip(chosen, corners, strict=True)
            images = np.array([x[i, a : a + 32, b : b + 32] for i, (a, b) in pairs])
            mirrored = random.random((size, 1, 1, 1)) < 0.5
            yield normalise(np.where(mirrored, images[:, :, ::-1], images)), y[chosen]


def normalise(pixels):
    """0..255 to a mean of 0 and a deviation of 1, about, of each channel."""
    return ((pixels / 255 - MEAN) / STD).astype("float32")


def main(file, epochs=200):
    """Trains a ResNet-20: the rate is 0.1, a tenth of it from half of the time, and of 3/4 on."""
    with np.load(file) as arrays:
        x, y, x_test, y_test = (arrays[f"{a}_{b}"] for b in ("train", "test") for a in "xy")
    model, steps = cifar_resnet(20), len(y) // 128
    drops = [epochs * steps // 2, epochs * steps * 3 // 4]
    rate = keras.optimizers.schedules.PiecewiseConstantDecay(drops, [0.1, 0.01, 0.001])
    optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    test = (normalise(x_test), y_test.ravel())
    how = {"epochs": epochs, "steps_per_epoch": steps, "shuffle": False}
    return model.fit(batches(x, y.ravel()), validation_data=test, **how)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
