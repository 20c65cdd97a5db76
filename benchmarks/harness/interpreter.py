"""Says which CPython this is. It can be run by another interpreter, without any package."""

import platform
import sysconfig

_IS_OF_DEBIAN = "deb_system" in sysconfig.get_scheme_names()
"""Debian's rules use a profile and LTO, and remove both from what `sysconfig` says."""


def release() -> str:
    """The release, and whether it was compiled with a profile (PGO)."""
    has_profile = _IS_OF_DEBIAN or "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS"))
    return f"{platform.python_version()} {'with' if has_profile else 'without'} PGO"


def compiler() -> str:
    """What it was compiled with."""
    return "by Debian's rules, " * _IS_OF_DEBIAN + platform.python_compiler()


if __name__ == "__main__":
    print(release())
    print(compiler())
