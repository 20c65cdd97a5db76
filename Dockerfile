FROM python:3.13-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /app

# The environment has no pip of its own. A separate pip, which is not copied, installs the packages.
RUN python -m venv /pip && python -m venv --without-pip .venv
# With tracing, which is imported only where it is switched on. REQUIREMENTS=runtime leaves it out.
ARG REQUIREMENTS=tracing
COPY requirements/$REQUIREMENTS.txt /requirements.txt
RUN /pip/bin/pip --python .venv/bin/python install --no-compile --only-binary :all: --require-hashes \
    --requirement /requirements.txt

COPY alembic.ini gunicorn.conf.py ./
COPY migrations migrations
COPY app app
# Python runs this check when it starts, before Gunicorn reads its variables.
RUN packages="$(echo .venv/lib/python3*/site-packages)" && cp app/settings/gunicorn_environment.py "$packages" \
    && echo "import gunicorn_environment; gunicorn_environment.check()" > "$packages/gunicorn_environment.pth"
# The root file system is read-only at run time, so all bytecode is compiled here. Bytecode that does not
# depend on the modification times of the sources makes the layer reproducible.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash .


FROM python:3.13-slim

# Nothing is installed into the finished image.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/site-packages/pip*

COPY --from=build /app /app
WORKDIR /app

ARG VERSION=""
ARG REVISION=""
ENV PATH="/app/.venv/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    BUILD_VERSION="$VERSION" \
    BUILD_REVISION="$REVISION"
LABEL org.opencontainers.image.title="items-api" \
      org.opencontainers.image.description="Create, read, search, change and delete items." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-m", "app.health.container_check"]
CMD ["gunicorn"]
