"""Repositories of the Hugging Face hub, and folders that are laid out like them.

`huggingface_hub` fetches, caches and knows tokens; it is imported, and the hub asked, only for a
source that says `hf://`.
"""

import os
import re
from pathlib import Path

from keras_resnet.weights.errors import CheckpointError

ADVICE = "Download it again, or move it away."  # where a description is damaged
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
FILES = ("model.safetensors", "pytorch_model.bin")
# A path has one of the slashes only.
ADDRESS = re.compile(r"hf://?(?P<repository>[^/@]+/[^/@]+)(@(?P<revision>.+))?")


def is_address(source: object) -> bool:
    """Whether a source is meant to be on the hub."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).startswith("hf:/")


def is_snapshot(source: object) -> bool:
    """Whether a source is a folder as the hub has them, with a config.json."""
    return isinstance(source, str | os.PathLike) and (Path(source) / CONFIG).is_file()


def weights_file(source: str | os.PathLike[str]) -> Path:
    """The file of weights of an address or of such a folder, with its config.json beside it.

    Args:
        source: "hf://owner/name", "hf://owner/name@revision", or a folder. Of a repository, its
            config.json and the file are fetched, and nothing else, unless they are cached.

    Raises:
        CheckpointError: if there is no such file, or it cannot be had.
        ImportError: without the hub extra.
    """
    if is_address(source):
        config = _fetched(source, CONFIG)
        # The others are of the same commit, after which the folder of a snapshot is called.
        found = next((path for name in FILES if (path := _fetched(source, name, config))), None)
    else:
        found = next((path for name in FILES if (path := Path(source) / name).is_file()), None)
    if found is None:
        raise CheckpointError(
            f"{source} has a {CONFIG}, but no {' or '.join(FILES)}: it has no weights, or they are "
            "in an unsupported format or split into several files."
        )
    return found


def beside(source: str | os.PathLike[str], name: str) -> Path | None:
    """A file that describes weights: beside them, in a folder or in a repository; None without it.

    Args:
        source: A file of weights, or as of `weights_file`.
        name: CONFIG or PREPROCESSOR.

    Raises:
        CheckpointError: if a repository cannot be asked.
    """
    if is_address(source):
        config = _fetched(source, CONFIG)
        return config if name == CONFIG else _fetched(source, name, config)
    folder = Path(source) if is_snapshot(source) else Path(source).parent
    return folder / name if (folder / name).is_file() else None


def _fetched(address, name, config=None):
    """A file of a repository in the cache of huggingface_hub; None if there are only others."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise ImportError(
            f"{address} is on the Hugging Face hub: pip install 'keras3-resnet[hub]'"
        ) from error
    found = ADDRESS.fullmatch(os.fspath(address))
    if found is None:
        raise CheckpointError(
            "Hub addresses should be hf://owner/name or hf://owner/name@revision. Received: "
            f"{os.fspath(address)!r}"
        )
    revision = config.parent.name if config else found["revision"]
    try:
        return Path(huggingface_hub.hf_hub_download(found["repository"], name, revision=revision))
    except Exception as error:  # of the library, and of the one that it fetches with
        if config and isinstance(error, EntryNotFoundError):
            return None
        said = " ".join(str(error).split()).removesuffix(".")
        raise CheckpointError(
            f"{name} of {address} cannot be downloaded: {type(error).__name__}: {said[:400]}. "
            "Check the name, the connection and, for private repositories, HF_TOKEN. "
            "HF_HUB_OFFLINE=1 uses cached files; or pass a copy of the repository's folder."
        ) from error
