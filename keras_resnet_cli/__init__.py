"""The command `keras-resnet`: parses arguments and calls the package.

keras_resnet, and with it TensorFlow, is imported inside the commands, so that --help is fast.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable

import typer

from keras_resnet_cli import (
    answers,
    bulk,
    exports,
    images,
    networks,
    similar,
    terminal,
    training,
    weights,
)
from keras_resnet_cli.options import Debug, Version
from keras_resnet_cli.terminal import in_words, log_to_stdout, quiet

__all__ = ["app", "in_words", "log_to_stdout", "main", "quiet"]

# By default, TensorFlow does not use oneDNN on processors without AVX512-VNNI, where a training
# step then takes 1.1 to 1.3 times as long (docs/performance.md). Set before the import.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

COMMANDS: dict[str, Callable] = {
    "list": weights.list_,
    "inspect": weights.inspect,
    "convert": weights.convert,
    "download": weights.download,
    "save-hub": weights.save_hub,
    "summary": networks.summary,
    "plot": networks.plot,
    "check-data": images.check_data,
    "shards": images.shards,
    "train": training.train,
    "evaluate": answers.evaluate,
    "predict": answers.predict,
    "explain": answers.explain,
    "embed": bulk.embed,
    "similar": similar.similar,
    "duplicates": similar.duplicates,
    "export": exports.export,
    "verify": exports.verify,
}


def _plain_flags(parameters):
    """Removes the type of flags, which take no value, from the help."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class _Command(typer.core.TyperCommand):
    def get_params(self, ctx):
        return _plain_flags(super().get_params(ctx))


class _Group(typer.core.TyperGroup):
    def get_params(self, ctx):
        return _plain_flags(super().get_params(ctx))


app = typer.Typer(
    cls=_Group,
    help="Residual networks for Keras: weights, data, training and export.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _function in COMMANDS.items():
    app.command(_name, cls=_Command)(_function)


@app.callback()
def _options(version: Version = False, debug: Debug = False):
    pass


def main():
    """Runs the command. Exit codes: 0 success, 1 failure with a one-line message, 2 wrong usage."""
    terminal.open_closed_streams()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, `head` for example, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(1)
    except (ValueError, OSError, ImportError) as error:
        if terminal.debug:
            raise
        said = in_words(error)
        print("Error:", said if isinstance(error, OSError) else _as_typed(said), file=sys.stderr)
        _leave(1)
    except Exception:
        if not _meets_others():
            raise
        traceback.print_exc()
        _leave(1)


def _as_typed(said):
    """Replaces arguments in a message by the options as typed: --validation-split."""
    if " is invalid: " in said:  # about fields in a file
        return said
    commands = vars(typer.main.get_command(app))["commands"]
    named = next((commands[word] for word in sys.argv[1:] if word in commands), None)
    for parameter in named.params if named else ():
        if "_" in parameter.name.strip("_"):
            # Not inside a path or a quotation.
            name = rf"(?<![\w/\\.'\"-]){parameter.name}(?![\w/\\'\"-]|\.\w)"
            said = re.sub(name, parameter.opts[0], said)
    return said


def _meets_others():
    """Whether this is one of several processes that train together with JAX."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _leave(code):
    """Exits; in distributed training without waiting for processes that have died, as JAX does."""
    if _meets_others():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
