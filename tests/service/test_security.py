"""Who gets in, what they may do there, and what nobody can: over real connections."""

import contextlib
import dataclasses
import datetime as dt
import hashlib
import os
import signal
import subprocess
import sys
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
import trustme
import worlds
from grpc_health.v1 import health_pb2, health_pb2_grpc
from worlds import JOINT, UNIFORM, train

import curator
from curator import wire
from curator.cli.__main__ import main
from curator.config import Permission, TlsSpec, TokenSpec, is_local, parse_config
from curator.engine import Registry
from curator.errors import (
    AuthenticationError,
    ConfigError,
    CuratorError,
    FeatureError,
    LimitError,
    PermissionDeniedError,
    UnavailableError,
    UnknownSessionError,
)
from curator.policies import POLICIES
from curator.pools import MemoryPool
from curator.rpc.v1 import curation_pb2 as pb
from curator.rpc.v1 import curation_pb2_grpc
from curator.samplers import SAMPLERS
from curator.service import Server
from curator.service._auth import _PERMISSIONS

TOKEN = "a-token-of-32-characters-or-more"
WIDE = dataclasses.replace(UNIFORM, super_batch_size=24)
PERMISSIONS = list(Permission.__args__)


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(autouse=True)
def no_token_from_outside(monkeypatch):
    monkeypatch.delenv("CURATOR_TOKEN", raising=False)


@pytest.fixture
def ca_file(ca, tmp_path):
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


def issue(ca, folder, name="server", **arguments):
    """Writes a certificate for this machine; returns its file and its key's.

    They are replaced at once, as `mv` and mounted secrets do it.
    """
    issued = ca.issue_cert("127.0.0.1", "localhost", **arguments)
    blobs = {
        f"{name}.pem": b"".join(blob.bytes() for blob in issued.cert_chain_pems),
        f"{name}.key": issued.private_key_pem.bytes(),
    }
    for file, data in blobs.items():
        (folder / "new").write_bytes(data)
        os.replace(folder / "new", folder / file)
    return [str(folder / file) for file in blobs]


def tls_of(ca, folder, **arguments):
    cert, key = issue(ca, folder)
    return TlsSpec(cert=cert, key=key, **arguments)


def token_of(token=TOKEN, allow=("administer",)):
    digest = hashlib.sha256(token.encode()).hexdigest()
    return TokenSpec(sha256=digest, allow=list(allow))


@contextlib.contextmanager
def serving(tmp_path, *, listen=None, insecure=False, **server):
    """Yields the address of a server of the sessions ``uniform`` and ``wide``."""
    config = worlds.config(
        tmp_path / "state", server=server, uniform=UNIFORM, wide=WIDE
    )
    registry = Registry(config, {"pairs": MemoryPool(worlds.pairs())})
    try:
        running = Server(registry, listen, insecure=insecure)
        try:
            yield running.address
        finally:
            running.stop(grace_seconds=0.0)
    finally:
        registry.close()


def names(address, **arguments):
    with curator.connect(address, **arguments) as service:
        return service.names()


def refuses(address, match="no curator server at", **arguments):
    with pytest.raises(UnavailableError, match=match):
        curator.connect(address, timeout=0.2, **arguments)


# --- TLS ----------------------------------------------------------------------------


def test_batches_come_over_tls(ca, ca_file, tmp_path):
    with (
        serving(tmp_path, tls=tls_of(ca, tmp_path)) as address,
        curator.connect(address, tls=ca_file) as service,
    ):
        assert len(train(service.open("uniform"), 3)) == 3


def test_a_key_of_another_certificate_is_told_at_once(ca, ca_file, tmp_path):
    cert, _ = issue(ca, tmp_path, "client")
    _, key = issue(ca, tmp_path, "other")

    message = r"cert and key: .*client.pem and .*other.key are no certificate and its"
    with pytest.raises(ConfigError, match=message):
        curator.connect("localhost:1", tls=ca_file, cert=cert, key=key, timeout=1e9)


