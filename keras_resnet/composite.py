"""A layer made of others, of which it is saved with what was set on them."""

from typing import Any

import keras

from keras_resnet.layers import Recomputed

__all__ = ["Composite"]


def unmarked(config):
    """A layer's config without the marks by which Keras, in files, tells shared objects.

    They are numbers of objects in memory, which others have once these are gone.
    """
    if not isinstance(config, dict):
        return config
    return {key: unmarked(config[key]) for key in config if key != "shared_object_id"}


class Composite(Recomputed):
    """A layer that makes its sublayers itself, by `make_part`, and calls `check_parts` at the end.

    Its class attribute `arguments` names those arguments that are attributes, and in its config.

    Args:
        parts: What the configs of sublayers have that its own arguments don't make, by the
            sublayers' names: `{"bn1": {"trainable": False}}`.
    """

    arguments: tuple[str, ...] = ()

    def __init__(self, *, parts: dict[str, dict[str, Any]] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._parts = parts or {}
        # The configs of all sublayers, as the other arguments make them.
        self._made: dict[str, dict] = {}

    def make_part(self, make: Any, name: str, **arguments: Any) -> keras.layers.Layer:
        """Makes a sublayer by a function, with what was set on it."""
        # Where activations are recomputed, a composite is as a whole: not its parts once more.
        with keras.RematScope(None):
            part = make(name=name, dtype=self.dtype_policy, trainable=self.trainable, **arguments)
            self._made[name] = config = unmarked(part.get_config())
            if changes := self._parts.get(name):
                part = type(part).from_config({**config, **changes})
        return part

    def check_parts(self) -> None:
        """Refuses names of no sublayer."""
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
        """What was set on sublayers: what of their configs is not as this layer makes it."""
        if not self._made:  # they are made when it is built
            return self._parts
        changes = {}
        for part in self._flatten_layers(include_self=False, recursive=False):
            if made := self._made.get(part.name):
                made, config = {**made, **inherited}, unmarked(part.get_config())
                changes[part.name] = {k: v for k, v in config.items() if v != made.get(k)}
        return {name: changed for name, changed in changes.items() if changed}
