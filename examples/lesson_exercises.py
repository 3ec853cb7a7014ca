"""Checks the answers to the exercises of docs/lesson.md and docs/lesson.zh-CN.md.

Each check computes the correct answer, or compares a function with the package's layers. The
answers are in tests/test_lesson.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import keras_resnet
from keras_resnet import blocks
from keras_resnet.configs import CIFAR, CONFIGS, ResNetConfig

LANGUAGES = {
    "en": {
        "open": "Exercise {}: put your answer in the place of the three dots.",
        "right": "Exercise {}: right.",
        "wrong": "Exercise {}: not yet. {}",
        "raised": "Python says: {}",
        "shape": "An array of shape {} was expected, but yours is {}.",
    },
    "zh-CN": {
        "open": "练习 {}：请把三个点换成你的答案。",
        "right": "练习 {}：正确。",
        "wrong": "练习 {}：还不对。{}",
        "raised": "Python 报错：{}",
        "shape": "结果的形状应为 {}，你的是 {}。",
    },
}


class Hint(NamedTuple):
    """What is said of a wrong answer, in both languages."""

    english: str
    chinese: str


class Exercises:
    """The checks: `check(1, answer)` prints whether an answer to exercise 1 is right.

    Args:
        language: "en" or "zh-CN".
    """

    def __init__(self, language: str) -> None:
        self.language = language

    def __call__(self, number: int, answer: Any) -> None:
        """Prints that an answer is right, or a hint."""
        print(self.verdict(number, answer)[1])

    def verdict(self, number: int, answer: Any) -> tuple[bool | None, str]:
        """Whether an answer is right, None where there is none yet; and what is said of it."""
        words = LANGUAGES[self.language]
        try:
            if answer is ...:
                raise _OpenError
            hint = CHECKS[number](answer)
        except _OpenError:
            return None, words["open"].format(number)
        except _ShapeError as found:
            said = words["shape"].format(*found.args)
        except Exception as error:  # of the reader's function, which may raise anything
            said = words["raised"].format(f"{type(error).__name__}: {error}")
        else:
            if hint is None:
                return True, words["right"].format(number)
            said = hint.english if self.language == "en" else hint.chinese
        return False, words["wrong"].format(number, said)


class _OpenError(Exception):
    """A function that has not been written yet."""


class _ShapeError(Exception):
    """A result of another shape than the expected one."""


def _equal(found, expected):
    """Whether a function's result has the expected values; an error tells if not the shape."""
    if found is None or found is ...:
        raise _OpenError
    found = np.asarray(found)
    if found.shape != expected.shape:
        raise _ShapeError(expected.shape, found.shape)
    return np.allclose(found, expected, rtol=1e-6, atol=1e-9)


def _layers(config, each):
    """Layers of a network with so many in a block, the first convolution and the dense layer."""
    return each * sum(config.depths) + 2


def identity_blocks(answer):
    """1: how many blocks of a plain-56 have to do nothing, for it to be a plain-20."""
    shallow, deep = (sum(CONFIGS[name].depths) for name in ("resnet20", "resnet56"))
    if answer == deep - shallow:
        return None
    if answer == 2 * (deep - shallow):
        return Hint("These are layers: a block has two.", "这是层数，而每个残差块有两层。")
    return Hint(
        "Count the blocks of both: each has three stages of equally many.",
        "先数一数两个网络各有几个残差块：都是三个阶段，每个阶段的块数相同。",
    )