def test_a_server_of_another_ca_is_not_talked_to(ca, tmp_path):
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)

    with serving(tmp_path, tls=tls_of(ca, tmp_path)) as address:
        refuses(address, "CERTIFICATE_VERIFY_FAILED", tls=other)
        refuses(address, "CERTIFICATE_VERIFY_FAILED", tls=True)  # nor a public one
        refuses(address, "whether that server has TLS")


def test_a_certificate_of_another_host_is_not_believed(ca, ca_file, tmp_path):
    issued = ca.issue_cert("curator.example")
    issued.private_key_pem.write_to_path(tmp_path / "k")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "c")
    tls = TlsSpec(cert=str(tmp_path / "c"), key=str(tmp_path / "k"))

    with serving(tmp_path, tls=tls) as address:
        refuses(address, "[Hh]ost", tls=ca_file)


def test_with_mutual_tls_only_clients_of_the_ca_get_in(ca, ca_file, tmp_path):
    stranger = trustme.CA()
    tls = tls_of(ca, tmp_path, client_ca=str(ca_file))
    cert, key = issue(ca, tmp_path, "client")
    other_cert, other_key = issue(stranger, tmp_path, "stranger")

    with serving(tmp_path, tls=tls) as address:
        assert names(address, tls=ca_file, cert=cert, key=key) == ["uniform", "wide"]
        refuses(address, tls=ca_file)
        refuses(address, tls=ca_file, cert=other_cert, key=other_key)


def test_a_new_certificate_is_served_to_new_connections(ca, ca_file, tmp_path):
    new = trustme.CA()
    new_file = tmp_path / "new-ca.pem"
    new.cert_pem.write_to_path(new_file)

    with (
        serving(tmp_path, tls=tls_of(ca, tmp_path)) as address,
        curator.connect(address, tls=ca_file) as service,
    ):
        issue(new, tmp_path)

        assert names(address, tls=new_file) == ["uniform", "wide"]
        refuses(address, "CERTIFICATE_VERIFY_FAILED", tls=ca_file)
        assert service.names() == ["uniform", "wide"]  # its connection goes on


def test_an_expired_certificate_is_renewed_without_a_restart(ca, ca_file, tmp_path):
    long_ago = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    cert, key = issue(ca, tmp_path, not_after=long_ago)

    with serving(tmp_path, tls=TlsSpec(cert=cert, key=key)) as address:
        refuses(address, "CERTIFICATE_VERIFY_FAILED", tls=ca_file)
        issue(ca, tmp_path)

        assert names(address, tls=ca_file) == ["uniform", "wide"]


def test_a_broken_renewal_keeps_the_old_certificate(ca, ca_file, tmp_path, caplog):
    tls = tls_of(ca, tmp_path)
    server_key = tmp_path / "server.key"
    fitting = server_key.read_bytes()

    with serving(tmp_path, tls=tls) as address:
        for broken in (b"half a key", ca.issue_cert("x").private_key_pem.bytes()):
            server_key.write_bytes(broken)
            assert names(address, tls=ca_file) == ["uniform", "wide"]
            assert names(address, tls=ca_file) == ["uniform", "wide"]
        server_key.unlink()
        assert names(address, tls=ca_file) == ["uniform", "wide"]
        server_key.write_bytes(fitting)
        assert names(address, tls=ca_file) == ["uniform", "wide"]

    kept = [r.message for r in caplog.records if "keeping the old" in r.message]
    assert len(kept) == len(set(kept)) == 3  # each reason is said once


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("cert", r"server.tls: .*no certificate and its unencrypted key"),
        ("key", r"server.tls: .*no certificate and its unencrypted key"),
        ("client_ca", r"server.tls: .*broken.pem holds no certificates"),
    ],
)
def test_files_that_are_no_certificates_are_an_error_at_start(
    ca, tmp_path, broken, message
):
    (tmp_path / "broken.pem").write_text("nothing")
    tls = tls_of(ca, tmp_path)
    tls = dataclasses.replace(tls, **{broken: str(tmp_path / "broken.pem")})

    with pytest.raises(ConfigError, match=message), serving(tmp_path, tls=tls):
        pass
    tls = dataclasses.replace(tls, **{broken: str(tmp_path / "absent.pem")})
    with pytest.raises(ConfigError, match=r"absent.pem"), serving(tmp_path, tls=tls):
        pass


