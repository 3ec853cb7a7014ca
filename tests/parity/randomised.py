"""PyTorch networks with random batch normalization."""

import torch
import torchvision

from keras_resnet.configs import CONFIGS  # isort: skip (torch comes first)

# Networks that torchvision and timm have too.
NAMES = [name for name in CONFIGS if hasattr(torchvision.models, name)]


def randomise(model):
    """Gives every batch normalization random weights and statistics; switches to inference mode."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()
