"""Grad-CAM compared with hooks in torchvision's network."""

import numpy as np
import pytest
import torch
import torchvision

import keras_resnet  # isort: skip (torch comes first)
from randomised import randomise

pytestmark = pytest.mark.parity


def theirs(model, module, x, class_index):
    """Equations 1 and 2 of the paper, with feature maps from a hook."""
    kept = {}
    handle = module.register_forward_hook(lambda module, inputs, output: kept.update(maps=output))
    logits = model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, class_index], kept["maps"])
    heat = torch.relu((gradient.mean((2, 3), keepdim=True) * kept["maps"]).sum(1, keepdim=True))
    heat = torch.nn.functional.interpolate(heat / heat.max(), x.shape[2:], mode="bilinear")
    return heat[0, 0].detach().numpy()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_heat_maps(name, tmp_path):
    model = randomise(torchvision.models.get_model(name, num_classes=7))
    torch.save(model.state_dict(), tmp_path / "w.pth")
    ours = keras_resnet.create(name, weights=tmp_path / "w.pth", classes=7)
    x = np.random.default_rng(0).normal(size=(1, 3, 96, 128)).astype(np.float32)
    with torch.no_grad():
        best = int(model(torch.from_numpy(x)).argmax())
    for layer in ("layer2.1", "layer3.1", f"layer4.{len(model.layer4) - 1}"):
        stage, index = layer.split(".")
        expected = theirs(model, getattr(model, stage)[int(index)], torch.from_numpy(x), best)
        heat = keras_resnet.visualize.grad_cam(ours, x[0].transpose(1, 2, 0), best, layer=layer)
        assert expected.max() > 0.5  # the map is not empty
        np.testing.assert_allclose(heat, expected, atol=1e-4)