# --- tokens -------------------------------------------------------------------------


def test_the_right_token_gets_in_and_others_do_not(tmp_path, monkeypatch):
    tokens = {"other": token_of("o" * 32), "trainer": token_of()}

    with serving(tmp_path, tokens=tokens) as address:
        assert names(address, token=TOKEN) == ["uniform", "wide"]
        with pytest.raises(AuthenticationError, match=r"asks for a token.*CURATOR_TO"):
            names(address)
        for wrong in ("wrong", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper()):
            with pytest.raises(AuthenticationError, match="none of this server") as e:
                names(address, token=wrong)
            assert wrong not in str(e.value)
        monkeypatch.setenv("CURATOR_TOKEN", f"{TOKEN}\n")
        assert names(address) == ["uniform", "wide"]


def test_a_token_of_a_file_counts(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    tokens = {"t": TokenSpec(file=str(tmp_path / "token"), allow=["read"])}

    with serving(tmp_path, tokens=tokens) as address:
        assert names(address, token=TOKEN) == ["uniform", "wide"]


@pytest.mark.parametrize(
    "header", [TOKEN, f"Basic {TOKEN}", f"Bearer  {TOKEN}", "Bearer", ""]
)
def test_only_a_bearer_token_counts(tmp_path, header):
    with (
        serving(tmp_path, tokens={"t": token_of()}) as address,
        grpc.insecure_channel(address) as channel,
    ):
        stub = curation_pb2_grpc.CurationServiceStub(channel)
        good = ("authorization", f"bearer {TOKEN}")
        assert stub.ListSessions(pb.ListSessionsRequest(), metadata=(good,)).names
        for metadata in ((("authorization", header),), (good, good)):
            with pytest.raises(grpc.RpcError) as caught:
                stub.ListSessions(pb.ListSessionsRequest(), metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def consume(answer):
    return answer if hasattr(answer, "__iter__") else [answer]


def test_every_call_asks_for_a_token_first(tmp_path):

    with (
        serving(tmp_path, tokens={"t": token_of()}) as address,
        grpc.insecure_channel(address) as channel,
    ):
        stub = curation_pb2_grpc.CurationServiceStub(channel)
        service = pb.DESCRIPTOR.services_by_name["CurationService"]
        for method in service.methods:
            request = getattr(pb, method.input_type.name)()
            call = getattr(stub, method.name)
            asked = iter([request]) if method.client_streaming else request
            with pytest.raises(grpc.RpcError) as caught:
                list(consume(call(asked)))
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED, method.name


def test_what_each_call_needs_is_written_down():
    """Else it would need ``administer``, and nobody would notice why."""
    calls = pb.DESCRIPTOR.services_by_name["CurationService"].methods_by_name

    assert set(calls) == set(_PERMISSIONS)


def test_health_needs_no_token(ca, tmp_path):
    tls = tls_of(ca, tmp_path)
    trusted = grpc.ssl_channel_credentials(ca.cert_pem.bytes())
    with (
        serving(tmp_path, tokens={"t": token_of()}, tls=tls) as address,
        grpc.secure_channel(address, trusted) as channel,
    ):
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest()
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


# What each permission lets through; a call that is let through may fail otherwise.
CALLS = {
    "list": ("read", lambda s: s.names()),
    "describe": ("read", lambda s: s.describe("uniform")),
    "resume": ("read", lambda s: s._transport.open("uniform", None)),
    "resume as specified": ("read", lambda s: s._transport.open("uniform", UNIFORM)),
    "stream": ("read", lambda s: first_batch(s)),
    "report": ("report", lambda s: s._transport.report("uniform", 0, 0, 1, IDS, None)),
    "select": ("report", lambda s: s._transport.select("wide", 0, IDS, {})),
    "skip": ("report", lambda s: s._transport.skip("uniform", 0, 1)),
    "fork": ("open", lambda s: s.fork("uniform", "forked", step=0)),
    "publish": ("publish", lambda s: s._transport.publish("wide", 0, 0, b"none")),
}
IDS = np.arange(8)


def first_batch(service):
    from curator.client._transport import StreamRequest

    request = StreamRequest(
        session="uniform",
        rank=0,
        world_size=1,
        from_step=0,
        columns=None,
        super_batches=False,
        credits=1,
    )
    stream = service._transport.stream(request)
    next(iter(stream))
    stream.close()


def is_denied(call, service):
    try:
        call(service)
    except PermissionDeniedError:
        return True
    except CuratorError:
        return False
    return False


@pytest.mark.parametrize("given", PERMISSIONS)
def test_a_token_allows_what_it_says_and_nothing_else(tmp_path, given):
    tokens = {"t": token_of(allow=[given])}

    with (
        serving(tmp_path, tokens=tokens) as address,
        curator.connect(address, token=TOKEN) as service,
    ):
        denied = {name for name, (_, call) in CALLS.items() if is_denied(call, service)}

    needs = {name for name, (needed, _) in CALLS.items() if needed != given}
    assert denied == (set() if given == "administer" else needs)


def test_what_is_missing_is_said_with_the_name_of_the_token(tmp_path):
    tokens = {"reader": token_of(allow=["read", "report"])}

    with (
        serving(tmp_path, tokens=tokens) as address,
        curator.connect(address, token=TOKEN) as service,
        pytest.raises(PermissionDeniedError) as caught,
    ):
        service._transport.publish("wide", 0, 0, b"")

    message = str(caught.value)
    assert "token 'reader' has no permission to 'publish', only to read, re" in message
    assert "server.tokens.reader.allow" in message
    assert TOKEN not in message


def test_a_client_makes_a_session_only_with_the_permission(tmp_path):
    tokens = {
        "trainer": token_of(allow=["read"]),
        "owner": token_of("o" * 32, allow=["read", "open"]),
    }
    other = dataclasses.replace(UNIFORM, seed=99)

    with (
        serving(tmp_path, tokens=tokens) as address,
        curator.connect(address, token=TOKEN) as trainer,
        curator.connect(address, token="o" * 32) as owner,
    ):
        with pytest.raises(PermissionDeniedError, match="no permission to 'open'"):
            trainer.open("mine", UNIFORM)
        # Nor another one in the place of one that the configuration has.
        with pytest.raises(PermissionDeniedError, match="no permission to 'open'"):
            trainer.open("uniform", other)
        owner.open("mine", UNIFORM)
        trainer.open("mine", UNIFORM)  # as every rank of the run does
        trainer.open("uniform", UNIFORM)


def test_two_names_for_one_token_are_refused(tmp_path):
    tokens = {"a": token_of(), "b": token_of(allow=["read"])}

    with (
        pytest.raises(ConfigError, match=r"a and b are the same token"),
        serving(tmp_path, tokens=tokens),
    ):
        pass


# --- what is configured -------------------------------------------------------------


def test_tables_are_read_with_paths_relative_to_the_file(tmp_path):
    tables = {
        "tls": {"cert": "c.pem", "key": "/k.pem"},
        "tokens": {
            "a": {"file": "t", "allow": ["read"]},
            "b": {"sha256": "0" * 64, "allow": ["administer"]},
        },
    }

    spec = parse_config({"server": tables}, base=tmp_path).server

    assert spec.tls == TlsSpec(cert=f"{tmp_path}/c.pem", key="/k.pem")
    assert spec.tokens["a"].file == f"{tmp_path}/t"
    assert spec.tokens["b"].digest() == bytes(32)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"tls": {"cert": "c"}}, r"server.tls.key: missing"),
        ({"tls": {"crt": "c"}}, r"unknown key 'server.tls.crt' \(did you mean 'cert'"),
        ({"tls": "c.pem"}, r"server.tls: expected a table"),
        ({"tokens": {"a": {"alow": []}}}, r"unknown key 'server.tokens.a.alow'"),
        ({"tokens": {"a": {"sha256": "0" * 64}}}, r"tokens.a.allow: missing"),
        ({"tokens": {"a": {"allow": []}}}, r"tokens.a.allow: at least one of"),
        ({"tokens": {"a": {"allow": ["read"]}}}, r"tokens.a.sha256: either this"),
        ({"tokens": {"a": {"allow": ["fly"], "file": "t"}}}, r"a.allow: .*'read'"),
        (
            {"tokens": {"a": {"allow": ["read"], "file": "t", "sha256": "0" * 64}}},
            r"either this, the token's digest, or `file`",
        ),
        (
            {"tokens": {"a": {"allow": ["read"], "sha256": "hunter2"}}},
            r"expected 64 hexadecimal digits.*got 7 characters",
        ),
        ({"max_sessions": 0}, r"server.max_sessions: at least 1; got 0"),
        ({"max_streams_per_client": 0}, r"max_streams_per_client: at least 1; got 0"),
        ({"max_super_batch_size": -1}, r"max_super_batch_size: at least 1; got -1"),
        ({"max_session_bytes": 0}, r"max_session_bytes: at least 1; got 0"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tables, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config({"server": tables})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "short", "two words of a sentence", "ümläut" * 5])
