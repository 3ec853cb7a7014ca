# Trains on NVIDIA GPUs. In the root of the checkout:
# docker build --file examples/docker/train.Dockerfile --tag keras-resnet:0.1.0 .
# With TensorFlow instead of JAX: --build-arg EXTRA=gpu --build-arg BACKEND=tensorflow
FROM python:3.12.13-slim-trixie

ARG EXTRA=jax-gpu
ARG BACKEND=jax
ENV KERAS_BACKEND=$BACKEND \
    PYTHONUNBUFFERED=1

RUN useradd --uid 1000 --create-home resnet

# CUDA is installed by the packages; the machine only needs the driver. Downloads are cached between
# builds.
COPY . /source
RUN --mount=type=cache,target=/root/.cache/pip pip install "/source[$EXTRA]"

# Numeric, since Kubernetes cannot verify that a name is not root.
USER 1000
WORKDIR /home/resnet
ENTRYPOINT ["keras-resnet"]
CMD ["--help"]
