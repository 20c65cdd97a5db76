#!/bin/sh
# The first start of the official image, as far as this stack uses it.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username "$POSTGRES_USER" --pwfile "$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS > /dev/null
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  pg_ctl --wait --silent --options "-c listen_addresses=''" --log /tmp/first-start start
  createdb --username "$POSTGRES_USER" "$POSTGRES_DB"
  for file in /docker-entrypoint-initdb.d/*.sh; do
    if [ -e "$file" ]; then "$file"; fi
  done
  pg_ctl --wait --silent stop
fi
exec "$@" -c "listen_addresses=*"