def test_a_file_without_a_token_is_an_error(tmp_path, text):
    (tmp_path / "token").write_text(text)
    tokens = {"t": TokenSpec(file=str(tmp_path / "token"), allow=["read"])}

    with pytest.raises(ConfigError, match=r"token"), serving(tmp_path, tokens=tokens):
        pass


# --- where a server may listen ------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/curator.sock", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("box:1", False),
        ("localhost.example:1", False),
        ("127.0.0.1:1,0.0.0.0:2", False),
        ("ipv4:127.0.0.1:1", False),
        ("dns:///localhost:1", False),
    ],
)
def test_only_this_machine_is_local(address, local):
    assert is_local(address) == local


def test_other_machines_are_let_near_only_with_tls_and_tokens(ca, ca_file, tmp_path):
    tls, tokens = tls_of(ca, tmp_path), {"t": token_of()}
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, r"no \[server.tls\] and no \[server.tokens.NAME\]: .*--insecure"),
        ({"tls": tls}, r"0.0.0.0:0 .* no \[server.tokens.NAME\]: add"),
        ({"tokens": tokens}, r"0.0.0.0:0 .* no \[server.tls\]: add"),
    ]

    for server, message in cases:
        with (
            pytest.raises(ConfigError, match=message),
            serving(tmp_path, listen="0.0.0.0:0", **server),
        ):
            pass
    with serving(tmp_path, listen="0.0.0.0:0", tls=tls, tokens=tokens) as address:
        here = f"127.0.0.1:{address.rpartition(':')[2]}"
        assert names(here, tls=ca_file, token=TOKEN) == ["uniform", "wide"]
    with serving(tmp_path, listen="0.0.0.0:0", insecure=True) as address:
        assert names(f"127.0.0.1:{address.rpartition(':')[2]}") == ["uniform", "wide"]


