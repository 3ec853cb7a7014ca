"""Folding compared with torch's own fusion of convolution and batch normalization."""

import numpy as np
import pytest
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

import keras_resnet  # isort: skip (torch comes first)
import keras

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(("groups", "bias"), [(1, False), (4, True)])
def test_folding_is_torchs_fusion(groups, bias):
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(8, 16, 3, padding=1, groups=groups, bias=bias)
    normalization = torch.nn.BatchNorm2d(16)
    for value in (normalization.weight, normalization.running_var):
        torch.nn.init.uniform_(value, 0.5, 1.5)
    for value in (normalization.bias, normalization.running_mean):
        torch.nn.init.normal_(value)
    fused = fuse_conv_bn_eval(convolution.eval(), normalization.eval())

    layers = keras_resnet.layers
    inputs = keras.Input((8, 8, 8))
    convolved = layers.Conv2D(16, 3, padding="symmetric", groups=groups, use_bias=bias)(inputs)
    model = keras.Model(inputs, layers.BatchNormalization()(convolved))
    ours, normalised = model.layers[1:]
    kernel = [convolution.weight.detach().numpy().transpose(2, 3, 1, 0)]
    ours.set_weights(kernel + ([convolution.bias.detach().numpy()] if bias else []))
    state = (normalization.weight, normalization.bias)
    state += (normalization.running_mean, normalization.running_var)
    normalised.set_weights([value.detach().numpy() for value in state])
    kernel, added = keras_resnet.export.fold(model).layers[1].get_weights()
    expected = fused.weight.detach().numpy().transpose(2, 3, 1, 0)
    np.testing.assert_allclose(kernel, expected, atol=1e-6)
    np.testing.assert_allclose(added, fused.bias.detach().numpy(), atol=1e-6)
