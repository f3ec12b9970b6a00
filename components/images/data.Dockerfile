# goalrank/data: logs, features and the feature store (Spark, Great Expectations, Feast). From the checkout:
#   docker build --file components/images/data.Dockerfile --tag goalrank/data:VERSION .
# BASE: Debian 12 with Python 3.11 laid out as in python:3.11-slim-bookworm, the default: `python` and `pip` come first
# on the path, are of one Python, and pip may install into it. Debian's own has no `python` and refuses pip (PEP 668);
# later Debians have no Java 17. A release names it by digest.
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm
FROM ${BASE}

# A user with a name: Hadoop refuses a bare number. The folder: Java's package puts links there, slim bases lack it.
RUN useradd --uid 1000 --no-create-home --home-dir /tmp goalrank \
    && mkdir --parents /usr/share/man/man1 \
    && apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/*

COPY constraints.txt components/images/data.txt /opt/pins/
RUN pip install --no-cache-dir --constraint /opt/pins/constraints.txt --requirement /opt/pins/data.txt

COPY . /opt/goalrank
RUN python -m compileall -q /opt/goalrank

# Only /tmp need be writable.
ENV PYTHONPATH=/opt/goalrank PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    MLFLOW_DISABLE_TELEMETRY=true GX_ANALYTICS_ENABLED=false FEAST_USAGE=False
WORKDIR /tmp
USER 1000:1000
