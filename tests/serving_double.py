"""A stand-in for TensorFlow Serving with its REST and gRPC protocols, to test the clients.

The real server is a binary that no Python package contains. Like it, this one parses requests
according to the protocol, feeds the SavedModel by tensor names in a TensorFlow 1 session, and
responds in the same format.
"""

import base64
import concurrent.futures
import contextlib
import http.server
import json
import re
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

ADDRESS = re.compile(r"/v1/models/(\w+)(?:/versions/(\d+)|/labels/(\w+))?:predict")


class Served:
    """The versions of a model, each in a session loaded with the tag `serve`."""

    def __init__(self, name, versions, labels):
        self.name, self.labels = name, labels
        self.sessions = {}
        for number, folder in versions.items():
            graph = tf.Graph()
            with graph.as_default():
                session = tf.compat.v1.Session(graph=graph)
                loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
            self.sessions[number] = session, loaded.signature_def

    def run(self, name, version, label, signature, inputs):
        """Returns outputs by name; raises LookupError or ValueError as the server would respond."""
        if name != self.name:
            raise LookupError(f"Servable not found for request: {name}")
        number = self.labels[label] if label else version or max(self.sessions)
        session, signatures = self.sessions[number]
        signature = signatures[signature or "serving_default"]
        if set(inputs) != set(signature.inputs):
            raise ValueError(f"the inputs are {set(signature.inputs)}")
        feed = {signature.inputs[key].name: value for key, value in inputs.items()}
        try:
            return session.run({k: out.name for k, out in signature.outputs.items()}, feed)
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(error.message) from error

    def only_input(self, signature):
        """Returns the name of a signature's only input, which REST clients may omit."""
        _, signatures = next(iter(self.sessions.values()))
        (name,) = signatures[signature].inputs
        return name


def rest_inputs(served, body):
    """Parses the inputs of a REST request in row format."""
    signature = body.get("signature_name", "serving_default")

    def plain(value):
        if isinstance(value, dict) and set(value) == {"b64"}:
            return base64.b64decode(value["b64"], validate=True)
        return value

    rows = body["instances"]
    if not (isinstance(rows[0], dict) and set(rows[0]) != {"b64"}):
        rows = [{served.only_input(signature): row} for row in rows]
    names = rows[0]
    return signature, {name: np.array([plain(row[name]) for row in rows]) for name in names}


def rest_answer(outputs):
    """Returns a REST response in row format; bytes are decoded as text."""

    def text(value):
        if isinstance(value, list):
            return [text(part) for part in value]
        return value.decode() if isinstance(value, bytes) else value

    names = list(outputs)
    columns = [text(outputs[name].tolist()) for name in names]
    rows = zip(*columns, strict=True)
    return {"predictions": [dict(zip(names, row, strict=True)) for row in rows]}


@contextlib.contextmanager
def rest(served):
    """Serves REST; yields the server's URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            match = ADDRESS.fullmatch(self.path)
            try:
                name, version, label = match.groups()
                signature, inputs = rest_inputs(served, json.loads(content))
                outputs = served.run(name, version and int(version), label, signature, inputs)
                code, answer = 200, rest_answer(outputs)
            except LookupError as error:
                code, answer = 404, {"error": str(error)}
            except ValueError as error:
                code, answer = 400, {"error": str(error)}
            body = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def grpc_server(served):
    """Serves gRPC; yields host and port."""

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802 (gRPC's name)
            spec = request.model_spec
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            version = spec.version.value if spec.HasField("version") else None
            try:
                outputs = served.run(
                    spec.name, version, spec.version_label, spec.signature_name, inputs
                )
            except LookupError as error:
                context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            except ValueError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            answer = predict_pb2.PredictResponse()
            for name, value in outputs.items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return answer

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()
