"""Asks a server over REST what is on pictures.

python rest_client.py rose.jpg tulip.jpg --url http://localhost:8501 --label stable

The body and the answer are TensorFlow Serving's; litserve_server.py takes and gives the same.
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
    """Where a model, or a version of it by label or number, is asked."""
    part = f"/labels/{label}" if label else f"/versions/{version}" if version else ""
    return f"{url}/v1/models/{model}{part}:predict"


def body(images):
    """The JSON body for encoded images, bytes."""
    instances = [{"b64": base64.b64encode(image).decode()} for image in images]
    return {"signature_name": "serving_default", "instances": instances}


def ask(where, images, session=requests):
    """The predictions for encoded images: a dictionary of classes, scores, probabilities for each.

    Raises:
        ValueError: if the server refuses them, its reason is in the message; or if it is another
            kind of server.
        OSError: if there is no server.
    """
    try:
        answer = session.post(where, json=body(images), timeout=TIMEOUT)
    except requests.Timeout as error:
        raise TimeoutError(f"{where} gave no answer within {TIMEOUT} seconds.") from error
    except requests.ConnectionError as error:
        raise ConnectionError(
            f"No server answers at {where}. Is it running, and is this its address and REST port?"
        ) from error
    if answer.status_code != requests.codes.ok:
        raise ValueError(f"{where} answers {answer.status_code}: {answer.text[:500]}")
    try:
        return answer.json()["predictions"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{where} answers, but gives no predictions. Is it a server of models?"
        ) from error


def explained(error):
    """What went wrong, in one line: for `sys.exit`."""
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
    """Prints the answer for each image."""
    if label and version:
        sys.exit("Error: pass either --label or --version.")
    try:
        contents = [image.read_bytes() for image in images]
        predictions = ask(address(url, model, label, version), contents)
    except (ValueError, OSError) as error:
        sys.exit(explained(error))
    for image, prediction in zip(images, predictions, strict=True):
        if "classes" in prediction:  # else the model was exported without their names
            prediction = dict(zip(prediction["classes"], prediction["scores"], strict=True))
        print(f"{image}: {json.dumps(prediction, ensure_ascii=False)}")


if __name__ == "__main__":
    typer.run(main)
