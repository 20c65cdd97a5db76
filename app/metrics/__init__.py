"""Prometheus metrics: a scrape shows all workers together, whichever worker answers it.

Nothing is imported here: Gunicorn's master uses `directory` alone, and
`prometheus_client` chooses its multiprocess mode when it is first imported.
"""
