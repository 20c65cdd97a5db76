#!/bin/sh
# Run by the image of PostgreSQL when it makes the database: the roles, and their passwords.
set -eu
psql --quiet --set ON_ERROR_STOP=1 --single-transaction --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --file /roles.sql
for role in items_owner items_app; do
  psql --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set role="$role" --set password="$(cat /run/secrets/$role)" <<'SQL'
ALTER ROLE :"role" PASSWORD :'password';
SQL
done
