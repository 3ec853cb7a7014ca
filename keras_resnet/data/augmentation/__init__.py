"""Random augmentation of training images, numerically as in torchvision and PIL."""

from keras_resnet.data.augmentation.augmentation import Augmentation

__all__ = ["Augmentation"]
