-- The roles of the items API, and what each may do in this database.
--
-- Run it as a superuser (or as what a hosted PostgreSQL gives instead of one), connected to the
-- service's own database, before the first migration:
--
--     psql --set ON_ERROR_STOP=1 --single-transaction --dbname items --file deploy/postgresql/roles.sql
--
-- It may be run again at any time, and should be once more after the first migration: then it
-- takes writing the table of revisions from the service. The roles have no passwords yet; set
-- them in psql with \password. docs/operations/roles.md says who uses which.

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

-- The owner migrates, with two connections at a time: one works, one watches. It sees the queries
-- of others, so that a migration can name who is in its way.
ALTER ROLE items_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 4;
GRANT pg_read_all_stats TO items_owner;

-- The service reads and writes rows. Its limit is INSTANCES * DATABASE_CONNECTIONS, and its
-- statement_timeout is DATABASE_STATEMENT_SECONDS: through PgBouncer it is the only one there is.
ALTER ROLE items_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 60;
ALTER ROLE items_app SET statement_timeout = '5s';
ALTER ROLE items_app SET idle_in_transaction_session_timeout = '6s';
ALTER ROLE items_app SET jit = off;

-- The exporter of metrics reads PostgreSQL's statistics, and no item.
ALTER ROLE items_metrics LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 3;
ALTER ROLE items_metrics SET statement_timeout = '5s';
ALTER ROLE items_metrics SET default_transaction_read_only = on;
GRANT pg_monitor TO items_metrics;

-- The owner of the database may also create what PostgreSQL trusts him with, such as pg_trgm.
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

-- What migrations will make, and what they have made already.
ALTER DEFAULT PRIVILEGES FOR ROLE items_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO items_app;
ALTER DEFAULT PRIVILEGES FOR ROLE items_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO items_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO items_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO items_app;

DO $$
BEGIN
    IF to_regclass('public.alembic_version') IS NOT NULL THEN
        REVOKE INSERT, UPDATE, DELETE ON public.alembic_version FROM items_app;
    END IF;
END
$$;