def fold(function):
    """2: a kernel and a bias that do what a convolution and its batch normalization do."""
    random = np.random.default_rng(2)
    x, kernel = random.normal(size=(2, 5, 5, 3)), random.normal(size=(3, 3, 3, 4))
    gamma, beta, mean = random.normal(size=(3, 4))
    variance = random.uniform(0.01, 0.1, 4)
    layer = keras_resnet.layers.BatchNormalization(dtype="float64")
    layer.build((None, 5, 5, 4))
    layer.set_weights([gamma, beta, mean, variance])
    expected = np.asarray(layer(tf.nn.conv2d(x, kernel, 1, "SAME"), training=False))
    result = function(kernel.copy(), gamma, beta, mean, variance)
    if result is None:
        raise _OpenError
    folded, bias = result
    scaled = _equal(folded, kernel * (gamma / np.sqrt(variance + layer.epsilon)))
    found = np.asarray(tf.nn.conv2d(x, tf.constant(folded, "float64"), 1, "SAME")) + bias
    if _equal(found, expected):
        return None
    if not scaled:
        return Hint(
            "The kernel is not right yet. Each of its output channels, the last axis, is "
            "multiplied by one number. Did you add epsilon, 1e-5, to the variance?",
            "卷积核还不对：每个输出通道（最后一维）各乘以一个数。方差加上 epsilon 了吗？",
        )
    return Hint(
        "The kernel is right, the bias is not. What comes out where the convolution gives 0?",
        "卷积核已经对了，偏置还不对。卷积的输出为 0 的地方，批归一化之后是多少？",
    )


def chain(answer):
    """3: how many times larger the derivative of a chain of ten blocks is with shortcuts."""
    slopes = {}
    for shortcut in (0, 1):
        x = tf.Variable(1.0, dtype="float64")
        with tf.GradientTape() as tape:
            y = tf.identity(x)
            for _ in range(10):
                y = shortcut * y + 0.1 * y
        slopes[shortcut] = float(tape.gradient(y, x))
    if np.isclose(answer, slopes[1] / slopes[0], rtol=1e-3):
        return None
    if np.isclose(answer, slopes[1], rtol=1e-3):
        return Hint(
            "This is the derivative with shortcuts. By how much is it larger than without?",
            "这是有捷径时的导数。它是没有捷径时的多少倍？",
        )
    return Hint(
        "The derivative of a chain is the product of its parts' derivatives. What is a part's, "
        "with the shortcut and without?",
        "链的导数等于各部分导数之积。有捷径时每一块的导数是多少？没有时呢？",
    )


def shortcut_a(function):
    """4: the shortcut without parameters."""
    x = np.random.default_rng(4).uniform(0.1, 1.0, (2, 6, 6, 4))
    # Its main path is zero, and its last ReLU changes nothing of what is positive.
    block = blocks.BasicBlock(10, strides=2, zero_init_residual=True, dtype="float64")
    expected = np.asarray(block(x))
    found = function(x.copy(), 10)
    if _equal(found, expected):
        return None
    if np.allclose(np.sort(found, axis=-1), np.sort(expected, axis=-1)):
        return Hint(
            "The pixels are right. Half of the new channels go before, half behind.",
            "像素取对了。新增的零通道要一半放在前面，一半放在后面。",
        )
    return Hint(
        "Take every other row and column, from the first on; do not average.",
        "从第一行、第一列开始，隔一行、隔一列取像素，不要求平均。",
    )


def price_of_v1_5(answer):
    """5: multiply-adds that the first block of layer2 of a ResNet-50 does more than in v1."""
    inputs, costs = keras.Input((56, 56, 256)), {}
    for version in ("v1", "v1.5"):
        options = {"width": 128, "strides": 2, "version": version, "projection": True}
        model = keras.Model(inputs, blocks.BottleneckBlock(512, **options)(inputs))
        stages = keras_resnet.visualize.summary(model)
        costs[version] = sum(stage.multiply_adds for stage in stages)
    if answer == costs["v1.5"] - costs["v1"]:
        return None
    if answer in costs.values():
        return Hint(
            "This is the whole block's. What is the difference?", "这是整个块的量，求的是差。"
        )
    return Hint(
        "One convolution alone costs more: the first. In v1 it computes 28 x 28 places, in v1.5 "
        "56 x 56. A place costs the product of its channels, 256 and 128.",
        "只有第一个卷积的量变了：v1 计算 28 x 28 个位置，v1.5 计算 56 x 56 个；每个位置的量是输入"
        "与输出通道数 256、128 之积。",
    )


