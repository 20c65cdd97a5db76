"""What routes share of HTTP: the fast route, bodies, responses, pagination, ETags, cursors, the OpenAPI document."""
