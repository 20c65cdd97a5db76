"""How the parameters of a URL choose TLS."""

import ssl
from pathlib import Path

import certifi
import pytest

from app.database_url.tls import DatabaseTls

ROOTS = certifi.where()


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """An empty home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def contexts(**parameters: str) -> list[tuple[ssl.VerifyMode, bool] | None]:
    """What each context checks, in the order of the attempts: the certificate, and the host's name in it."""
    tls = DatabaseTls.from_parameters(parameters)
    return [(context.verify_mode, context.check_hostname) if context else None for context in tls.contexts()]


UNCHECKED = (ssl.CERT_NONE, False)
CHECKED = (ssl.CERT_REQUIRED, False)
CHECKED_WITH_NAME = (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize(
    ("parameters", "attempts"),
    [
        ({}, [UNCHECKED, None]), ({"sslmode": "disable"}, [None]), ({"sslmode": "allow"}, [None, UNCHECKED]),
        ({"sslmode": "prefer"}, [UNCHECKED, None]), ({"sslmode": "require"}, [UNCHECKED]),
        ({"sslmode": "require", "sslrootcert": ROOTS}, [CHECKED]),
        ({"sslmode": "verify-ca", "sslrootcert": ROOTS}, [CHECKED]),
        ({"sslmode": "verify-full", "sslrootcert": ROOTS}, [CHECKED_WITH_NAME]),
        ({"sslrootcert": "system"}, [CHECKED_WITH_NAME]),
    ],
)  # fmt: skip
def test_the_mode_decides_what_is_tried_and_checked(parameters, attempts):
    """As in libpq, `require` checks the server's certificate where there is a root certificate."""
    assert attempts == contexts(**parameters)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"sslmode": "verify-full"}, r"must name the root certificate that sslmode=verify-full checks against: add "),
        ({"sslmode": "verify-ca"}, r"must name the root certificate .*sslrootcert=/path/of/root\.crt"),
        ({"sslmode": "require", "sslrootcert": "system"}, r"must have verify-full as the value of sslmode"),
        ({"sslnegotiation": "direct"}, r"must have sslmode=require, verify-ca or verify-full together with "),
        ({"sslmode": "require", "sslrootcert": "/nowhere"}, r"must name a file .* in its parameter sslrootcert$"),
        ({"sslmode": "require", "sslcert": "/nowhere"}, r"must name a file .* in its parameter sslcert$"),
        ({"sslmode": "require", "sslrootcert": __file__}, r"must name files in PEM format"),
        ({"sslmode": "require", "sslcert": ROOTS}, r"must name files in PEM format .* sslpassword$"),
        ({"ssl_min_protocol_version": "TLSv1.1"}, r"must have TLSv1\.2 or TLSv1\.3 as the value of ssl_min"),
        ({"ssl_min_protocol_version": "TLSv1.3", "ssl_max_protocol_version": "TLSv1.2"},
         r"must have an ssl_max_protocol_version that is not below its ssl_min_protocol_version"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(parameters, sentence):
    """The sentence names the parameter and says what to write."""
    with pytest.raises(ValueError, match=sentence):
        DatabaseTls.from_parameters(parameters)


def test_versions_of_tls_can_be_bounded():
    """The least is 1.2 by default, as in libpq."""
    default, bounded = (
        DatabaseTls.from_parameters({"sslmode": "require"} | more).contexts()[0]
        for more in ({}, {"ssl_min_protocol_version": "TLSv1.3"})
    )

    assert default is not None
    assert bounded is not None
    assert (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3) == (default.minimum_version, bounded.minimum_version)


def test_a_root_certificate_below_home_is_used(home):
    """A file in `~/.postgresql` is used where it is, as in libpq."""
    (home / ".postgresql").mkdir()
    (home / ".postgresql" / "root.crt").write_text(Path(ROOTS).read_text())

    assert [CHECKED] == contexts(sslmode="require")
    assert [CHECKED_WITH_NAME] == contexts(sslmode="verify-full")
