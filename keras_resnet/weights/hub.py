"""Repositories on the Hugging Face hub, and folders with the same layout.

`huggingface_hub` handles downloads, the cache and tokens. It is imported, and the hub contacted,
only for sources that start with `hf://`.
"""

import os
import re
from pathlib import Path

from keras_resnet.weights.errors import CheckpointError

ADVICE = "Download it again, or move it away."  # for damaged descriptions
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
FILES = ("model.safetensors", "pytorch_model.bin")
# `Path` removes one of the two slashes.
ADDRESS = re.compile(r"hf://?(?P<repository>[^/@]+/[^/@]+)(@(?P<revision>.+))?")


def is_address(source: object) -> bool:
    """Whether a source is an address on the hub."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).startswith("hf:/")


def is_snapshot(source: object) -> bool:
    """Whether a source is a folder with the hub's layout, with a config.json."""
    return isinstance(source, str | os.PathLike) and (Path(source) / CONFIG).is_file()


def weights_file(source: str | os.PathLike[str]) -> Path:
    """Returns the weights file of an address or of such a folder; config.json is next to it.

    Args:
        source: "hf://owner/name", "hf://owner/name@revision", or a folder. From a repository, only
            the config.json and the weights are downloaded, unless they are cached.

    Raises:
        CheckpointError: if there is no such file, or it cannot be downloaded.
        ImportError: without the hub extra.
    """
    if is_address(source):
        config = _fetched(source, CONFIG)
        # The other files are of the same commit, which is the name of the snapshot's folder.
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
    """Returns a file that describes weights, next to them or in a repository; None without one.

    Args:
        source: A weights file, or as for `weights_file`.
        name: CONFIG or PREPROCESSOR.

    Raises:
        CheckpointError: if a repository cannot be accessed.
    """
    if is_address(source):
        config = _fetched(source, CONFIG)
        return config if name == CONFIG else _fetched(source, name, config)
    folder = Path(source) if is_snapshot(source) else Path(source).parent
    return folder / name if (folder / name).is_file() else None


def _fetched(address, name, config=None):
    """Downloads a file of a repository to huggingface_hub's cache; None if it has no such file."""
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
    except Exception as error:  # of huggingface_hub, and of its HTTP library
        if config and isinstance(error, EntryNotFoundError):
            return None
        said = " ".join(str(error).split()).removesuffix(".")
        raise CheckpointError(
            f"{name} of {address} cannot be downloaded: {type(error).__name__}: {said[:400]}. "
            "Check the name, the connection and, for private repositories, HF_TOKEN. "
            "HF_HUB_OFFLINE=1 uses cached files; or pass a copy of the repository's folder."
        ) from error
