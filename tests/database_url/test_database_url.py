"""What a database URL may say, and what its parts become."""

import os
import pwd
import re
from pathlib import Path

import pytest

from app.database_url import DatabaseUrl

FORM = "must be a URL like postgresql://user:password@host:5432/name"


def parse(url: str, **environment: str) -> DatabaseUrl:
    """The URL as it is read where the environment has these variables only."""
    return DatabaseUrl.parse(url, environment)


def refusal(url: str, **environment: str) -> str:
    """The sentence, without the name of the setting, that refuses the URL."""
    with pytest.raises(ValueError, match=r"^must ") as refused:
        parse(url, **environment)
    return str(refused.value)


@pytest.mark.parametrize(
    ("servers", "hosts"),
    [
        ("h", [("h", 5432)]), ("h:1", [("h", 1)]), ("[::1]:5433", [("::1", 5433)]), ("h:", [("h", 5432)]),
        ("h1:5432,h2:5433,h3", [("h1", 5432), ("h2", 5433), ("h3", 5432)]), ("10.0.0.1", [("10.0.0.1", 5432)]),
        ("%2Frun%2Fpostgresql", [("/run/postgresql", 5432)]), ("a_b-c.d", [("a_b-c.d", 5432)]),
    ],
)  # fmt: skip
def test_each_host_has_its_port(servers, hosts):
    """A name, an address or the folder of a socket, each with its own port or else 5432."""
    assert hosts == [(host.name, host.port) for host in parse(f"postgresql://u@{servers}/d").hosts]


def test_hosts_can_be_parameters():
    """`host` and `port` behind the question mark take the place of the authority; one port serves all hosts."""
    url = parse("postgresql://u@ignored/d?host=/run/a,h2,::1&port=6000")

    assert [("/run/a", 6000), ("h2", 6000), ("::1", 6000)] == [(host.name, host.port) for host in url.hosts]
    assert [True, False, False] == [host.is_socket for host in url.hosts]


def test_without_a_host_the_sockets_of_postgresql_are_tried_first():
    """Then loopback, as libpq does on most systems."""
    assert ["/var/run/postgresql", "/tmp", "localhost"] == [host.name for host in parse("postgresql://u@/d").hosts]


@pytest.mark.parametrize(
    "servers", ["h:0", "h:65536", "h:port", "h:1:2", "h1,,h2", "h h", "h!", "[::1", "[::x]", "h:٣"]
)
def test_a_malformed_server_is_refused(servers):
    """The sentence shows the form of a URL."""
    assert refusal(f"postgresql://u@{servers}/d").startswith(FORM)


def test_as_many_ports_as_hosts_are_required():
    """Two ports for three hosts cannot be assigned."""
    assert "as many ports as hosts" in refusal("postgresql://u@/d?host=a,b,c&port=1,2")


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("postgresql://u:a%40b%2Fc%3Ad%3Fe%25@h/d", "a@b/c:d?e%"), ("postgresql://u:a#b[c]@h/d", "a#b[c]"),
        ("postgresql://u:a:b@h/d", "a:b"), ("postgresql://u:p@h/d ", "p"), ("postgresql://u@h/d?password=p", "p"),
        ("postgresql://u@h/d", ""),
    ],
)  # fmt: skip
def test_a_password_can_have_any_character(url, password):
    """A character that has a meaning in a URL is %-escaped; the others can be escaped or not."""
    assert password == parse(url).password


@pytest.mark.parametrize(
    "url",
    ["postgresql://u@tenant:hunter2@h/d", "postgresql://u:hun@ter2@h/d", "postgresql://u:hunter/2@h/d",
     "postgresql://u:1/hunter2@h/d", "postgresql://u:hunter2?x@h/d", "postgresql://u:hunter2%@h/d",
     "postgresql://u:hunter2%00@h/d", "postgresql://u:hunter2%FF@h/d", "postgresql://u:hunt er2@h/d"],
)  # fmt: skip
def test_an_ambiguous_url_is_refused_with_the_escapes(url):
    """What two parsers would read differently is refused, and the sentence shows the %-escapes."""
    assert re.match(rf"{re.escape(FORM)}, with %25 for %, %40 for @, .* inside of its parts", refusal(url))


