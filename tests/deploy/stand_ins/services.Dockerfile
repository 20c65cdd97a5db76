FROM debian:trixie-slim
RUN apt-get update --quiet --quiet \
    && apt-get install --quiet --quiet --yes --no-install-recommends postgresql-17 prometheus redis-server \
    && rm -rf /var/lib/apt/lists/*
