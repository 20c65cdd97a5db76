"""The routes for orchestrators, Prometheus, and whoever wonders what this is."""

import orjson
from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from app.dependencies import ReadinessDependency
from app.errors import NotReadyError
from app.health import paths
from app.http.openapi import failed
from app.http.responses import json_response
from app.http.route import Route
from app.metrics.exposition import CONTENT_TYPE, Exposition
from app.schemas.system import Health, Index, Readiness

router = APIRouter(tags=["system"], route_class=Route)

_NOT_READY = failed(NotReadyError({"database": "database_unavailable", "schema": "unknown", "draining": False}))


@router.get("/", response_model=Index)
async def index(request: Request) -> Response:
    """What this is, and where to go on."""
    app = request.app
    links = {"items": "/items", "documentation": "/docs", "openapi": "/openapi.json", "health": paths.LIVE}
    if app.state.settings.ops_port is None:
        links |= {"ready": paths.READY, "metrics": paths.METRICS}
    told = {"name": app.title, "version": app.version, "description": app.description, "links": links}
    readable = orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return Response(readable, media_type="application/json")


@router.get(paths.LIVE, response_model=Health)
async def health() -> Response:
    """Whether this process can answer at all. It asks nobody."""
    return json_response({"status": "ok"})


@router.get(paths.READY, response_model=Readiness, responses=_NOT_READY)
async def ready(request: Request, readiness: ReadinessDependency) -> Response:
    """Whether this worker should get requests: the database, its schema, and no end in sight."""
    checks = await readiness.checks()
    draining = request.scope["state"].get("draining", False)  # the worker class says so
    found = {"database": checks.database, "schema": checks.schema, "draining": draining}
    if draining or not checks.passed:
        raise NotReadyError(found)
    return json_response({"status": "ready", "checks": found})


@router.get(paths.METRICS, response_class=PlainTextResponse)
async def show_metrics(request: Request) -> Response:
    """All workers' metrics together, in Prometheus' text format."""
    exposition: Exposition = request.app.state.exposition
    return Response(await exposition.scrape(), headers={"Content-Type": CONTENT_TYPE})
