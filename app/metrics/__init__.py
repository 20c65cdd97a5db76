"""What Prometheus scrapes: one picture of all workers, whichever of them answers.

Nothing is imported here: Gunicorn's master uses `directory` alone, and
`prometheus_client` decides how it counts when it is first imported.
"""