@pytest.mark.parametrize(
    "parameters",
    ["connect_timeout=10", "keepalives=1&keepalives_idle=60&keepalives_interval=5&keepalives_count=3",
     "gssencmode=disable", "gssencmode=prefer&krbsrvname=postgres", "channel_binding=prefer", "sslsni=1",
     "sslmode=disable&", "client_encoding=utf8", "application_name=a", "target_session_attrs=read-write",
     "load_balance_hosts=random", "tcp_user_timeout=1000", "fallback_application_name=a", "passfile="],
)  # fmt: skip
def test_parameters_of_libpq_are_accepted(parameters):
    """They are used, or ignored where that makes no difference; a trailing & is no parameter."""
    assert "d" == parse(f"postgresql://u@h/d?{parameters}").database


@pytest.mark.parametrize(
    ("parameter", "advice"),
    [
        ("pgbouncer=true", "set DATABASE_POOLER=pgbouncer"), ("connection_limit=1", "set DATABASE_CONNECTIONS"),
        ("schema=public", "write options=-csearch_path%3Dname"), ("hostaddr=10.0.0.1", "the address as the host"),
        ("service=x", "write the service's parameters"), ("sslmod=require", "write sslmode if that is meant"),
        ("TARGET_SESSION_ATTR=any", "write target_session_attrs if that is meant"),
        ("prepared_statement_cache_size=0", "it can have application_name, "), ("requirepeer=postgres", "it can have"),
    ],
)  # fmt: skip
def test_a_parameter_that_cannot_work_is_refused_by_its_name(parameter, advice):
    """The sentence names the parameter, and says what to write instead."""
    sentence = refusal(f"postgresql://u@h/d?{parameter}")

    assert sentence.startswith(f"must not have the parameter {parameter.partition('=')[0]}")
    assert advice in sentence


@pytest.mark.parametrize(
    "parameter",
    ["sslmode=on", "ssl=maybe", "target_session_attrs=primry", "gssencmode=require", "client_encoding=latin1",
     "channel_binding=maybe", "sslcertmode=require", "load_balance_hosts=yes", "min_protocol_version=3.2"],
)  # fmt: skip
def test_a_value_that_cannot_work_is_refused_with_the_choices(parameter):
    """The sentence names the parameter and every value that it can have, not the one that it has."""
    name, _, value = parameter.partition("=")
    sentence = refusal(f"postgresql://u@h/d?{parameter}")

    assert re.search(rf"must have [\w., -]+ as the value of {'sslmode' if name == 'ssl' else name}\b", sentence)
    assert f" {value} " not in sentence


@pytest.mark.parametrize("parameter", ["x", "x=1=2", "&x=1", "=1", "hunter2%20=1"])
def test_a_malformed_parameter_is_refused(parameter):
    """The sentence shows the form, and not what is there instead."""
    assert "hunter2" not in refusal(f"postgresql://u@h/d?{parameter}")


@pytest.mark.parametrize("value", ["soon", "1.5", ""])
def test_connect_timeout_is_a_number_of_seconds(value):
    """An empty one counts as left out."""
    if value:
        assert "connect_timeout" in refusal(f"postgresql://u@h/d?connect_timeout={value}")
    else:
        assert parse(f"postgresql://u@h/d?connect_timeout={value}").connect_seconds is None


@pytest.mark.parametrize(("value", "seconds"), [("3", 3), ("0", None), ("-1", None), ("900", 60)])
def test_connect_timeout_bounds_the_time_for_one_host(value, seconds):
    """It is at most a minute; 0 means the default of the service and not for ever."""
    assert seconds == parse(f"postgresql://u@h/d?connect_timeout={value}").connect_seconds


