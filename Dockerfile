# `docker build .` makes the production image: one image, many commands (see docker-compose.yml). It holds no secret,
# nothing is written to it at run time, and it has no sandbox. `--target simulator` adds the HubSpot simulator.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
# Which lock file is installed: `production`, or `tracing`, which adds OpenTelemetry (docs/tracing.md).
ARG REQUIREMENTS=production
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The dependencies change seldom, so they have layers of their own.
COPY requirements/ requirements/
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.lock \
 && python -m venv --without-pip /opt/tokenkeeper \
 && pip --python /opt/tokenkeeper/bin/python install --require-hashes --only-binary :all: -r requirements/${REQUIREMENTS}.lock
COPY pyproject.toml README.md celeryconfig.py ./
COPY cli/ cli/
COPY deploy/ deploy/
COPY shared/ shared/
COPY web/ web/
COPY worker/ worker/
RUN /opt/build/bin/python -m hatchling build -t wheel -d /wheel \
 && pip --python /opt/tokenkeeper/bin/python install --no-deps --no-index /wheel/*.whl

FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/tokenkeeper/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
# A new named volume gets the owner of the folder that it is mounted on: so this user may write there.
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

FROM runtime AS simulator
ENV PYTHONPATH=/opt/simulator
COPY sandbox/__init__.py /opt/simulator/sandbox/
COPY sandbox/simulator/ /opt/simulator/sandbox/simulator/
CMD ["python", "-m", "sandbox.simulator", "--host=0.0.0.0"]

# The last stage is what a build without --target makes.
FROM runtime AS production
