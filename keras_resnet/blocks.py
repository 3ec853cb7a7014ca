"""The residual blocks: a main path and a shortcut, added and rectified.

A block's sublayers are named as in torchvision's state_dict, so a variable's path is its key:
`layer1.0/conv1/kernel` is `layer1.0.conv1.weight`.
"""

from typing import Any

import keras
from keras import ops

from keras_resnet.layers import PACKAGE, BatchNormalization, Conv2D, Recomputed, Shape, Tensor

__all__ = ["BasicBlock", "BottleneckBlock", "ResidualBlock"]

# Arguments of a block that are its attributes, and in its config.
ARGUMENTS = (
    *("filters", "width", "strides", "dilation_rate", "first_dilation_rate", "groups", "version"),
    *("projection", "drop_path", "zero_init_residual", "synchronized", "folded", "data_format"),
)


def convolution(filters, kernel_size, *, name, data_format, dtype, use_bias=False, **kwargs):
    """A convolution as all of the family's: symmetric padding, Kaiming normal, no bias."""
    # A new initializer for each, since one gives equal values to equal shapes.
    kaiming = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return Conv2D(
        filters,
        kernel_size,
        padding="symmetric",
        use_bias=use_bias,
        kernel_initializer=kaiming,
        data_format=data_format,
        dtype=dtype,
        name=name,
        **kwargs,
    )


def batch_normalization(*, name, data_format, dtype, **kwargs):
    """Batch normalization over the channels of `data_format`."""
    axis = 1 if data_format == "channels_first" else -1
    return BatchNormalization(axis=axis, dtype=dtype, name=name, **kwargs)


def unmarked(config):
    """A layer's config without the marks by which Keras, in files, tells shared objects.

    They are numbers of objects in memory, which others have once these are gone.
    """
    if not isinstance(config, dict):
        return config
    return {key: unmarked(config[key]) for key in config if key != "shared_object_id"}


