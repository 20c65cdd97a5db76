"""The settings that are addresses: what is accepted, what it becomes, and what is refused."""

import json

import pytest

from app.errors import StartupError
from app.settings import Settings


def refusal(name: str, value: str) -> str:
    """The sentence that refuses a value of this setting."""
    with pytest.raises(StartupError, match=f"^{name} must ") as refused:
        Settings.load(**{name.lower(): value}, _env_file=None)
    return str(refused.value)


@pytest.mark.parametrize(
    ("written", "origins"),
    [
        ("https://app.example.com", ["https://app.example.com"]),
        ("https://app.example.com/", ["https://app.example.com"]),
        ("HTTPS://App.Example.COM:443/", ["https://app.example.com"]),
        ("http://localhost:3000, http://127.0.0.1:80 ,", ["http://localhost:3000", "http://127.0.0.1"]),
        ('["https://a.example", "https://b.example/"]', ["https://a.example", "https://b.example"]),
        ("http://[::1]:8080", ["http://[::1]:8080"]), ("capacitor://localhost", ["capacitor://localhost"]),
        ("https://a.example:8443", ["https://a.example:8443"]), ("*", ["*"]),
        ("https://a.example:0443", ["https://a.example"]), ("https://a.example:080", ["https://a.example:80"]),
        ("http://a.example:00080", ["http://a.example"]), ("https://a.example:65535", ["https://a.example:65535"]),
        ("https://[0:0:0:0:0:0:0:1]:3000", ["https://[::1]:3000"]), ("http://[::FFFF:10.0.0.1]", ["http://[::ffff:a00:1]"]),
        ("http://[2001:db8:0:1:1:1:1:1]", ["http://[2001:db8:0:1:1:1:1:1]"]),
        ("moz-extension://b0a6-583d", ["moz-extension://b0a6-583d"]), ("tauri://localhost", ["tauri://localhost"]),
    ],
)  # fmt: skip
def test_an_origin_becomes_what_browsers_send(environment, written, origins):
    """In lower case, without a slash at the end, and without the port that belongs to the scheme."""
    environment("CORS_ALLOW_ORIGINS", written)

    assert tuple(origins) == Settings.load().cors_allow_origins


@pytest.mark.parametrize(
    "written",
    ["app.example.com", "https://*.example.com", "*.example.com", "https://a.example;https://b.example", "null",
     "https://a.example/path", "https://a.example b.example", "https://user@a.example", "https://", "//a.example",
     "https://bücher.example", "[1, 2]", '{"a": 1}', "https://a.example?x", "https://a.example:99999",
     "https://a.example:65536", "https://a.example:0", "https://a.example:", "http://0177.0.0.1", "https://127.1",
     "http://2130706433", "http://0x7f.0.0.1", "http://0x7f000001", "http://a.0x1", "http://256.0.0.1", "http://a.1",
     "https://a..b", "https://.", "https://.a.example", "http://[fe80::1%eth0]", "http://[::1", "http://[1:2]",
     "htps://a.example", "ws://a.example", "file://a", "https:://a.example"],
)  # fmt: skip
def test_an_origin_that_no_browser_sends_is_refused(written):
    """The sentence shows the form."""
    sentence = refusal("CORS_ALLOW_ORIGINS", written)

    assert "separated by commas" in sentence
    assert "https://app.example.com" in sentence or ";" in written or "[" in written


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("Service.Example.com", ["service.example.com"]), ("*.Example.com", ["*.example.com"]),
        (".example.com", ["example.com", "*.example.com"]), ("service.example.com.", ["service.example.com"]),
        (json.dumps(["a.example", "b.example"]), ["a.example", "b.example"]), ("10.0.0.1", ["10.0.0.1"]),
        ("::1", ["[::1]"]), ("[::1]", ["[::1]"]), ("[::1], localhost", ["[::1]", "localhost"]), ("*", ["*"]),
        ("a_b.example, my-host", ["a_b.example", "my-host"]), ("2001:DB8:0:0:0:0:0:1", ["[2001:db8::1]"]),
        ("[::ffff:10.0.0.1]", ["[::ffff:a00:1]"]), ("*.example.com.", ["*.example.com"]),
    ],
)  # fmt: skip
def test_a_host_name_becomes_what_is_compared(environment, written, names):
    """In lower case; a name that begins with a dot means itself and all names below it; IPv6 is in brackets."""
    environment("ALLOWED_HOSTS", written)

    assert tuple(names) == Settings.load().allowed_hosts


@pytest.mark.parametrize(
    "written",
    ["service.example.com:8000", "https://samples.example.com", "service.example.com/path", "a.example;b.example",
     "a.example b.example", "*example.com", "a.*.example", "[::1]:8000", "*.", "..example.com", "user@a.example",
     "a..b", ".", "*.10.0.0.1", ".10.0.0.1", "127.1", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "*.a.0x1",
     "fe80::1%eth0", "\u017fervice.example"],
)  # fmt: skip
def test_what_is_no_host_name_is_refused(written):
    """A scheme, a port or a path would never be equal to the Host of a request."""
    assert "separated by commas" in refusal("ALLOWED_HOSTS", written)


@pytest.mark.parametrize(
    ("written", "networks"),
    [
        ("10.0.0.0/8, ::1", ["10.0.0.0/8", "::1"]), ("*", ["*"]),
        ("2001:DB8::/32", ["2001:db8::/32"]), ('["10.0.0.1"]', ["10.0.0.1"]),
    ],
)  # fmt: skip
def test_a_network_becomes_its_usual_form(environment, written, networks):
    """IPv6 is written in lower case."""
    environment("FORWARDED_ALLOW_IPS", written)

    assert tuple(networks) == Settings.load().forwarded_allow_ips


@pytest.mark.parametrize(
    "written", ["proxy.example", "10.1.2.3/8", "10.0.0.0/33", "10.0.0", "10.0.0.1:80", "10.0.0.1;10.0.0.2", "unix"]
)
def test_what_is_no_network_is_refused(written):
    """A name, a port or half an address is none."""
    assert "separated by commas" in refusal("FORWARDED_ALLOW_IPS", written)


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("0.0.0.0", "0.0.0.0"), ("::", "::"), ("::1", "::1"), ("[::1]", "::1"), ("localhost", "localhost"),
        ("api-1.internal", "api-1.internal"), ("unix:/run/a.sock", "unix:/run/a.sock"), ("fe80::1%eth0",) * 2,
    ],
)  # fmt: skip
def test_the_service_can_listen_on_an_address_a_name_or_a_socket(environment, written, host):
    """IPv6 can be in brackets."""
    environment("HOST", written)

    assert host == Settings.load().host


@pytest.mark.parametrize(
    "written",
    ["0.0.0.0:8000", "[::1]:8000", "http://0.0.0.0", "*", "8000", "10.1", "0", "a b", "unix:service.sock", "unix:",
     "unix:/nowhere/samples.sock", f"unix:/tmp/{'x' * 100}", "unix:/tmp", "unix:/etc/passwd", "256.0.0.1",
     "0x7f000001"],
)  # fmt: skip
def test_what_cannot_be_listened_on_is_refused(written):
    """A port has a setting of its own, and the folder of a socket must exist."""
    assert "such as 0.0.0.0" in refusal("HOST", written) or written.startswith("unix:")
