"""The routes /openapi.json and /docs: the OpenAPI document, and a page for it that loads nothing from other hosts."""

from http import HTTPStatus
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import FileResponse, HTMLResponse, MalformedRangeHeader, RangeNotSatisfiable, Response

from app import TITLE
from app.http.responses import json_response

router = APIRouter(include_in_schema=False)

_ASSETS = files("fastapi_swagger.resources")

# Its links are relative, so they work below any prefix that a proxy strips.
_PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{TITLE}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="documentation"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

_SCRIPT = """const dark = matchMedia("(prefers-color-scheme: dark)");
const applyTheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", applyTheme);
applyTheme();
// A login would need a client of this page at the issuer, and a policy that allows the hosts that the issuer names.
const withoutLogin = {statePlugins: {spec: {wrapActions: {updateJsonSpec: (update) => (document) => {
  delete document.components?.securitySchemes?.openIdConnect;
  return update(document);
}}}}};
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#documentation",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  plugins: [withoutLogin],
});
"""

_PAGE_HEADERS = {
    # Swagger UI's icons are inline images (`data:`).
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_ASSET_HEADERS = {"Cache-Control": "public, max-age=86400"}


class Asset(FileResponse):
    """A file. A range that it does not have is refused with a problem; Starlette would answer in plain text."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, error.content) from None
        except RangeNotSatisfiable:
            headers = {"Content-Range": f"bytes */{file_size}"}
            raise HTTPException(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers) from None


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """The OpenAPI document. FastAPI's own route for it would have no name in logs and metrics."""
    return json_response(request.app.openapi())


@router.get("/docs")
async def docs_page() -> Response:
    """The documentation page."""
    return HTMLResponse(_PAGE, headers=_PAGE_HEADERS)


@router.get("/docs/start.js")
async def docs_script() -> Response:
    """The script of the page. It is a file of its own so that the policy can forbid inline scripts."""
    return Response(_SCRIPT, media_type="text/javascript", headers=_ASSET_HEADERS)


@router.get("/docs/swagger-ui-bundle.js")
async def swagger_ui_script() -> Response:
    """The script of Swagger UI."""
    return Asset(str(_ASSETS / "swagger-ui-bundle.js"), media_type="text/javascript", headers=_ASSET_HEADERS)


@router.get("/docs/swagger-ui.css")
async def swagger_ui_style() -> Response:
    """The style sheet of Swagger UI."""
    return Asset(str(_ASSETS / "swagger-ui.css"), media_type="text/css", headers=_ASSET_HEADERS)
