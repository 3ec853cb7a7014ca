"""What only adorns a training: where it fails, there is a warning, and the work goes on."""

import contextlib
import functools
import logging

logger = logging.getLogger("keras_resnet")


@contextlib.contextmanager
def adorning(what, missing):
    """Makes of any error in its block a warning.

    Args:
        what: What the block makes: a file's name.
        missing: {what: why it is missing}, which is told.
    """
    try:
        yield
    except Exception as error:
        missing[what] = " ".join(str(error).split()) or type(error).__name__
        logger.warning("There will be no %s: %s", what, missing[what])


def until_it_fails(callback, what, missing):
    """Has a Keras callback do its work up to its first error; arguments as of `adorning`."""

    def harmless(hook):
        @functools.wraps(hook)
        def call(*arguments, **named):
            if what not in missing:
                with adorning(what, missing):
                    hook(*arguments, **named)

        return call

    for name in dir(callback):
        if name.startswith(("on_", "set_")):
            setattr(callback, name, harmless(getattr(callback, name)))
    return callback
