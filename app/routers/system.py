"""The routes for orchestrators and Prometheus, and the index at `/`."""

import orjson
from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from app.dependencies import ReadinessDependency
from app.errors import NotReadyError
from app.health import paths
from app.health.readiness import Checks
from app.http.openapi import error_responses
from app.http.responses import json_response
from app.metrics.exposition import CONTENT_TYPE, Exposition
from app.schemas.system import Health, Index, Readiness
from app.state_keys import is_draining

router = APIRouter(tags=["system"])

_NOT_READY = error_responses(
    NotReadyError(
        Checks(database="database_unavailable", schema="unknown", revision_needed=None).to_dict() | {"draining": False}
    )
)


@router.get("/", response_model=Index)
async def index(request: Request) -> Response:
    """The name and version of this service, and links to its main routes."""
    app = request.app
    links = {prefix.removeprefix("/"): prefix for prefix in app.state.resources}
    links |= {"documentation": "/docs", "openapi": "/openapi.json", "health": paths.LIVE}
    if app.state.settings.ops_port is None:
        links |= {"ready": paths.READY, "metrics": paths.METRICS}
    links = {name: request.scope["root_path"] + path for name, path in links.items()}
    content = {"name": app.title, "version": app.version, "description": app.description, "links": links}
    body = orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return Response(body, media_type="application/json")


@router.get(paths.LIVE, response_model=Health)
async def health() -> Response:
    """Whether this process responds. It checks nothing else."""
    return json_response({"status": "ok"})


@router.get(paths.READY, response_model=Readiness, responses=_NOT_READY)
async def ready(request: Request, readiness: ReadinessDependency) -> Response:
    """Whether this worker should receive requests: the database, its schema, keys for access tokens, and draining."""
    result = await readiness.checks()
    draining = is_draining(request.scope["state"])
    checks = result.to_dict() | {"draining": draining}
    if draining or not result.passed:
        raise NotReadyError(checks)
    return json_response({"status": "ready", "checks": checks})


@router.get(paths.METRICS, response_class=PlainTextResponse)
async def show_metrics(request: Request) -> Response:
    """The metrics of all workers together, in Prometheus' text format."""
    exposition: Exposition = request.app.state.exposition
    return Response(await exposition.scrape(), headers={"Content-Type": CONTENT_TYPE})
