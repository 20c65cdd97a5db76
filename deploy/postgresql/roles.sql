-- The roles of the items API, and their privileges in this database.
--
-- Run this file before the first migration, connected to the service's own database, as a superuser
-- or as the administrator role of a hosted PostgreSQL:
--
--     psql --set ON_ERROR_STOP=1 --single-transaction --dbname items --file deploy/postgresql/roles.sql
--
-- Run it again after the first migration: it then revokes the service's right to write the version
-- table. It may be run at any time. It sets no passwords: set them in psql with \password.
-- docs/operations/roles.md says what uses which role.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'items_owner') THEN
        CREATE ROLE items_owner;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'items_app') THEN
        CREATE ROLE items_app;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'items_metrics') THEN
        CREATE ROLE items_metrics;
    END IF;
END
$$;

-- The owner runs migrations, with two connections at a time: one migrates, one monitors. It can see the
-- queries of other roles, so that a migration can name the sessions that block it.
ALTER ROLE items_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 4;
GRANT pg_read_all_stats TO items_owner;

-- The service reads and writes rows. Its limit is INSTANCES * DATABASE_CONNECTIONS + 2. Its
-- statement_timeout is DATABASE_STATEMENT_SECONDS: with PgBouncer the service cannot set it itself.
ALTER ROLE items_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 62;
ALTER ROLE items_app SET statement_timeout = '5s';
ALTER ROLE items_app SET idle_in_transaction_session_timeout = '6s';
ALTER ROLE items_app SET jit = off;
ALTER ROLE items_app SET default_transaction_isolation = 'read committed';

-- The exporter of metrics reads the statistics of PostgreSQL, and no items.
ALTER ROLE items_metrics LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 3;
ALTER ROLE items_metrics SET statement_timeout = '5s';
ALTER ROLE items_metrics SET default_transaction_read_only = on;
GRANT pg_monitor TO items_metrics;

-- The owner of a database may create trusted extensions, such as pg_trgm.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I OWNER TO items_owner', current_database());
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO items_app, items_metrics', current_database());
END
$$;
ALTER SCHEMA public OWNER TO items_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO items_app;

-- Privileges on the tables that migrations will create, and on those that exist.
ALTER DEFAULT PRIVILEGES FOR ROLE items_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO items_app;
ALTER DEFAULT PRIVILEGES FOR ROLE items_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO items_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO items_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO items_app;

-- The second one is the version table of earlier releases.
DO $$
DECLARE
    version_table text;
BEGIN
    FOREACH version_table IN ARRAY ARRAY['public.items_api_alembic_version', 'public.alembic_version'] LOOP
        IF to_regclass(version_table) IS NOT NULL THEN
            EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON %s FROM items_app', version_table);
        END IF;
    END LOOP;
END
$$;
