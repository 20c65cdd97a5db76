"""The routes /openapi.json and /docs: the document, and a page for it that needs no other host."""

from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, HTMLResponse, Response

from app import TITLE
from app.http.responses import json_response

router = APIRouter(include_in_schema=False)

_ASSETS = files("fastapi_swagger.resources")

_PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{TITLE}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="documentation"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""

_START = """const dark = matchMedia("(prefers-color-scheme: dark)");
const choose = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", choose);
choose();
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#documentation",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""

_POLICY = {
    # The inline images are the icons of Swagger UI.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_KEPT = {"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"}


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """The document. FastAPI's own route for it is a plain one of Starlette's, which log and metrics cannot name."""
    return json_response(request.app.openapi())


@router.get("/docs")
async def page() -> Response:
    """The page."""
    return HTMLResponse(_PAGE, headers=_POLICY)


@router.get("/docs/start.js")
async def start() -> Response:
    """What the page runs. It is no part of the page, so that the policy can forbid scripts there."""
    return Response(_START, media_type="text/javascript", headers={"X-Content-Type-Options": "nosniff"})


@router.get("/docs/swagger-ui-bundle.js")
async def script() -> Response:
    """Swagger UI."""
    return FileResponse(str(_ASSETS / "swagger-ui-bundle.js"), media_type="text/javascript", headers=_KEPT)


@router.get("/docs/swagger-ui.css")
async def style() -> Response:
    """Its style."""
    return FileResponse(str(_ASSETS / "swagger-ui.css"), media_type="text/css", headers=_KEPT)
