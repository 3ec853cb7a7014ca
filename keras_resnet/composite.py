"""A layer that consists of sublayers, whose modified settings are saved with it."""

from typing import Any

import keras

from keras_resnet.layers import Recomputed

__all__ = ["Composite"]


def unmarked(config):
    """Removes `shared_object_id` from a config.

    It is based on `id()`, which may be reused for another object.
    """
    if not isinstance(config, dict):
        return config
    return {key: unmarked(config[key]) for key in config if key != "shared_object_id"}


class Composite(Recomputed):
    """Base class of layers that create their sublayers with `make_part`, then call `check_parts`.

    The class attribute `arguments` lists the arguments that are also attributes and in the config.

    Args:
        parts: Config values to override in sublayers, by their names:
            `{"bn1": {"trainable": False}}`.
    """

    arguments: tuple[str, ...] = ()

    def __init__(self, *, parts: dict[str, dict[str, Any]] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._parts = parts or {}
        # The configs of all sublayers before `parts` is applied.
        self._made: dict[str, dict] = {}

    def make_part(self, make: Any, name: str, **arguments: Any) -> keras.layers.Layer:
        """Creates a sublayer with `make` and applies its entry of `parts`."""
        # Under a RematScope, the layer is recomputed as a whole, not its sublayers as well.
        with keras.RematScope(None):
            part = make(name=name, dtype=self.dtype_policy, trainable=self.trainable, **arguments)
            self._made[name] = config = unmarked(part.get_config())
            if changes := self._parts.get(name):
                part = type(part).from_config({**config, **changes})
        return part

    def check_parts(self) -> None:
        """Raises a ValueError if `parts` has names of sublayers that do not exist."""
        if unknown := self._parts.keys() - self._made.keys():
            raise ValueError(
                f"parts should name sublayers of {self.name}: {', '.join(self._made)}. "
                f"Received: {', '.join(sorted(unknown))}"
            )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config() | {name: getattr(self, name) for name in self.arguments}
        inherited = unmarked({name: config[name] for name in ("trainable", "dtype")})
        if parts := self._changed_parts(inherited):
            config["parts"] = parts
        return config

    def _changed_parts(self, inherited):
        """Returns the config values of sublayers that were changed, {name: {key: value}}."""
        if not self._made:  # not built yet
            return self._parts
        changes = {}
        for part in self._flatten_layers(include_self=False, recursive=False):
            if made := self._made.get(part.name):
                made, config = {**made, **inherited}, unmarked(part.get_config())
                changes[part.name] = {k: v for k, v in config.items() if v != made.get(k)}
        return {name: changed for name, changed in changes.items() if changed}
