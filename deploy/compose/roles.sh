#!/bin/sh
# The PostgreSQL image runs this when it creates the database. It creates the roles and sets their passwords.
set -eu
psql --quiet --set ON_ERROR_STOP=1 --single-transaction --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --file /roles.sql
for role in items_owner items_app; do
  psql --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set role="$role" --set password="$(cat /run/secrets/$role)" <<'SQL'
ALTER ROLE :"role" PASSWORD :'password';
SQL
done
