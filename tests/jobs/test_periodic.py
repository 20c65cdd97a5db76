import asyncio
import time

from structlog.testing import capture_logs

from app.errors import DatabaseUnavailableError, PoolExhaustedError, SchemaOutdatedError
from app.jobs.periodic import running_periodically


class Job:
    """A job that counts its runs, and does what a test asks for."""

    def __init__(self, *outcomes: BaseException | float) -> None:
        self.outcomes = list(outcomes)
        self.runs = 0
        self.cancelled = False

    async def __call__(self) -> None:
        """Raise the next error, or sleep for the next number of seconds."""
        self.runs += 1
        outcome = self.outcomes.pop(0) if self.outcomes else 0.0
        if isinstance(outcome, BaseException):
            raise outcome
        try:
            await asyncio.sleep(outcome)
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def until(job: Job, runs: int) -> None:
    """Wait until the job has begun this many runs."""
    async with asyncio.timeout(20):
        while job.runs < runs:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_job_runs_again_and_again():
    """It runs until the block ends, and not afterwards."""
    async with running_periodically(job := Job(), name="count", seconds=0.01):
        assert 0 == job.runs
        await until(job, 5)
    runs = job.runs
    await asyncio.sleep(0.1)
    assert runs == job.runs


async def test_a_failed_job_is_logged_and_runs_again():
    """A named error is a warning with its code, another one an error with its traceback."""
    job = Job(PoolExhaustedError(), ZeroDivisionError())
    with capture_logs() as lines:
        async with running_periodically(job, name="count", seconds=0.01):
            await until(job, 3)

    assert [("job_failed", "count", "warning"), ("job_failed", "count", "error")] == [
        (line["event"], line["job"], line["log_level"]) for line in lines
    ]
    assert "pool_exhausted" == lines[0]["code"]
    assert lines[1]["exc_info"]


async def test_a_failure_that_readiness_reports_is_no_warning():
    """While the database is out of reach, one warning says so, and not one more for each job."""
    job = Job(DatabaseUnavailableError(), SchemaOutdatedError())
    with capture_logs() as lines:
        async with running_periodically(job, name="count", seconds=0.01):
            await until(job, 3)

    assert {"debug"} >= {line["log_level"] for line in lines}


async def test_the_end_of_the_block_cancels_a_running_job():
    """The worker does not wait for the job when it stops."""
    began = time.monotonic()
    async with running_periodically(job := Job(60.0), name="sleep", seconds=0.01):
        await until(job, 1)
    assert job.cancelled
    assert time.monotonic() - began < 20
