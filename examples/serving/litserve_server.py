"""Serves an exported SavedModel without Docker: LitServe around TensorFlow.

python litserve_server.py models/flowers/1 --port 8501

It answers predictions as TensorFlow Serving does over REST, at /v1/models/flowers:predict, so that
rest_client.py and load.py ask either. Needs the serving extra: pip install "keras3-resnet[serving]"
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
MAX_IMAGES = 32  # a request
MAX_PIXELS = 50_000_000  # a request, all frames; what claims more would fill the memory
# Pixels times scans: each scan of a JPEG goes over all of them again, and honest ones have 10.
MAX_SCANNED = 20 * MAX_PIXELS
GRACE = 2  # seconds that open requests get when the server is told to end
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")


class Instance(pydantic.BaseModel):
    """An encoded image in base64."""

    b64: str


class Body(pydantic.BaseModel):
    """What a request sends; anything else gets a 422."""

    signature_name: Literal["serving_default"] = "serving_default"
    instances: list[Instance] = pydantic.Field(min_length=1, max_length=MAX_IMAGES)


class Classifier(litserve.LitAPI):
    """From encoded images to classes, scores and probabilities."""

    def __init__(self, version, **arguments):
        super().__init__(**arguments)
        self.version = str(version)

    def setup(self, device):
        """Loads the SavedModel, in the process that will run it."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the server's, which ends this one
        with quiet():
            import tensorflow as tf

            self.loaded = tf.saved_model.load(self.version)
        self.answer = self.loaded.signatures["serving_default"]

    def decode_request(self, request: Body):
        """The images of a request; 400 or 413 for what is none."""
        try:
            images = [base64.b64decode(one.b64, validate=True) for one in request.instances]
        except ValueError as error:
            raise HTTPException(400, f"b64 is no base64: {error}") from error
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
        """(pixels, scans) that an image's header claims; refuses what is none."""
        try:
            with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
                # A SavedModel of an earlier release decodes every frame of a GIF.
                pixels = opened.width * opened.height * getattr(opened, "n_frames", 1)
                return pixels, image.count(b"\xff\xda\0") if opened.format == "JPEG" else 1
        except Image.DecompressionBombError:
            return MAX_PIXELS + 1, 1
        except (OSError, SyntaxError, ValueError) as error:
            expected = f"expected {', '.join(FORMATS)}"
            raise HTTPException(400, f"image {number} is no image: {expected}") from error

    def predict(self, images):
        """Each output by its name."""
        import tensorflow as tf

        try:
            outputs = self.answer(image_bytes=tf.constant(images))
        except tf.errors.InvalidArgumentError as error:
            raise HTTPException(
                400, "an image cannot be decoded: it is not whole, or a WebP with alpha"
            ) from error
        return {name: value.numpy() for name, value in outputs.items()}

    def encode_response(self, outputs):
        """TensorFlow Serving's answer: a row for each image."""
        outputs["classes"] = [[name.decode() for name in row] for row in outputs["classes"]]
        outputs |= {name: outputs[name].tolist() for name in outputs.keys() - {"classes"}}
        rows = zip(*outputs.values(), strict=True)
        return {"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]}


def refuse(_, error):
    """422 and what is wrong with a request; not what it sent, which may be NaN: no JSON."""
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
    """Serves until it is stopped."""
    if not (version / "saved_model.pb").is_file():
        sys.exit(f"Error: {version} is no version of a SavedModel, as models/flowers/1 is.")
    api = Classifier(version, api_path=f"/v1/models/{model}:predict")
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=workers, max_payload_size=MAX_BODY
    )
    server.app.add_exception_handler(RequestValidationError, refuse)
    server.uvicorn_graceful_timeout = GRACE  # half-sent requests were waited for half a minute
    end_as_by_ctrl_c()
    try:
        server.run(host=host, port=port, num_api_servers=1, generate_client_file=False)
    except KeyboardInterrupt:
        pass  # before it served, or while it ended
    except (ValueError, RuntimeError) as error:  # of the host, or a model that cannot be loaded
        sys.exit(f"Error: {error}")
    finally:
        for process in multiprocessing.active_children():
            process.kill()


def end_as_by_ctrl_c():
    """Has SIGTERM end the server as Ctrl+C does, and its other processes without a word."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def end_silently():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=end_silently)


if __name__ == "__main__":
    typer.run(main)
