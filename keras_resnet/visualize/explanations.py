"""Grad-CAM, feature maps, and the kernels of the first convolution."""

import contextlib
import os
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_resnet.blocks import ResidualBlock
from keras_resnet.builder import channels_first, walk
from keras_resnet.visualize.charts import grid, save_figure
from keras_resnet.visualize.fonts import written

COLOURS = "inferno"  # perceptually uniform, and dark for 0


def grad_cam(
    model: keras.Model,
    image: npt.ArrayLike,
    class_index: int | None = None,
    *,
    layer: str | None = None,
) -> npt.NDArray[np.float32]:
    """Computes a Grad-CAM heat map: the parts of an image that contribute to a class.

    The channels of the feature map, weighted by the mean gradient of the class's logit, are summed
    and rectified. Works with every backend.

    Args:
        model: A classifier that contains a network of this package, or another layer with a feature
            map, and ends in a Dense layer, optionally followed by an activation.
        image: One input image, (height, width, channels), or channels first if the model is.
        class_index: Index of the class. Default: the most probable one.
        layer: Name of the block or layer with the feature map, "layer3.1" for example, or
            "resnet50/layer3.1" if several nested models have one of that name. Default: the last
            block, or the ReLU after it. Earlier layers give finer, but less reliable maps.

    Returns:
        float32 array (height, width), 0 to 1; all 0 if nothing contributes to the class.

    Raises:
        ValueError: if the model is not a classifier, the image has the wrong shape, or the class or
            the layer does not exist.

    Source: Selvaraju et al., Grad-CAM, https://arxiv.org/abs/1610.02391, section 3.

    Example:
    >>> model = keras_resnet.ResNet18(classes=5)
    >>> keras_resnet.visualize.grad_cam(model, np.zeros((96, 96, 3))).shape
    (96, 96)
    """
    head = _head(model)
    blocks = [
        path
        for path, block in walk(model)
        if isinstance(block, ResidualBlock) or path.endswith("norm_relu")
    ]
    if not (layer or blocks):
        raise ValueError(f"{model.name} has no residual block: pass layer.")
    seen = _layer(model, layer or blocks[-1])
    batch = _batch(model, image)
    with _calls(seen) as calls, _calls(head) as heads:
        model(batch, training=False)
    outputs = [output for _, output in calls]
    maps = outputs[0] if len(outputs) == 1 else None  # with several calls, there is no single map
    if maps is None or len(maps.shape) != 4:
        shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
        raise ValueError(
            f"{layer} should have one feature map as its output. Its output is {shapes}."
        )
    if class_index is None:
        class_index = int(ops.argmax(heads[-1][1][0]))
    if not 0 <= class_index < head.units:
        raise ValueError(
            f"class_index should be 0 to {head.units - 1}. Received: class_index={class_index!r}"
        )

    def logit(maps):
        """Returns the logit of the class, before any activation."""
        with _calls(seen, instead=maps), _calls(head) as heads:
            model(batch, training=False)
        pooled, _ = heads[-1]
        return ops.sum(pooled[0] * head.kernel[:, class_index])

    gradient = _gradient(logit, maps)
    maps, gradient = (ops.convert_to_numpy(ops.cast(x[0], "float32")) for x in (maps, gradient))
    channel, rows = (0, 1) if channels_first(model) else (2, 0)
    weights = gradient.mean((rows, rows + 1), keepdims=True)
    heat = np.maximum((weights * maps).sum(channel), 0)
    size = batch.shape[rows + 1 : rows + 3]
    heat = ops.image.resize(
        heat[..., None] / max(heat.max(), 1e-12), size, "bilinear", data_format="channels_last"
    )
    return ops.convert_to_numpy(heat)[..., 0]