@pytest.mark.parametrize(
    ("parameters", "mode"),
    [
        ("ssl=true&sslmode=verify-full&sslrootcert=system", "verify-full"), ("sslmode=require&ssl=true", "require"),
        ("ssl=false&sslmode=disable", "disable"), ("ssl=require&sslmode=require", "require"),
        ("ssl=require&sslmode=", "require"), ("ssl=&sslmode=require", "require"),
        ("sslmode=require&sslmode=require", "require"), ("user=u&password=p&dbname=d&sslmode=allow", "allow"),
    ],
)  # fmt: skip
def test_the_same_can_be_said_twice(parameters, mode):
    """`ssl=true`, as JDBC has it, goes with each mode that always encrypts; an empty value counts as left out."""
    url = parse(f"postgresql://u:p@h/d?{parameters}")

    assert (mode, "u", "p", "d") == (url.tls.mode, url.user, url.password, url.database)


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ("ssl=require&sslmode=disable", "ssl and sslmode"), ("sslmode=disable&ssl=true", "ssl and sslmode"),
        ("ssl=true&sslmode=prefer", "ssl and sslmode"), ("ssl=false&sslmode=require", "ssl and sslmode"),
        ("ssl=verify-full&sslmode=require", "ssl and sslmode"), ("ssl=true&ssl=false", "ssl"),
        ("sslmode=require&sslmode=disable", "sslmode"), ("host=a&host=b", "host"),
        ("password=p&password=q", "password"),
        ("sslrootcert=/a&connect_timeout=1&sslrootcert=/b", "sslrootcert"), ("options=&options=-cjit%3Doff", "options"),
        ("user=other", "user"), ("password=hunter", "password"), ("dbname=other", "dbname"), ("user=", "user"),
    ],
)  # fmt: skip
def test_what_is_said_twice_with_different_values_is_refused(parameters, names):
    """By the names of the parameters. libpq would take the last, and the service the weaker."""
    sentence = refusal(f"postgresql://u:p@h/d?{parameters}")

    assert re.match(rf"must not have the parameters? {names} (twice )?with (another|different) ", sentence)
    assert "hunter" not in sentence


def test_a_repeated_name_that_is_no_parameter_is_not_repeated():
    """It may be a part of a password."""
    assert "hunter2" not in refusal("postgresql://u@h/d?hunter2=1&hunter2=2")


@pytest.mark.parametrize("ssl", ["true", "require"])
def test_ssl_is_translated(ssl):
    """`ssl=true`, as JDBC has it, and `ssl=require`, as SQLAlchemy has it, mean `sslmode=require`."""
    assert "require" == parse(f"postgresql://u@h/d?ssl={ssl}").tls.mode


def test_options_are_sent_to_the_server():
    """With the name of the application they are what PostgreSQL sets for each connection."""
    url = parse("postgresql://u@h/d?options=-csearch_path%3Dx%20-cjit%3Doff&application_name=a")

    assert {"options": "-csearch_path=x -cjit=off", "application_name": "a"} == url.server_settings


def test_what_a_url_leaves_out_comes_from_the_variables_of_libpq():
    """The URL takes precedence over PGUSER and the others."""
    url = parse("postgresql://u@/", PGUSER="x", PGPASSWORD="pw", PGHOST="h", PGPORT="6000", PGDATABASE="d")

    assert ("u", "pw", "d", "h", 6000) == (url.user, url.password, url.database, url.hosts[0].name, url.hosts[0].port)
    assert "(or PGSSLMODE)" in refusal("postgresql://u@h/d", PGSSLMODE="maybe")


@pytest.mark.parametrize("variable", ["PGUSER", "PGPASSWORD", "PGDATABASE", "PGAPPNAME", "PGOPTIONS"])
def test_a_variable_that_is_not_utf8_is_refused(variable):
    """Python reads its bytes as surrogates, which the driver cannot send."""
    assert "text in UTF-8 as the value of " in refusal("postgresql://", **{variable: os.fsdecode(b"caf\xe9")})
    assert refusal("postgresql://", **{variable: os.fsdecode(b"caf\xe9")}).endswith(f"(or {variable})")


def test_the_default_user_is_that_of_the_process(monkeypatch):
    """The database has the name of the user by default. A user id without a name is refused in a sentence."""
    assert pwd.getpwuid(os.geteuid()).pw_name == parse("postgresql://h").user == parse("postgresql://h").database

    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)

    assert f"{FORM} with a user: the user id of this process has no name to take instead" == refusal("postgresql://h/d")
    assert "u" == parse("postgresql://u@h/d").user


