"""Checks the environment variables that Gunicorn reads when it is imported, before it reads gunicorn.conf.py.

An empty or malformed one would end Gunicorn with a traceback, or with a message without the variable's name. No
setting and no hook of Gunicorn comes before. So `make install` and the Dockerfile copy this file into the
environment's site-packages, beside a file `gunicorn_environment.pth` that calls `check` when Python starts. It
imports only what Python has imported by then: every program of the environment waits for it.
"""

import os
import sys

Environment = os._Environ[str] | dict[str, str]  # noqa: SLF001 -- the type of os.environ

_MOST_DIGITS = 9


def check(command: list[str] = sys.orig_argv, environment: Environment = os.environ) -> None:
    """Unset the empty variables and take out white space; end the process with one sentence if a variable is malformed.

    Only Gunicorn is affected: every other program reads its settings by itself.

    Args:
        command: The interpreter and its arguments.
        environment: The variables, which are changed in place.
    """
    if _program(command[1:]) != "gunicorn":
        return
    for name in ("FORWARDED_ALLOW_IPS", "WEB_CONCURRENCY"):
        if not environment.get(name, "").strip():
            environment.pop(name, None)
    message = _refusal(environment)
    if message:
        os.write(2, f"Error: {message}\n".encode())
        os._exit(1)  # Python reports SystemExit as a fatal error before it has started
    if "FORWARDED_ALLOW_IPS" in environment:  # Gunicorn passes over an empty entry, but not over a blank one
        environment["FORWARDED_ALLOW_IPS"] = "".join(environment["FORWARDED_ALLOW_IPS"].split())


def _program(arguments: list[str]) -> str:
    """The name of the script, or of the package of the module, that Python runs. Its own options come before."""
    left = iter(arguments)
    for argument in left:
        if not argument.startswith("-") or argument == "-":
            return os.path.basename(argument)  # noqa: PTH119  # the import of pathlib takes 5 ms
        if argument == "--check-hash-based-pycs":
            next(left, None)
        if argument.startswith("--"):
            continue
        for position, option in enumerate(argument[1:], start=2):  # several may stand together, as in -um
            if option in "cmWX":
                value = argument[position:] or next(left, "")
                if option in "cm":
                    return value.partition(".")[0] if option == "m" else ""
                break
    return ""


def _refusal(environment: Environment) -> str | None:
    workers = environment.get("WEB_CONCURRENCY", "1").strip()
    # int() also reads -1, which Gunicorn refuses, and reads no number of thousands of digits.
    if not (workers.isascii() and workers.isdecimal()) or len(workers) > _MOST_DIGITS:
        return "WEB_CONCURRENCY must be a whole number like 4, or be unset for one worker for each CPU."
    if "FORWARDED_ALLOW_IPS" in environment:
        import ipaddress  # noqa: PLC0415 -- every start of Python would pay for it

        try:
            for network in environment["FORWARDED_ALLOW_IPS"].split(","):
                _ = network.strip() in ("", "*") or ipaddress.ip_network(network.strip())
        except ValueError:
            return (
                "FORWARDED_ALLOW_IPS must be addresses or networks like 10.0.0.0/8, with no host bits set, "
                "separated by commas, or * for all."
            )
    return None