def test_insecure_waives_the_rule_and_not_the_tokens(tmp_path):
    with (
        serving(
            tmp_path, listen="0.0.0.0:0", insecure=True, tokens={"t": token_of()}
        ) as address,
        pytest.raises(AuthenticationError, match="asks for a token"),
    ):
        names(f"127.0.0.1:{address.rpartition(':')[2]}")


# --- what a client may be given -----------------------------------------------------


def test_a_token_is_not_sent_to_another_machine_in_the_clear(monkeypatch):
    with pytest.raises(ConfigError, match=r"travel to box:1 unencrypted: connect with"):
        curator.connect("box:1", token=TOKEN)
    monkeypatch.setenv("CURATOR_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match=r"unset CURATOR_TOKEN"):
        curator.connect("box:1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tls": True, "cert": "c"}, r"needs both, or neither"),
        ({"cert": "c", "key": "k"}, r"cert: only with tls="),
        ({"tls": "/nowhere/ca.pem"}, r"tls: cannot read '/nowhere/ca.pem': No such"),
        ({"tls": __file__}, r"tls: .*test_security.py' is no PEM file"),
        ({"token": "new\nline"}, r"token: ASCII characters only"),
    ],
)
def test_a_wrong_call_is_an_error_before_anything_is_sent(arguments, message):
    with pytest.raises(ConfigError, match=message):
        curator.connect("127.0.0.1:1", **arguments)


