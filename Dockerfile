# One image, many commands: see docker-compose.yml. Nothing in it is secret, nothing in it is written to at run time.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
# What is installed: `production`, or `tracing`, which has OpenTelemetry besides (docs/tracing.md).
ARG REQUIREMENTS=production
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The dependencies change seldom, so they have layers of their own.
COPY requirements/ requirements/
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.lock \
 && python -m venv --without-pip /opt/tokenkeeper \
 && pip --python /opt/tokenkeeper/bin/python install --require-hashes --only-binary :all: -r requirements/${REQUIREMENTS}.lock
COPY . .
RUN /opt/build/bin/python -m hatchling build -t wheel -d /wheel \
 && pip --python /opt/tokenkeeper/bin/python install --no-deps --no-index /wheel/*.whl

FROM ${PYTHON_IMAGE}
ENV PATH=/opt/tokenkeeper/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
# A named volume takes its owner from the folder it is mounted on: so what runs as this user may write there.
RUN groupadd --gid 10001 tokenkeeper \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tokenkeeper \
 && mkdir -p /var/lib/tokenkeeper/simulator /var/lib/tokenkeeper/secrets \
 && cd /var/lib/tokenkeeper/secrets \
 && mkdir kept postgres redis migrate web worker beat flower simulator \
 && chown -R tokenkeeper:tokenkeeper /var/lib/tokenkeeper
COPY --from=build /opt/tokenkeeper /opt/tokenkeeper
WORKDIR /var/lib/tokenkeeper
COPY gunicorn.conf.py ./
USER 10001:10001
CMD ["tokenkeeper", "--help"]