def name_of_a_network(answer):
    """6: after how many layers a network of bottlenecks is called."""
    config = ResNetConfig("bottleneck", (3, 24, 36, 3))
    right = _layers(config, len(blocks.BottleneckBlock(4).main) // 2)
    hints = {
        right + len(config.depths): Hint(
            "Convolutions on dashed shortcuts are not counted.", "虚线捷径上的卷积不计入层数。"
        ),
        _layers(config, 2): Hint(
            "A bottleneck has three convolutions.", "瓶颈块里有三个卷积，而不是两个。"
        ),
        right - 2: Hint(
            "The first convolution and the dense layer count too.",
            "开头的卷积和最后的全连接层也要算。",
        ),
    }
    general = Hint(
        "Three for each block, and what is before and behind them.",
        "每块三层，再加上这些块之前和之后的层。",
    )
    return None if answer == right else hints.get(answer, general)


def grouped(function):
    """7: a convolution in groups."""
    random = np.random.default_rng(7)
    x, kernel = random.normal(size=(2, 5, 5, 6)), random.normal(size=(3, 3, 2, 9))
    layer = keras_resnet.layers.Conv2D(
        9, 3, padding="symmetric", groups=3, use_bias=False, dtype="float64"
    )
    layer.build(x.shape)
    layer.kernel.assign(kernel)
    if _equal(function(x, kernel, 3), np.asarray(layer(x))):
        return None
    return Hint(
        "Group g reads the g-th third of x's channels, with the g-th third of the kernel's last "
        "axis; the results stand side by side, in order.",
        "第 g 组读取 x 的第 g 份通道，用卷积核最后一维的第 g 份；各组结果按顺序在通道维上拼接。",
    )


def sides(answer):
    """8: the sides of the side outputs C2 to C5 of an image of 300 px."""
    pyramid = keras_resnet.features.pyramid("resnet18", input_shape=(300, 300, 3))
    expected = [pyramid.output[info.name].shape[1] for info in pyramid.feature_info]
    if list(answer) == expected:
        return None
    if list(answer) == [300 // info.stride for info in pyramid.feature_info]:
        return Hint(
            "With these zeros around it, a stride of 2 takes pixels 0, 2, 4, ... How many are they "
            "of 75?",
            "因为四周补了零，步长 2 取的是第 0、2、4……个像素。75 个像素里能取多少个？",
        )
    return Hint(
        "C2 has a stride of 4, and each level halves the one before, rounding up.",
        "C2 的步长是 4，之后每一级的边长是上一级的一半，向上取整。",
    )


def recall(function):
    """9: of each class, the share of its images that were recognised."""
    random = np.random.default_rng(9)
    truth = np.repeat([0, 1, 2], (10, 20, 40))
    predicted = np.where(random.random(truth.size) < 0.6, truth, random.integers(0, 3, truth.size))
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (truth, predicted), 1)
    expected = np.array([np.mean(predicted[truth == kind] == kind) for kind in range(3)])
    found = function(matrix)
    if _equal(found, expected):
        return None
    if np.allclose(found, [np.mean(truth[predicted == kind] == kind) for kind in range(3)]):
        return Hint(
            "This is the precision: how many of those that were called a rose are one. Divide by "
            "the sums of the other direction.",
            "这是精确率（precision）：被判为某类的图像里有多少真是这一类。换一个方向求和再除。",
        )
    return Hint(
        "Right answers are on the diagonal; a row holds all images of one class.",
        "判对的数目在对角线上；一行是同一真实类别的全部图像。",
    )


def thousand(answer):
    """10: blocks a stage of the CIFAR network of bottlenecks with 1001 layers."""
    if _layers(ResNetConfig("bottleneck", (answer,) * 3, family=CIFAR), 3) == 1001:
        return None
    return Hint(
        "Three stages of n blocks of three layers, the first convolution and the dense layer: "
        "solve for n.",
        "三个阶段，每阶段 n 块，每块三层，再加开头的卷积和全连接层：列出方程求 n。",
    )


CHECKS: dict[int, Callable[[Any], Hint | None]] = dict(
    enumerate(
        (
            *(identity_blocks, fold, chain, shortcut_a, price_of_v1_5),
            *(name_of_a_network, grouped, sides, recall, thousand),
        ),
        start=1,
    )
)