def test_hosts_are_tried_in_order_and_standbys_first_where_they_are_preferred():
    """`prefer-standby` takes two rounds, as in libpq: standbys, then any."""
    listed = parse("postgresql://u@a,b/d?target_session_attrs=any")
    assert [("a", "any"), ("b", "any")] == [(h.name, kind) for h, kind in listed.attempts()]

    preferring = parse("postgresql://u@a,b/d?target_session_attrs=prefer-standby").attempts()

    assert [("a", "standby"), ("b", "standby"), ("a", "any"), ("b", "any")] == [
        (h.name, kind) for h, kind in preferring
    ]


@pytest.mark.parametrize(
    ("url", "kind"),
    [("postgresql://u@a,b/d", "read-write"), ("postgresql://u@/d?host=a,b", "read-write"),
     ("postgresql://u@a/d", "any"), ("postgresql://u@/d", "any"),
     ("postgresql://u@a,b/d?target_session_attrs=", "read-write"),
     ("postgresql://u@a,b/d?target_session_attrs=standby", "standby")],
)  # fmt: skip
def test_of_several_hosts_one_that_takes_writes_is_wanted(url, kind):
    """Where the URL does not say otherwise. A single host is taken as it is, and the default sockets are one host."""
    assert {kind} == {wanted for _, wanted in parse(url).attempts()}


def test_hosts_can_be_tried_in_a_random_order():
    """With `load_balance_hosts=random` each host comes first at times, and each is tried."""
    url = parse("postgresql://u@a,b,c/d?load_balance_hosts=random")
    orders = [[host.name for host, _ in url.attempts()] for _ in range(200)]

    assert {"a", "b", "c"} == {order[0] for order in orders}
    assert all({"a", "b", "c"} == set(order) for order in orders)


def test_a_file_of_passwords_is_used_where_the_url_has_none(tmp_path):
    """`passfile` is a file of libpq's form that nobody else can read."""
    file = tmp_path / "passwords"
    file.write_text("*:*:*:*:pw\n")
    file.chmod(0o600)

    assert file == parse(f"postgresql://u@h/d?passfile={file}").password_file
    assert parse(f"postgresql://u:p@h/d?passfile={file}").password_file is None

    file.chmod(0o640)
    assert "passfile" in refusal(f"postgresql://u@h/d?passfile={file}")
    assert "passfile" in refusal("postgresql://u@h/d?passfile=/nowhere")


def test_no_file_below_home_is_required(monkeypatch, tmp_path):
    """A home directory that is missing, or none at all, makes no difference."""
    url = parse("postgresql://u@h/d")
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    assert url == parse("postgresql://u@h/d")

    monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError))
    assert url == parse("postgresql://u@h/d")


def test_files_below_home_are_used_where_they_are(monkeypatch, tmp_path):
    """As libpq does: the file of passwords, and the root certificate."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".pgpass").write_text("*:*:*:*:pw\n")

    assert tmp_path / ".pgpass" == parse("postgresql://u@h/d").password_file


def test_replicas_are_servers_of_any_kind():
    """Each host is one server, of which a worker finds out whether it is a standby, also of several hosts."""
    for attributes in ("", "?target_session_attrs=any", "?target_session_attrs=prefer-standby"):
        url = DatabaseUrl.parse_replicas(f"postgresql://u@h1,h2/d{attributes}", {})
        assert ["h1", "h2"] == [host.name for host in url.hosts]
        assert "any" == url.session_attributes


@pytest.mark.parametrize(
    ("url", "environment", "reason"),
    [
        ("h1,h2/d?target_session_attrs=read-write", {}, "must not have target_session_attrs=read-write"),
        ("h/d", {"PGTARGETSESSIONATTRS": "primary"}, "must not have target_session_attrs=primary"),
        ("h1,h2:5432,h1/d", {}, "must name each host once"),
        (",".join(f"h{number}" for number in range(4)) + "/d", {}, "must have at most 3 hosts"),
    ],
)
def test_replicas_that_cannot_work_are_refused(url, environment, reason):
    """Servers that take writes, a server that would get two pools, and too many."""
    with pytest.raises(ValueError, match=f"^{reason}"):
        DatabaseUrl.parse_replicas(f"postgresql://u@{url}", environment)
