"""Random changes to training images, with torchvision's and PIL's numbers."""

from keras_resnet.data.augmentation.augmentation import Augmentation

__all__ = ["Augmentation"]
