"""Writes logits.npz and state_dict_keys.json; needs torchvision.

Written by `python tests/golden/make_golden.py` with torch 2.14.1 and torchvision 0.29.1.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torchvision
from rule import array

HERE = Path(__file__).parent
NAMES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
)
SIZES = ((64, 64), (65, 97))


def main():
    """Writes both files to this folder."""
    logits, keys = {}, {}
    for name in NAMES:
        model = torchvision.models.get_model(name, num_classes=7).eval()
        state = {key: array(key, tuple(value.shape)) for key, value in model.state_dict().items()}
        model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
        if name in ("resnet18", "resnet50", "resnext50_32x4d"):
            keys[name] = {key: list(value.shape) for key, value in state.items()}
        for height, width in SIZES:
            images = torch.from_numpy(array("images", (2, 3, height, width)))
            with torch.no_grad():
                logits[f"{name}/{height}x{width}"] = model(images).numpy()
    np.savez(HERE / "logits.npz", **logits)
    (HERE / "state_dict_keys.json").write_text(json.dumps(keys, separators=(",", ":")))


if __name__ == "__main__":
    main()
