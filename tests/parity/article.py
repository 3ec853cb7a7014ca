"""The article's training script, in PyTorch: a folder of flowers, Adam, the best checkpoint."""

import argparse
from pathlib import Path

import torch
import torchvision
from torchvision import transforms


def train(folder, *, model, size, epochs, batch_size=16, learning_rate=1e-4, seed=0):
    """Trains on folder/train; returns the best accuracy on folder/val of all epochs."""
    torch.manual_seed(seed)
    normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    train_transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            normalize,
        ]
    )
    val_transform = transforms.Compose(
        [
            transforms.Resize(round(size * 256 / 224)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            normalize,
        ]
    )
    train_set = torchvision.datasets.ImageFolder(folder / "train", train_transform)
    val_set = torchvision.datasets.ImageFolder(folder / "val", val_transform)
    train_loader = torch.utils.data.DataLoader(train_set, batch_size, shuffle=True)
    val_loader = torch.utils.data.DataLoader(val_set, batch_size)
    net = torchvision.models.get_model(model, num_classes=len(train_set.classes))
    optimizer = torch.optim.Adam(net.parameters(), learning_rate)
    loss_function = torch.nn.CrossEntropyLoss()
    best = 0.0
    for _ in range(epochs):
        net.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss_function(net(images), labels).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            right = sum(
                int((net(images).argmax(1) == labels).sum()) for images, labels in val_loader
            )
        best = max(best, right / len(val_set))
    return best


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="resnet34")
    for name, default in (("image-size", 224), ("epochs", 15), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = vars(parser.parse_args())
    print("best accuracy", train(given.pop("folder"), size=given.pop("image_size"), **given))
