"""Classifies images with TensorFlow Serving over gRPC.

python grpc_client.py rose.jpg tulip.jpg --host localhost:8500 --label stable

Needs the serving extra: pip install "keras3-resnet[serving]"
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli import quiet

with quiet():
    import grpc
    import tensorflow as tf
    from rest_client import explained
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

TIMEOUT = 60  # seconds


def request(model, inputs, signature="serving_default", label=None, version=None):
    """Makes a request from inputs by name, arrays or lists of bytes."""
    message = predict_pb2.PredictRequest()
    message.model_spec.name = model
    message.model_spec.signature_name = signature
    if label:
        message.model_spec.version_label = label
    elif version:
        message.model_spec.version.value = version
    for name, value in inputs.items():
        message.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return message


def ask(channel, message):
    """Sends a request; returns the outputs by name, as arrays.

    Raises:
        grpc.RpcError: if the server rejects the request, or cannot be reached.
    """
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    answer = stub.Predict(message, timeout=TIMEOUT)
    return {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}


def main(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    host: Annotated[str, typer.Option(help="Address of the server.")] = "localhost:8500",
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
    except OSError as error:
        sys.exit(explained(error))
    message = request(model, {"image_bytes": contents}, label=label, version=version)
    with grpc.insecure_channel(host) as channel:
        try:
            outputs = ask(channel, message)
        except grpc.RpcError as error:
            sys.exit(explained(f"{host}: {error.code().name}, {error.details()}"))
    for place, image in enumerate(images):
        row = {name: output[place].tolist() for name, output in outputs.items()}
        if "classes" in row:  # otherwise the model was exported without class names
            names = [name.decode() for name in row["classes"]]
            row = dict(zip(names, row["scores"], strict=True))
        print(f"{image}: {json.dumps(row, ensure_ascii=False)}")


if __name__ == "__main__":
    typer.run(main)