def test_a_token_shows_in_no_representation():
    from curator.client._credentials import Credentials

    assert TOKEN not in repr(Credentials.of("localhost:1", token=TOKEN))


@pytest.mark.slow
def test_the_commands_do_all_of_it(ca, ca_file, tmp_path, capsys, monkeypatch):
    issue(ca, tmp_path)
    cert, key = issue(ca, tmp_path, "client")
    (tmp_path / "token").write_text(TOKEN)
    config = tmp_path / "server.toml"
    config.write_text(
        """
        [server]
        listen = "0.0.0.0:0"
        state_dir = "state"
        [server.tls]
        cert = "server.pem"
        key = "server.key"
        client_ca = "ca.pem"
        [server.tokens.trainer]
        file = "token"
        allow = ["read"]
        [pools.ids]
        format = "virtual"
        num_examples = 10
        [sessions.s]
        pool = "ids"
        batch_size = 2
        """
    )
    command = [sys.executable, "-m", "curator.cli.__main__", "serve", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        banner = process.stdout.readline()
        while "for batch in" not in banner.splitlines()[-1]:
            banner += process.stdout.readline()
        address = f"127.0.0.1:{banner.splitlines()[0].rpartition(':')[2]}"
        monkeypatch.setenv("CURATOR_TOKEN", TOKEN)
        options = ["--ca", str(ca_file), "--cert", cert, "--key", key]
        status = main(["sessions", address, *options])
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)

    assert (status, process.returncode) == (0, 0)
    assert "s: not open" in capsys.readouterr().out
    assert "access   TLS, client certificates, tokens of trainer" in banner
    assert "tls='CA.pem', cert='CLIENT.pem', key='CLIENT.key', token='TO" in banner
    assert TOKEN not in banner


@pytest.mark.slow
def test_serve_refuses_other_machines_in_one_line(tmp_path, capsys):
    config = tmp_path / "server.toml"
    config.write_text('[server]\nlisten = "0.0.0.0:0"\n')
    command = [sys.executable, "-m", "curator.cli.__main__", "serve", str(config)]

    process = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1
    assert "--insecure" in process.stderr


# --- limits -------------------------------------------------------------------------


def test_sessions_over_the_limit_are_refused(tmp_path):
    with (
        serving(tmp_path, max_sessions=1) as address,
        curator.connect(address) as service,
    ):
        with pytest.raises(UnknownSessionError, match="no session 'none'"):
            service.open("none")  # which takes no place
        service.open("uniform")
        with pytest.raises(LimitError, match=r"'x': 1 are open.*raise server.max_sess"):
            service.open("x", UNIFORM)
        with pytest.raises(LimitError, match=r"1 are open"):
            service.describe("wide")
        train(service.open("uniform"), 2)  # those that are open go on


