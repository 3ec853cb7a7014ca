# Trains on NVIDIA GPUs. In the checkout's root:
# docker build --file examples/docker/train.Dockerfile --tag keras-resnet:0.1.0 .
# With TensorFlow instead of JAX: --build-arg EXTRA=gpu --build-arg BACKEND=tensorflow
FROM python:3.12.13-slim-trixie

ARG EXTRA=jax-gpu
ARG BACKEND=jax
ENV KERAS_BACKEND=$BACKEND \
    PYTHONUNBUFFERED=1

RUN useradd --uid 1000 --create-home resnet

# CUDA comes with the packages, so that the machine brings its driver only. What was downloaded for
# the last build is there for the next one.
COPY . /source
RUN --mount=type=cache,target=/root/.cache/pip pip install "/source[$EXTRA]"

# By its number: Kubernetes cannot know that a name is not root's.
USER 1000
WORKDIR /home/resnet
ENTRYPOINT ["keras-resnet"]
CMD ["--help"]