class ResidualBlock(Recomputed):
    """What the two blocks share: their arguments, the shortcut, and the order of building.

    A subclass makes the layers of its main path in `_make_main`, listed in call order.

    Args:
        filters: Channels of the output.
        width: Channels inside the block (of a bottleneck's 3x3 convolution).
        strides: Stride of the block, 1 or 2.
        dilation_rate: Dilation of the 3x3 convolutions that come after the block's stride.
        first_dilation_rate: Dilation of the 3x3 convolution that has the stride; `dilation_rate`
            if None. They differ where dilation takes the place of this block's stride.
        groups: Groups of the 3x3 convolution (bottleneck only).
        version: "v1.5" strides on the 3x3 convolution (torchvision), "v1" on the first 1x1
            (He et al., 2015). The two are one for a basic block.
        projection: Whether the shortcut is a 1x1 convolution (option B of the paper, section 3.3)
            or the identity. At a stride, the identity takes every other pixel; to more channels,
            it adds zeros on both sides (option A, which has no parameters).
        drop_path: Probability, 0 to 1, of dropping the main path of a sample in training
            (stochastic depth, https://arxiv.org/abs/1603.09382).
        zero_init_residual: Whether the last batch normalization starts with gamma = 0, so that
            the block starts as its shortcut (https://arxiv.org/abs/1706.02677, section 5.1).
        synchronized: Whether batch statistics are taken over all replicas.
        folded: Whether batch normalization is part of the convolutions, which then have biases:
            for inference (`keras_resnet.export.fold`).
        data_format: "channels_last" or "channels_first"; Keras' default if None.
        parts: What the configs of sublayers have that these arguments don't make, by the
            sublayers' names: `{"bn1": {"trainable": False}}`.

    Raises:
        ValueError: if `parts` names a sublayer that the block has not.
    """

    def __init__(
        self,
        filters: int,
        *,
        width: int | None = None,
        strides: int = 1,
        dilation_rate: int = 1,
        first_dilation_rate: int | None = None,
        groups: int = 1,
        version: str = "v1.5",
        projection: bool = False,
        drop_path: float = 0.0,
        zero_init_residual: bool = False,
        synchronized: bool = False,
        folded: bool = False,
        data_format: str | None = None,
        parts: dict[str, dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.width = width or filters
        self.strides = strides
        self.dilation_rate = dilation_rate
        self.first_dilation_rate = first_dilation_rate or dilation_rate
        self.groups = groups
        self.version = version
        self.projection = projection
        self.drop_path = drop_path
        self.zero_init_residual = zero_init_residual
        self.synchronized = synchronized
        self.folded = folded
        self.data_format = data_format or keras.config.image_data_format()
        self._parts = parts or {}
        # The configs of all sublayers, as the other arguments make them.
        self._made: dict[str, dict] = {}
        self.main = self._make_main()
        self.shortcut = []
        if projection:
            # "downsample" is torchvision's word for the projection, at stride 1 too.
            self.downsample_conv = self._conv("downsample.0", filters, 1, strides=strides)
            self.downsample_bn = self._bn("downsample.1")
            self.shortcut = [self.downsample_conv, self.downsample_bn]
        if drop_path:
            # One draw a sample: dropout whose noise is constant over height, width, channels.
            self.dropper = self._part(
                keras.layers.Dropout, "drop_path", rate=drop_path, noise_shape=(None, 1, 1, 1)
            )
        if unknown := self._parts.keys() - self._made.keys():
            raise ValueError(
                f"parts should name sublayers of {self.name}: {', '.join(self._made)}. "
                f"Received: {', '.join(sorted(unknown))}"
            )

    def _part(self, make, name, **arguments):
        # Where activations are recomputed, a block is as a whole: not its parts once more.
        with keras.RematScope(None):
            part = make(name=name, dtype=self.dtype_policy, trainable=self.trainable, **arguments)
            self._made[name] = config = unmarked(part.get_config())
            if changes := self._parts.get(name):
                part = type(part).from_config({**config, **changes})
        return part

    def _conv(self, name, filters, kernel_size, **kwargs):
        return self._part(
            convolution,
            name,
            filters=filters,
            kernel_size=kernel_size,
            data_format=self.data_format,
            use_bias=self.folded,
            **kwargs,
        )

    def _bn(self, name, last=False):
        if self.folded:
            return keras.layers.Identity(dtype=self.dtype_policy, name=name)
        return self._part(
            batch_normalization,
            name,
            data_format=self.data_format,
            synchronized=self.synchronized,
            gamma_initializer="zeros" if last and self.zero_init_residual else "ones",
        )

    def build(self, input_shape: Shape) -> None:
        self.new_channels = 0
        if not self.projection:
            axis = 1 if self.data_format == "channels_first" else -1
            self.new_channels = self.filters - input_shape[axis]
        if self.new_channels < 0:
            raise ValueError(
                f"The block {self.name} would leave channels out. Use projection=True. Received: "
                f"filters={self.filters}, input_shape={tuple(input_shape)}"
            )
        for path in (self.main, self.shortcut):
            shape = input_shape
            for layer in path:
                layer.build(shape)
                shape = layer.compute_output_shape(shape)

    def finish(self, y: Tensor, inputs: Tensor, training: bool | None) -> Tensor:
        """Adds the shortcut to the main path's `y`; the block's last ReLU."""
        if self.drop_path:
            y = self.dropper(y, training=training)
        if self.projection:
            shortcut = self.downsample_bn(self.downsample_conv(inputs), training=training)
        else:
            shortcut = self._identity(inputs)
        return ops.relu(ops.add(y, shortcut))

    def _identity(self, x):
        """The inputs in the shape of the output, without parameters."""
        first = self.data_format == "channels_first"
        if self.strides > 1:
            step = slice(None, None, self.strides)
            x = x[:, :, step, step] if first else x[:, step, step]
        if self.new_channels:
            # As akamaster/pytorch_resnet_cifar10: half of the zeros before, half after.
            before = self.new_channels // 2
            zeros = (before, self.new_channels - before)
            none = (0, 0)
            x = ops.pad(x, (none, zeros, none, none) if first else (none, none, none, zeros))
        return x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        for layer in self.main:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = super().get_config() | {name: getattr(self, name) for name in ARGUMENTS}
        inherited = unmarked({name: config[name] for name in ("trainable", "dtype")})
        if parts := self._changed_parts(inherited):
            config["parts"] = parts
        return config

    def _changed_parts(self, inherited):
        """What was set on sublayers: what of their configs is not as this block makes it."""
        changes = {}
        for part in (*self.main, *self.shortcut, *([self.dropper] if self.drop_path else [])):
            if made := self._made.get(part.name):
                made, config = {**made, **inherited}, unmarked(part.get_config())
                changes[part.name] = {k: v for k, v in config.items() if v != made[k]}
        return {name: changed for name, changed in changes.items() if changed}


@keras.saving.register_keras_serializable(PACKAGE)
class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (He et al., 2015, figure 5 left): ResNet-18, -34 and the CIFAR ones.

    Takes the arguments of `ResidualBlock`, of which `width`, `groups` and `version` have no
    effect. Input (batch, height, width, channels), output (batch, height / strides,
    width / strides, filters).
    """

    def _make_main(self):
        first = {"strides": self.strides, "dilation_rate": self.first_dilation_rate}
        self.conv1 = self._conv("conv1", self.filters, 3, **first)
        self.bn1 = self._bn("bn1")
        self.conv2 = self._conv("conv2", self.filters, 3, dilation_rate=self.dilation_rate)
        self.bn2 = self._bn("bn2", last=True)
        return [self.conv1, self.bn1, self.conv2, self.bn2]

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        y = ops.relu(self.bn1(self.conv1(inputs), training=training))
        y = self.bn2(self.conv2(y), training=training)
        return self.finish(y, inputs, training)


@keras.saving.register_keras_serializable(PACKAGE)
class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (He et al., 2015, figure 5 right): ResNet-50 and deeper.

    A ResNeXt block is one with `groups`, a Wide ResNet block one with a larger `width`. Takes
    the arguments of `ResidualBlock`. Input (batch, height, width, channels), output (batch,
    height / strides, width / strides, filters).
    """

    def _make_main(self):
        first, second, dilation = 1, self.strides, self.first_dilation_rate
        if self.version == "v1":
            first, second, dilation = self.strides, 1, self.dilation_rate
        main = {"strides": second, "dilation_rate": dilation, "groups": self.groups}
        self.conv1 = self._conv("conv1", self.width, 1, strides=first)
        self.bn1 = self._bn("bn1")
        self.conv2 = self._conv("conv2", self.width, 3, **main)
        self.bn2 = self._bn("bn2")
        self.conv3 = self._conv("conv3", self.filters, 1)
        self.bn3 = self._bn("bn3", last=True)
        return [self.conv1, self.bn1, self.conv2, self.bn2, self.conv3, self.bn3]

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        y = ops.relu(self.bn1(self.conv1(inputs), training=training))
        y = ops.relu(self.bn2(self.conv2(y), training=training))
        y = self.bn3(self.conv3(y), training=training)
        return self.finish(y, inputs, training)
