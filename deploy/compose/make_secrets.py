"""Generates the passwords of this stack once, and writes the secret files of each service."""  # noqa: INP001 -- run by its path

import json
from pathlib import Path
from secrets import token_urlsafe

ROOT = Path("/secrets")


def write(file: str, content: str) -> None:
    """Write a file that its service can read and cannot change."""
    path = ROOT / file
    path.write_text(f"{content}\n")
    path.chmod(0o444)


def main() -> None:
    """Do nothing if the passwords exist: the database was created with them."""
    if (ROOT / "postgres" / "complete").exists():
        return
    superuser, owner, app, redis = (token_urlsafe(24) for _ in range(4))
    write("postgres/superuser", superuser)
    write("postgres/items_owner", owner)
    write("postgres/items_app", app)
    write("migrate/database-url", f"postgresql://items_owner:{owner}@postgres:5432/items")
    write("api/database-url", f"postgresql://items_app:{app}@pgbouncer:6432/items")
    write("api/redis-url", f"redis://:{redis}@redis:6379/0")
    write("pgbouncer/userlist.txt", f"{json.dumps('items_app')} {json.dumps(app)}")
    write("redis/password", redis)
    write("redis/redis.conf", f'requirepass {redis}\nsave ""\nmaxmemory 64mb\nmaxmemory-policy volatile-ttl')
    write("grafana/admin", token_urlsafe(24))
    write("postgres/complete", "")


if __name__ == "__main__":
    main()
