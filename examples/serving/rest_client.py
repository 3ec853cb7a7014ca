"""Classifies images with a server over REST.

python rest_client.py rose.jpg tulip.jpg --url http://localhost:8501 --label stable

The protocol is that of TensorFlow Serving, which litserve_server.py also supports.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Annotated

import requests
import typer

TIMEOUT = 60  # seconds


def address(url, model, label=None, version=None):
    """Returns the URL of a model, or of a version of it by label or number."""
    part = f"/labels/{label}" if label else f"/versions/{version}" if version else ""
    return f"{url}/v1/models/{model}{part}:predict"


def body(images):
    """Makes the JSON body for encoded images, bytes."""
    instances = [{"b64": base64.b64encode(image).decode()} for image in images]
    return {"signature_name": "serving_default", "instances": instances}


def ask(where, images, session=requests):
    """Requests predictions for encoded images: classes, scores and probabilities of each.

    Raises:
        ValueError: if the server rejects the request, with its reason, or is of another kind.
            OSError: if the server cannot be reached.
    """
    try:
        answer = session.post(where, json=body(images), timeout=TIMEOUT)
    except requests.Timeout as error:
        raise TimeoutError(f"{where} did not respond within {TIMEOUT} seconds.") from error
    except requests.ConnectionError as error:
        raise ConnectionError(
            f"Cannot connect to {where}. Check the address, and that the server is running."
        ) from error
    if answer.status_code != requests.codes.ok:
        raise ValueError(f"{where} returned {answer.status_code}: {answer.text[:500]}")
    try:
        return answer.json()["predictions"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"The response of {where} has no predictions. Check that it is a model server."
        ) from error


def explained(error):
    """Formats an error in one line for `sys.exit`."""
    if getattr(error, "filename", None):
        error = f"{error.filename}: {error.strerror}"
    return "Error: " + " ".join(str(error).split())


def main(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    url: Annotated[str, typer.Option(help="Address of the server.")] = "http://localhost:8501",
    model: Annotated[str, typer.Option(help="Name of the model on the server.")] = "flowers",
    label: Annotated[
        str | None, typer.Option(help="Label of the version to use, canary for example.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Number of the version to use.")] = None,
):
    """Print the prediction for each image."""
    if label and version:
        sys.exit("Error: pass either --label or --version.")
    try:
        contents = [image.read_bytes() for image in images]
        predictions = ask(address(url, model, label, version), contents)
    except (ValueError, OSError) as error:
        sys.exit(explained(error))
    for image, prediction in zip(images, predictions, strict=True):
        if "classes" in prediction:  # otherwise the model was exported without class names
            prediction = dict(zip(prediction["classes"], prediction["scores"], strict=True))
        print(f"{image}: {json.dumps(prediction, ensure_ascii=False)}")


if __name__ == "__main__":
    typer.run(main)