def test_streams_over_the_limit_are_refused_per_client(tmp_path):
    tokens = {"a": token_of(allow=["read"]), "b": token_of("b" * 32, allow=["read"])}

    with (
        serving(tmp_path, max_streams_per_client=1, tokens=tokens) as address,
        curator.connect(address, token=TOKEN) as one,
        curator.connect(address, token="b" * 32) as other,
    ):
        batches = iter(one.open("uniform").batches())
        next(batches)
        with pytest.raises(LimitError, match=r"token 'a' has 1 streams open.*max_str"):
            next(iter(one.open("uniform").batches()))
        next(iter(other.open("uniform").batches()))


def test_a_stream_that_ends_makes_room(tmp_path):
    short = dataclasses.replace(UNIFORM, num_steps=1)

    with (
        serving(tmp_path, max_streams_per_client=1) as address,
        curator.connect(address) as service,
    ):
        for _ in range(5):
            assert len(list(service.open("short", short).batches())) == 1


def test_without_tokens_a_client_is_a_machine(tmp_path):
    with (
        serving(tmp_path, max_streams_per_client=1) as address,
        curator.connect(address) as one,
        curator.connect(address) as other,
    ):
        batches = iter(one.open("uniform").batches())
        next(batches)
        with pytest.raises(LimitError, match=r"client ipv4:127.0.0.1 has 1 streams"):
            next(iter(other.open("uniform").batches()))


def test_a_super_batch_over_the_limit_is_refused_from_a_client(tmp_path):
    with (
        serving(tmp_path, max_super_batch_size=16) as address,
        curator.connect(address) as service,
    ):
        large = dataclasses.replace(UNIFORM, super_batch_size=17)
        with pytest.raises(LimitError, match=r"17 is over the limit of 16: raise serv"):
            service.open("large", large)
        service.open("wide")  # 24, as the configuration wants it
        request = pb.OpenSessionRequest(
            name="large", protocol_version=1, spec=wire.spec_to_proto(large)
        )
        with pytest.raises(grpc.RpcError) as caught:
            service._transport._stub.OpenSession(request)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


# --- what a client cannot name, and cannot send -------------------------------------

PATHS = ["/etc/passwd", "../state", "file:///etc/passwd", "s3://bucket/x", "os:system"]


@pytest.mark.parametrize("path", PATHS)
def test_a_specification_names_no_path_module_or_url(tmp_path, path):
    before = dataclasses.replace(JOINT)
    with serving(tmp_path) as address, curator.connect(address) as service:
        for key in ("pool", "learner", "reference"):
            spec = dataclasses.replace(before, **{key: path})
            with pytest.raises(ConfigError, match=rf"{key}: no (pool|model) '"):
                service.open("x", spec)
        with pytest.raises(ConfigError, match="a session's name is"):
            service.open(path, UNIFORM)
        with pytest.raises(ConfigError, match="has no '"):
            service.open("x", dataclasses.replace(UNIFORM, columns=[path]))
        assert service.names() == ["uniform", "wide"]
    assert not (tmp_path / "state" / "sessions").exists()


