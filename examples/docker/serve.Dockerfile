# Serves a SavedModel with LitServe. In the root of the checkout:
# docker build --file examples/docker/serve.Dockerfile --tag keras-resnet-serving:0.1.0 .
FROM python:3.12.13-slim-trixie

ENV PYTHONUNBUFFERED=1

RUN useradd --uid 1000 --create-home resnet

COPY . /source
RUN --mount=type=cache,target=/root/.cache/pip pip install "/source[serving]"

USER 1000
WORKDIR /home/resnet
EXPOSE 8501
# Until the model is loaded, there is no response, and urlopen raises an error: exit code 1.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/health', timeout=4)"]
ENTRYPOINT ["python", "/source/examples/serving/litserve_server.py"]
CMD ["/models/flowers/1", "--host", "0.0.0.0"]