def overlay(picture: npt.ArrayLike, heat: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Draws a heat map over an image.

    Args:
        picture: RGB, uint8 array (height, width, 3).
        heat: Array (height, width), 0 to 1.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: if the sizes differ.
    """
    import matplotlib

    picture, heat = np.asarray(picture), np.asarray(heat)
    if picture.shape != (*heat.shape, 3):
        raise ValueError(
            "picture should be RGB, with the size of the heat map. Received: picture of shape "
            f"{picture.shape}, heat of shape {heat.shape}"
        )
    colours = matplotlib.colormaps[COLOURS](heat)[..., :3] * 255
    return np.round(0.5 * picture + 0.5 * colours).astype(np.uint8)


def explanation(
    picture: npt.ArrayLike, heat: npt.ArrayLike, title: str, path: str | os.PathLike[str]
) -> Path:
    """Draws an image, and next to it the image with a heat map over it.

    Args:
        picture: As for `overlay`.
        heat: As for `overlay`.
        title: Title of the heat map, the class and its probability for example.
        path: The picture to write, which is returned.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, (left, right) = grid(2, 2, 3.7, 3.5)
    (title,), how = written([title])
    left.imshow(picture)
    right.imshow(overlay(picture, heat))
    right.set_title(title, fontsize=10, **how)
    scale = ScalarMappable(Normalize(0, 1), COLOURS)
    bar = figure.colorbar(scale, ax=right, ticks=[0, 0.5, 1], shrink=0.85)
    bar.set_label("contributes to the class", fontsize=9)
    return save_figure(figure, path)


def feature_maps(
    model: keras.Model,
    image: npt.ArrayLike,
    layer: str,
    path: str | os.PathLike[str],
    *,
    count: int = 16,
) -> Path:
    """Draws the most active channels of a layer; larger values are brighter.

    Args:
        model: A model.
        image: One input image, as for `grad_cam`.
        layer: Name of the block or layer, "layer1.0" for example, as for `grad_cam`.
        path: The picture to write, which is returned.
        count: Number of channels.

    Raises:
        ValueError: if the layer does not exist or has no feature map, or the image has the wrong
            shape.
    """
    with _calls(_layer(model, layer)) as calls:
        model(_batch(model, image), training=False)
    maps = np.asarray(ops.convert_to_numpy(calls[-1][1][0]) if calls else 0)
    if maps.ndim != 3:
        raise ValueError(f"{layer} has no feature map: its output is {maps.shape}.")
    if channels_first(model):
        maps = maps.transpose(1, 2, 0)
    order = np.argsort(-np.abs(maps).mean((0, 1)), kind="stable")[:count]
    height, width, channels = maps.shape
    title = f"{layer}: the most active of {channels} channels of {height} x {width}"
    figure, places = grid(len(order), 8, 1.25, 1.45, title)
    for axes, channel in zip(places, order, strict=True):
        axes.imshow(maps[..., channel], cmap="gray")
        axes.set_title(int(channel), fontsize=8)
    return save_figure(figure, path)


def first_kernels(model: keras.Model, path: str | os.PathLike[str]) -> Path:
    """Draws the kernels of the first convolution, in color if it has three input channels.

    Args:
        model: A network of this package.
        path: The picture to write, which is returned.

    Raises:
        ValueError: if the model has no first convolution.
    """
    stems = [layer for path, layer in walk(model) if path.endswith(("conv1", "conv1.0"))]
    if not stems:
        raise ValueError(f"{model.name} has no layer conv1. Pass a network of this package.")
    kernels = ops.convert_to_numpy(stems[0].kernel).transpose(3, 0, 1, 2)
    if kernels.shape[-1] != 3:
        kernels = kernels.mean(-1, keepdims=True)
    side = kernels.shape[1]
    title = f"{stems[0].name} of {model.name}: {len(kernels)} kernels of {side} x {side}"
    figure, places = grid(len(kernels), 16 if len(kernels) > 16 else 8, 0.6, 0.6, title)
    for axes, kernel in zip(places, kernels, strict=True):
        low, high = kernel.min(), kernel.max()
        axes.imshow((kernel - low) / max(high - low, 1e-12), cmap="gray", interpolation="nearest")
    return save_figure(figure, path)


def _gradient(function, x):
    """Returns the gradient of a scalar function with respect to `x`."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.grad(function)(x)
    if backend == "torch":
        import torch

        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(function(x), x)[0].detach()
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        number = function(x)
    return tape.gradient(number, x)


def _layer(model, name):
    layers = dict(walk(model))
    found = [path for path in layers if path == name] or [
        path for path in layers if path.endswith(f"/{name}")
    ]
    if len(found) != 1:
        several = f"several layers {name!r}: {', '.join(found)}"
        none = f"no layer {name!r}. It has: {', '.join(layers)}"
        raise ValueError(f"{model.name} has {several if found else none}. Received: layer={name!r}")
    return layers[found[0]]


def _head(model):
    """Finds the Dense layer that computes a classifier's logits."""
    layers = [layer for _, layer in walk(model) if not isinstance(layer, keras.Model)]
    while isinstance(layers[-1], (keras.layers.Activation, keras.layers.Softmax)):
        layers.pop()
    if not isinstance(layers[-1], keras.layers.Dense):
        raise ValueError(
            "grad_cam explains a classifier, whose last layer is a Dense layer, fc for example. "
            f"Received: {model.name}, whose last layer is {layers[-1].name}"
        )
    return layers[-1]


@contextlib.contextmanager
def _calls(layer, instead=None):
    """Lists a layer's calls, (first input, output) of each; the output is `instead`, if given."""
    call, calls = layer.call, []

    def recorded(inputs, *args, **kwargs):
        output = call(inputs, *args, **kwargs) if instead is None else instead
        calls.append((inputs, output))
        return output

    layer.call = recorded
    try:
        yield calls
    finally:
        del layer.call


def _batch(model, image):
    """Makes a batch of one image, float32."""
    image = np.asarray(image, np.float32)
    expected = model.input_shape[1:]
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim != 3 or any(
        side not in (None, given) for side, given in zip(expected, image.shape, strict=True)
    ):
        raise ValueError(
            f"{model.name} takes one image of shape {expected}. Received: shape {image.shape}"
        )
    return ops.convert_to_tensor(image[None])
