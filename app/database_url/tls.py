"""TLS to PostgreSQL, as the `ssl…` parameters of libpq choose it."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.database_url.parameters import choice

_MODES: Final = ("prefer", "disable", "allow", "require", "verify-ca", "verify-full")

_SYSTEM: Final = "system"
"""The value of `sslrootcert` that stands for the certificates of the operating system."""

_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseTls:
    """Whether connections are encrypted, and which certificates they use and check."""

    mode: str
    is_direct: bool
    """Whether the TLS handshake comes first, without PostgreSQL's request for it."""

    root_certificate: str | None
    revocation_list: str | None
    certificate: str | None
    key: str | None
    key_password: str
    minimum_version: ssl.TLSVersion
    maximum_version: ssl.TLSVersion

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> "DatabaseTls":
        """What libpq's parameters choose. A file below the home directory is used where there is one, as libpq does.

        Raises:
            ValueError: They contradict each other, or a file cannot be used. The message repeats no value.
        """
        root_certificate = parameters.get("sslrootcert") or _file_below_home("root.crt")
        certificate = parameters.get("sslcert") or _file_below_home("postgresql.crt")
        versions = tuple(_VERSIONS)
        tls = cls(
            mode=choice(parameters, "sslmode", *(("verify-full",) if root_certificate == _SYSTEM else _MODES)),
            is_direct=choice(parameters, "sslnegotiation", "postgres", "direct") == "direct",
            root_certificate=root_certificate,
            revocation_list=parameters.get("sslcrl") or _file_below_home("root.crl"),
            certificate=certificate,
            key=parameters.get("sslkey") or (certificate and _file_below_home("postgresql.key")),
            key_password=parameters.get("sslpassword", ""),
            minimum_version=_VERSIONS[choice(parameters, "ssl_min_protocol_version", *versions)],
            maximum_version=_VERSIONS[choice(parameters, "ssl_max_protocol_version", *reversed(versions))],
        )
        tls._check(parameters)
        return tls

    def contexts(self) -> tuple[ssl.SSLContext | None, ...]:
        """The contexts to connect with. The second is for a server that refuses the first; None does not encrypt.

        They are made for each connection, so that certificates which were replaced are read again.

        Raises:
            OSError: A file cannot be used.
        """
        match self.mode:
            case "disable":
                return (None,)
            case "allow":
                return (None, self._context())
            case "prefer":
                return (self._context(), None)
            case _:
                return (self._context(),)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version, context.maximum_version = self.minimum_version, self.maximum_version
        context.set_alpn_protocols(["postgresql"])
        context.check_hostname = self.mode == "verify-full"
        # With sslmode=require, libpq checks the server's certificate only where it has a root certificate.
        if self.root_certificate and self.mode not in {"allow", "prefer"}:
            self._load_roots(context)
        else:
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key, self.key_password)
        return context

    def _load_roots(self, context: ssl.SSLContext) -> None:
        if self.root_certificate == _SYSTEM:
            context.load_default_certs()
        else:
            context.load_verify_locations(self.root_certificate)
        if self.revocation_list:
            context.load_verify_locations(self.revocation_list)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN

    def _check(self, parameters: Mapping[str, str]) -> None:
        if self.mode in {"verify-ca", "verify-full"} and not self.root_certificate:
            raise ValueError(
                f"must name the root certificate that sslmode={self.mode} checks against: add "
                "sslrootcert=/path/of/root.crt, or sslrootcert=system with sslmode=verify-full"
            )
        if self.is_direct and self.mode in _MODES[:3]:
            raise ValueError("must have sslmode=require, verify-ca or verify-full together with sslnegotiation=direct")
        if self.minimum_version > self.maximum_version:
            raise ValueError("must have an ssl_max_protocol_version that is not below its ssl_min_protocol_version")
        for name in ("sslrootcert", "sslcrl", "sslcert", "sslkey"):
            file = parameters.get(name, _SYSTEM)
            if file != _SYSTEM and not os.access(file, os.R_OK):
                raise ValueError(f"must name a file that this process can read in its parameter {name}")
        try:
            self.contexts()
        except OSError:
            raise ValueError(
                "must name files in PEM format in its parameters sslrootcert, sslcrl, sslcert and sslkey, "
                "and the key's password, if it has one, in sslpassword"
            ) from None


def _file_below_home(name: str) -> str | None:
    """The file in the folder of libpq, or None where this process cannot read it."""
    file = Path("~/.postgresql", name)
    try:
        file = file.expanduser()
    except RuntimeError:  # neither HOME nor an entry of the user in the system's list
        return None
    return str(file) if os.access(file, os.R_OK) else None
