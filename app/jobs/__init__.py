"""The periodic jobs that run beside the requests."""