@pytest.mark.parametrize("kind", ["policy", "sampler"])
@pytest.mark.parametrize("key", ["path", "file", "factory", "module", "url", "weights"])
def test_no_policy_and_no_sampler_takes_a_path(tmp_path, kind, key):
    known = POLICIES if kind == "policy" else SAMPLERS
    with serving(tmp_path) as address, grpc.insecure_channel(address) as channel:
        stub = curation_pb2_grpc.CurationServiceStub(channel)
        for name in known:
            component = pb.Component(name=name)
            component.fields.update({key: "/etc/passwd"})
            spec = pb.SessionSpec(pool="pairs", batch_size=4)
            getattr(spec, kind).CopyFrom(component)
            # The weights of policies are one of two words.
            with pytest.raises(
                grpc.RpcError, match=r"unknown key|expected '"
            ) as caught:
                stub.OpenSession(pb.OpenSessionRequest(name="x", spec=spec))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_name_is_no_import(tmp_path):
    with serving(tmp_path) as address, grpc.insecure_channel(address) as channel:
        stub = curation_pb2_grpc.CurationServiceStub(channel)
        component = pb.Component(name="os:system")
        spec = pb.SessionSpec(pool="pairs", batch_size=4, policy=component)
        with pytest.raises(grpc.RpcError, match="unknown policy 'os:system'"):
            stub.OpenSession(pb.OpenSessionRequest(name="x", spec=spec))


def stream_of(rows, **options):
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_batch(rows)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "column",
    [
        pa.nulls(10),  # any number of rows, in no bytes
        pa.array([[]] * 10, pa.list_(pa.float32(), 0)),  # likewise
        pa.RunEndEncodedArray.from_arrays([10], [1.0]),
        pa.array(["text"]),
        pa.array(["text"], pa.string_view()),
        pa.array(["text"]).dictionary_encode(),
        pa.array([[1.0]]),
    ],
    ids=lambda column: str(column.type),
)
def test_features_of_varying_width_are_refused(column):
    data = stream_of(pa.record_batch({"learner.loss": column}))

    with pytest.raises(FeatureError, match="not of fixed width"):
        wire.rows_from_bytes(data, trusted=False)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_features_are_refused_before_they_are_unpacked(codec):
    rows = pa.record_batch({"learner.loss": np.zeros(1 << 20, np.float32)})
    data = stream_of(rows, compression=codec)
    assert len(data) < rows.nbytes / 100

    with pytest.raises(FeatureError, match="the rows are compressed"):
        wire.rows_from_bytes(data, trusted=False)


def test_features_of_one_name_are_refused():
    rows = pa.RecordBatch.from_arrays([pa.array([1.0])] * 2, ["learner.loss"] * 2)

    with pytest.raises(FeatureError, match="two columns of the same name"):
        wire.rows_from_bytes(stream_of(rows), trusted=False)


def test_bytes_that_were_tampered_with_are_an_error_and_no_more():
    # PyArrow's own reading of a schema ends the process where a message is of
    # another kind than its caller thinks: see rows_from_bytes.
    floats = pa.array(np.zeros(8, np.float32))
    columns = {"learner.loss": floats.slice(4), "b": pa.array([1, None, 2, 3])}
    columns["c"] = pa.FixedSizeListArray.from_arrays(floats, 2)
    good = np.frombuffer(stream_of(pa.record_batch(columns)), np.uint8)
    rng = np.random.default_rng(0)
    outcomes = {"error": 0, "rows": 0}
    for _ in range(5000):
        data = good.copy()
        where = rng.integers(0, len(data), rng.integers(1, 6))
        data[where] = rng.integers(0, 256, len(where))
        try:
            rows = wire.rows_from_bytes(data.tobytes(), trusted=False)
            wire.features_from_wire(rows, pb.SelectStart())
            outcomes["rows"] += 1
        except FeatureError:
            outcomes["error"] += 1

    assert outcomes["error"] > 1000


def test_tampered_features_are_the_clients_mistake(tmp_path):
    start = pb.SelectStart(session="uniform", step=0)
    with serving(tmp_path) as address, grpc.insecure_channel(address) as channel:
        stub = curation_pb2_grpc.CurationServiceStub(channel)
        requests = [
            pb.SelectBatchRequest(start=start),
            pb.SelectBatchRequest(chunk=b"\xff\xff\xff\xff\x00\x00\x00\x10"),
        ]
        with pytest.raises(grpc.RpcError, match="no valid Arrow") as caught:
            stub.SelectBatch(iter(requests))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
