# goalrank/train: reward model, groups, ranker, registration, evaluation (torch, MLflow). From the checkout:
#   docker build --file components/images/train.Dockerfile --tag goalrank/train:VERSION .
# BASE: Linux with glibc 2.28 or newer, useradd, a free user 1000, and Python 3.11 laid out as in the default,
# python:3.11-slim-bookworm: `python` and `pip` come first on the path, are of one Python, and pip may install into it.
# No CUDA base is needed: torch brings its CUDA libraries, the node its driver. NVIDIA's own have no such Python. A
# release names it by digest.
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm
FROM ${BASE}

RUN useradd --uid 1000 --no-create-home --home-dir /tmp goalrank

# pip options for torch alone, for example an index of CPU builds.
ARG TORCH_PIP=""
COPY constraints.txt components/images/train.txt /opt/pins/
RUN pip install --no-cache-dir ${TORCH_PIP} "$(grep '^torch==' /opt/pins/constraints.txt)" \
    && pip install --no-cache-dir --constraint /opt/pins/constraints.txt --requirement /opt/pins/train.txt

COPY . /opt/goalrank
RUN python -m compileall -q /opt/goalrank

# Only /tmp need be writable. The last two: what NVIDIA's container runtime looks for.
ENV PYTHONPATH=/opt/goalrank PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    MLFLOW_DISABLE_TELEMETRY=true GX_ANALYTICS_ENABLED=false FEAST_USAGE=False \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /tmp
USER 1000:1000
