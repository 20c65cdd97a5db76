"""HTTP code that the routes share: the fast route, bodies, responses, pagination, ETags, cursors, OpenAPI."""
