"""Serves an exported SavedModel without Docker, with LitServe and TensorFlow.

python litserve_server.py models/flowers/1 --port 8501

Its REST API for predictions is that of TensorFlow Serving, /v1/models/flowers:predict, so
rest_client.py and load.py work with both. Needs the serving extra: pip install
"keras3-resnet[serving]"
"""

import base64
import io
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import litserve
import pydantic
import typer
from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image

from keras_resnet_cli import quiet

MAX_BODY = 10 * 2**20  # bytes
MAX_IMAGES = 32  # per request
MAX_PIXELS = 50_000_000  # per request, over all frames, to limit the memory
# Pixels times scans: each scan of a JPEG visits all of them; usual files have 10 scans.
MAX_SCANNED = 20 * MAX_PIXELS
GRACE = 2  # seconds for open requests at shutdown
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")


class Instance(pydantic.BaseModel):
    """An encoded image in base64."""

    b64: str


class Body(pydantic.BaseModel):
    """The body of a request; anything else is an error 422."""

    signature_name: Literal["serving_default"] = "serving_default"
    instances: list[Instance] = pydantic.Field(min_length=1, max_length=MAX_IMAGES)


class Classifier(litserve.LitAPI):
    """Predicts classes, scores and probabilities of encoded images."""

    def __init__(self, version, **arguments):
        super().__init__(**arguments)
        self.version = str(version)

    def setup(self, device):
        """Loads the SavedModel, in the worker process."""
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # the server handles Ctrl+C and ends this process
        with quiet():
            import tensorflow as tf

            self.loaded = tf.saved_model.load(self.version)
        self.answer = self.loaded.signatures["serving_default"]

    def decode_request(self, request: Body):
        """Decodes the images of a request; error 400 or 413 if they are invalid."""
        try:
            images = [base64.b64decode(one.b64, validate=True) for one in request.instances]
        except ValueError as error:
            raise HTTPException(400, f"b64 is not valid base64: {error}") from error
        pixels = scanned = 0
        for number, image in enumerate(images):
            more, scans = self.measure(number, image)
            pixels, scanned = pixels + more, scanned + more * scans
            if pixels > MAX_PIXELS:
                raise HTTPException(413, f"up to image {number}: more than {MAX_PIXELS:,} pixels")
            if scanned > MAX_SCANNED:
                raise HTTPException(413, f"image {number} has {scans} scans of {more} pixels")
        return images

    def measure(self, number, image):
        """Returns (pixels, scans) in an image's header; error 400 if it is not an image."""
        try:
            with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
                # SavedModels of earlier releases decode every frame of a GIF.
                pixels = opened.width * opened.height * getattr(opened, "n_frames", 1)
                return pixels, image.count(b"\xff\xda\0") if opened.format == "JPEG" else 1
        except Image.DecompressionBombError:
            return MAX_PIXELS + 1, 1
        except (OSError, SyntaxError, ValueError) as error:
            expected = f"expected {', '.join(FORMATS)}"
            raise HTTPException(400, f"image {number} is not a valid image: {expected}") from error

    def predict(self, images):
        """Returns the outputs by name."""
        import tensorflow as tf

        try:
            outputs = self.answer(image_bytes=tf.constant(images))
        except tf.errors.InvalidArgumentError as error:
            raise HTTPException(
                400, "an image cannot be decoded: it is truncated, or a WebP with alpha"
            ) from error
        return {name: value.numpy() for name, value in outputs.items()}

    def encode_response(self, outputs):
        """Formats the response like TensorFlow Serving, with a row for each image."""
        outputs["classes"] = [[name.decode() for name in row] for row in outputs["classes"]]
        outputs |= {name: outputs[name].tolist() for name in outputs.keys() - {"classes"}}
        rows = zip(*outputs.values(), strict=True)
        return {"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]}


def refuse(_, error):
    """Returns 422 with the errors, but without the input, which may not be valid JSON (NaN)."""
    wrong = [{name: one[name] for name in ("loc", "msg", "type")} for one in error.errors()]
    return JSONResponse({"detail": wrong}, 422)


def main(
    version: Annotated[Path, typer.Argument(help="Version folder of the SavedModel.")],
    model: Annotated[str, typer.Option(help="Name of the model in the URL.")] = "flowers",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all interfaces.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8501,
    workers: Annotated[int, typer.Option(help="Number of worker processes.", min=1)] = 1,
):
    """Serve a SavedModel until the process is stopped."""
    if not (version / "saved_model.pb").is_file():
        sys.exit(
            f"Error: {version} is not a version of a SavedModel, for example models/flowers/1."
        )
    api = Classifier(version, api_path=f"/v1/models/{model}:predict")
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=workers, max_payload_size=MAX_BODY
    )
    server.app.add_exception_handler(RequestValidationError, refuse)
    server.uvicorn_graceful_timeout = GRACE  # instead of half a minute for incomplete requests
    end_as_by_ctrl_c()
    try:
        server.run(host=host, port=port, num_api_servers=1, generate_client_file=False)
    except KeyboardInterrupt:
        pass  # during start or shutdown
    except (ValueError, RuntimeError) as error:  # an invalid host, or a model that cannot be loaded
        sys.exit(f"Error: {error}")
    finally:
        for process in multiprocessing.active_children():
            process.kill()


def end_as_by_ctrl_c():
    """Makes SIGTERM end the server like Ctrl+C, and its other processes silently."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def end_silently():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=end_silently)


if __name__ == "__main__":
    typer.run(main)
