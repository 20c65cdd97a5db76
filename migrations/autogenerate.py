"""What `alembic revision` writes: revisions with the project's own ids, in safe steps if it compares the models."""

import textwrap
from collections.abc import Iterable
from typing import Any, cast

from alembic import context
from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext, RevisionContext
from alembic.autogenerate.render import render_op_text
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext

from app.errors import StartupError
from migrations.revision_ids import next_id
from migrations.safe_operations import (
    TITLES,
    Change,
    CreateIndexConcurrentlyOp,
    DropIndexConcurrentlyOp,
    NoteOp,
    safe_changes,
)

_WIDTH = 100


def writes_without_database() -> bool:
    """Whether the command only writes a file: `alembic merge`, and `alembic revision` without --autogenerate."""
    options = context.config.cmd_opts
    return _command_name() == "merge" or (_command_name() == "revision" and not getattr(options, "autogenerate", False))


def process_revision_directives(
    migration: MigrationContext, _revision: Any, directives: list[ops.MigrationScript]
) -> None:
    """Give the new revisions ids, and put what Alembic has found into safe steps, each a revision.

    `alembic check` calls it, too, and compares what Alembic has found: that stays as it is.

    Raises:
        StartupError: The newest revision's id does not end with a number, so there is no next one.
    """
    if _command_name() != "revision":
        return
    found = directives[0]
    found.message = _sentence(found.message or "change the schema")
    found.rev_id = _first_id(migration) or found.rev_id
    if found.upgrade_ops is None or found.upgrade_ops.is_empty():
        return
    directives[:] = _scripts(found, safe_changes(found.upgrade_ops.ops))


def _command_name() -> str | None:
    command = getattr(context.config.cmd_opts, "cmd", None)
    return command[0].__name__ if command else None


def _first_id(migration: MigrationContext) -> str | None:
    """The id of the first new revision, None if it is given or there is no revision to count from."""
    revisions = cast(RevisionContext, migration.opts["revision_context"])
    if revisions.command_args["rev_id"]:
        return None
    heads = revisions.script_directory.get_revisions(revisions.command_args["head"] or "head")
    return _next_id(heads[0].revision) if len(heads) == 1 and heads[0] is not None else None


def _next_id(revision: str) -> str:
    try:
        return next_id(revision)
    except ValueError as error:
        raise StartupError(f"{error}: give the new one an id that does, with --rev-id.") from None


def _scripts(found: ops.MigrationScript, revisions: list[list[Change]]) -> Iterable[ops.MigrationScript]:
    """A script for each revision, one after the other."""
    rev_id = str(found.rev_id)
    for number, changes in enumerate(revisions):
        title = TITLES[changes[0].step].format(table=changes[0].table)
        yield ops.MigrationScript(
            rev_id=rev_id,
            message=found.message if len(revisions) == 1 else f"{found.message}: {title}",
            upgrade_ops=ops.UpgradeOps([operation for change in changes for operation in change.upgrade]),
            downgrade_ops=ops.DowngradeOps(
                [operation for change in reversed(changes) for operation in change.downgrade]
            ),
            head=found.head if number == 0 else "head",
            splice=found.splice if number == 0 else False,
            branch_label=found.branch_label if number == 0 else None,
            version_path=found.version_path,
            depends_on=found.depends_on if number == 0 else None,
        )
        if number + 1 < len(revisions):
            rev_id = _next_id(rev_id)


def _sentence(message: str) -> str:
    """The message as the first line of a docstring."""
    message = " ".join(message.replace("\\", "/").replace('"', "'").split()).rstrip(".")
    return message[:1].upper() + message[1:]


@renderers.dispatch_for(NoteOp)
def _render_note(_context: AutogenContext, operation: NoteOp) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(operation.text, _WIDTH)]


@renderers.dispatch_for(CreateIndexConcurrentlyOp)
def _render_create(context_: AutogenContext, operation: CreateIndexConcurrentlyOp) -> str:
    context_.imports.add("from migrations.indexes import create_index_concurrently")
    index = operation.index
    # With a plain string as its name, Alembic does not mark it as one that follows the convention.
    plain = ops.CreateIndexOp(str(index.index_name), index.table_name, index.columns, unique=index.unique, **index.kw)
    text = render_op_text(context_, plain).removeprefix("op.create_index")
    return f"create_index_concurrently{text.replace(', unique=False', '')}"


@renderers.dispatch_for(DropIndexConcurrentlyOp)
def _render_drop(context_: AutogenContext, operation: DropIndexConcurrentlyOp) -> str:
    context_.imports.add("from migrations.indexes import drop_index_concurrently")
    return f"drop_index_concurrently({operation.name!r}, {operation.table!r})"
