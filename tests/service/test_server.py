"""The server on the wire: protocol, limits, health, and its own death."""

import concurrent.futures
import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
import towers
import worlds
from grpc_health.v1 import health_pb2, health_pb2_grpc
from worlds import JOINT, UNIFORM, served, train

import curator
from curator.client import _readiness
from curator.engine import Registry
from curator.errors import (
    LimitError,
    ProtocolError,
    ServiceError,
    SessionMismatchError,
    StorageError,
    UnavailableError,
    UnknownSessionError,
)
from curator.rpc.v1 import curation_pb2 as pb
from curator.rpc.v1 import curation_pb2_grpc
from curator.service import Server

TESTS = Path(__file__).parents[1]
TGKILL = 131 if os.uname().machine == "aarch64" else 234  # the system call's number


@pytest.fixture
def raw(tmp_path):
    """Yields a stub and a service with the sessions ``uniform`` and ``joint``."""
    config = worlds.config(tmp_path, uniform=UNIFORM, joint=JOINT)
    with (
        served(config) as service,
        grpc.insecure_channel(service._transport._target) as channel,
    ):
        yield curation_pb2_grpc.CurationServiceStub(channel), service


def test_a_newer_client_is_told_what_to_do(raw):
    stub, _ = raw
    request = pb.OpenSessionRequest(protocol_version=2, name="uniform")

    with pytest.raises(grpc.RpcError) as caught:
        stub.OpenSession(request)

    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "client speaks protocol 2, this server 1: upgrade" in str(
        caught.value.details()
    )
    assert ("curator-error", "ProtocolError") in caught.value.trailing_metadata()


def test_a_server_sends_no_more_than_it_has_credit_for(raw):
    stub, _ = raw
    import queue

    requests = queue.SimpleQueue()
    start = pb.StreamStart(session="uniform", world_size=1, credits=2)
    requests.put(pb.StreamBatchesRequest(start=start))
    stream = stub.StreamBatches(iter(requests.get, None))
    steps = []
    while len(steps) < 2:  # they may come together, and need not
        steps += [part.header.step for part in next(stream).parts]
    requests.put(None)  # hangs up with no credit left: nothing more may come

    assert steps == [0, 1]
    assert [m for m in stream if m.parts] == []


def test_a_stream_must_start_with_start(raw):
    stub, _ = raw

    for call in (stub.StreamBatches, stub.PublishSnapshot, stub.SelectBatch):
        with pytest.raises(grpc.RpcError) as caught:
            list(consume(call(iter([]))))
        assert "the first message of" in str(caught.value.details())


def consume(answer):
    return answer if hasattr(answer, "__iter__") else [answer]


def test_an_upload_of_another_size_is_refused(raw):
    stub, service = raw
    service.open("joint")
    start = pb.PublishStart(session="joint", num_bytes=3)

    for data, message in (
        (b"12", "announced .* 3 bytes, received 2"),
        (b"1234", "more"),
    ):
        with pytest.raises(grpc.RpcError, match=message):
            stub.PublishSnapshot(
                iter(
                    [
                        pb.PublishSnapshotRequest(start=start),
                        pb.PublishSnapshotRequest(chunk=data),
                    ]
                )
            )


def test_a_snapshot_over_the_limit_is_refused_before_it_is_read(tmp_path):
    config = worlds.config(tmp_path, server={"max_snapshot_bytes": 100}, s=JOINT)

    with served(config) as service:
        session = service.open("s")
        with pytest.raises(LimitError, match=r"limit of 100: raise server.max_snapsho"):
            session.publish(towers.build())


def test_a_message_over_the_limit_is_an_error_of_ours(tmp_path):
    server = {"max_message_bytes": 4 << 20}
    config = worlds.config(tmp_path, server=server, s=UNIFORM)

    with served(config) as service:
        session = service.open("s")
        ids = np.zeros(600_000, np.int64)
        with pytest.raises(LimitError, match=r"over the limit .*max_message_bytes"):
            session._transport.report("s", 0, 0, 1, ids, None)
        train(session, 1)  # nothing is lost


def test_health_is_served(raw):
    _, service = raw
    with grpc.insecure_channel(service._transport._target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "curator.rpc.v1.CurationService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_something_else_on_the_port_is_no_curator_server():
    from concurrent import futures

    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with (
            curator.connect(f"127.0.0.1:{port}") as service,
            pytest.raises(ProtocolError, match=r"does not know this call"),
        ):
            service.names()
    finally:
        server.stop(0)


def test_a_call_that_something_between_cancels_is_made_again():
    from concurrent import futures

    answers = iter([grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE])

    def list_sessions(request, context):
        code = next(answers, None)
        if code is not None:
            context.abort(code, "as a proxy does")
        return pb.ListSessionsResponse(names=["s"])

    handler = grpc.method_handlers_generic_handler(
        "curator.rpc.v1.CurationService",
        {
            "ListSessions": grpc.unary_unary_rpc_method_handler(
                list_sessions,
                pb.ListSessionsRequest.FromString,
                pb.ListSessionsResponse.SerializeToString,
            )
        },
    )
    server = grpc.server(futures.ThreadPoolExecutor(1), [handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with curator.connect(f"127.0.0.1:{port}") as service:
            assert service.names() == ["s"]
    finally:
        server.stop(0)


def test_nobody_there_is_told_after_the_timeout():
    with socket.socket() as held:  # bound and not listening: connections are refused
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=rf"no curator server at {address}"):
            curator.connect(address, timeout=0.2)


def test_a_port_in_use_is_told(tmp_path):
    with served(worlds.config(tmp_path / "a", s=UNIFORM)) as service:
        address = service._transport._target
        config = worlds.config(tmp_path / "b", s=UNIFORM)
        registry = Registry(config)
        with pytest.raises(ServiceError, match=rf"cannot listen on {address}: the po"):
            Server(registry, address)
        registry.close()


def test_a_state_directory_has_one_owner(tmp_path):
    config = worlds.config(tmp_path, s=UNIFORM)

    with (
        served(config),
        pytest.raises(StorageError, match=r"in use by another cur"),
    ):
        curator.local(config)
    curator.local(config).close()


# --- real processes -----------------------------------------------------------------


class Process:
    """``curator serve`` as its own process."""

    def __init__(self, folder, listen="127.0.0.1:0"):
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "curator.cli.__main__",
                "serve",
                str(folder / "server.toml"),
                "--listen",
                listen,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.first_line = self.process.stdout.readline()
        self.banner = self.first_line
        while line := self.process.stdout.readline():
            self.banner += line
            if "for batch in" in line:
                break
        self.address = (self.first_line.split() or [""])[-1]

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def stop(self, signal_number=signal.SIGTERM):
        self.process.send_signal(signal_number)
        return self.process.communicate(timeout=60.0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()


@pytest.fixture
def folder(tmp_path):
    """A folder with a pool on disk and a configuration that serves it."""
    from curator.models import write_weights

    table = worlds.pairs()
    import pyarrow.parquet as pq

    pq.write_table(table, tmp_path / "pairs.parquet", row_group_size=64)
    write_weights(tmp_path / "learner.safetensors", towers.build(seed=5))
    (tmp_path / "server.toml").write_text(
        f"""
        [server]
        state_dir = "state"
        python_path = [{str(TESTS)!r}]

        [pools.pairs]
        format = "parquet"
        path = "pairs.parquet"

        [models.learner]
        factory = "towers:build"
        weights = "learner.safetensors"
        columns = ["image", "text", "number"]

        [models.reference]
        factory = "towers:build"
        args = {{ seed = 7 }}
        columns = ["image", "text", "number"]

        [sessions.s]
        pool = "pairs"
        batch_size = 8
        super_batch_size = 24
        policy = {{ name = "joint", num_chunks = 4 }}
        learner = "learner"
        reference = "reference"
        max_ahead = 1
        seed = 3
        """
    )
    return tmp_path


def test_a_socket_whose_folder_is_not_there_is_told(tmp_path):
    listen = f"unix:{tmp_path / 'nowhere' / 'socket'}"
    config = worlds.config(tmp_path / "s", s=UNIFORM, server={"listen": listen})
    registry = Registry(config)
    with pytest.raises(ServiceError, match=r"nowhere/socket: its folder is not there"):
        Server(registry)
    registry.close()


def test_a_socket_that_a_server_has_is_not_taken_from_it(tmp_path):
    listen = f"unix:{tmp_path / 'socket'}"
    registries = [
        Registry(worlds.config(tmp_path / name, s=UNIFORM, server={"listen": listen}))
        for name in "ab"
    ]
    first = Server(registries[0])
    try:
        with pytest.raises(
            ServiceError, match=r"cannot listen on unix:.*another server"
        ):
            Server(registries[1])
        with curator.connect(listen) as service:
            assert service.names() == ["s"]
    finally:
        first.stop(grace_seconds=0.0)

    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(tmp_path / "socket"))
    assert (tmp_path / "socket").exists()
    second = Server(registries[1])
    try:
        with curator.connect(listen) as service:
            assert service.names() == ["s"]
    finally:
        second.stop(grace_seconds=0.0)
        for registry in registries:
            registry.close()


@pytest.mark.slow
def test_a_signal_that_a_thread_of_blas_gets_stops_it_cleanly(folder, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")  # one of them beside the main one
    with Process(folder) as server:
        pid = server.process.pid
        unblocked = [
            int(task.name)
            for task in Path(f"/proc/{pid}/task").iterdir()
            if int(task.name) != pid and not blocked(task) >> (signal.SIGTERM - 1) & 1
        ]
        assert len(unblocked) == 2  # the younger one is that which waits for signals
        thread = min(unblocked)
        assert ctypes.CDLL(None).syscall(TGKILL, pid, thread, signal.SIGTERM) == 0
        out, err = server.process.communicate(timeout=60.0)

    assert server.process.returncode == 0, err
    assert out.rstrip().endswith("stopped")


@pytest.mark.slow
def test_a_second_signal_ends_a_stop_that_hangs(folder):
    """As where a file system does not answer: closing it waits for a thread."""
    (folder / "hanging.py").write_text(
        "import threading\n"
        "from curator.engine import Registry\n"
        "Registry.close = lambda self: print('hangs', flush=True) or "
        "threading.Event().wait()\n"
    )
    text = (folder / "server.toml").read_text()
    added = 'extensions = ["hanging"]\npython_path = [".", '
    (folder / "server.toml").write_text(text.replace("python_path = [", added))
    with Process(folder) as server:
        server.process.terminate()
        while server.process.stdout.readline() != "hangs\n":
            pass
        while server.process.poll() is None:  # one that comes at once is the same one
            server.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(0.5)
        _, err = server.process.communicate()

    assert server.process.returncode == 128 + signal.SIGTERM
    assert err.rstrip().endswith("ended at once; what was reported is kept")


@pytest.mark.slow
def test_what_a_cut_file_ends_says_where_it_was(folder):
    with Process(folder) as server:
        server.process.send_signal(signal.SIGBUS)
        _, err = server.process.communicate(timeout=60.0)

    assert server.process.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in err
    assert "curator/cli/serve.py" in err


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start_that_takes_long(folder, stop):
    (folder / "slow.py").write_text(
        "import threading\nprint('starting', flush=True)\nthreading.Event().wait()"
    )
    config = folder / "server.toml"
    (folder / "slow.toml").write_text(
        config.read_text().replace(
            "python_path = [", 'extensions = ["slow"]\npython_path = [".", ', 1
        )
    )
    command = [sys.executable, "-m", "curator.cli.__main__", "serve", "slow.toml"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "starting\n"
        process.send_signal(stop)
        _, err = process.communicate(timeout=60.0)

    assert process.returncode == 0, err
    assert err == "stopped before anything was served\n"


def blocked(task):
    """Returns the signals that a thread blocks, a bit each."""
    (mask,) = re.findall(r"SigBlk:\s(\w+)", (task / "status").read_text())
    return int(mask, 16)


@pytest.mark.slow
def test_serve_says_what_it_serves_and_stops_cleanly(folder):
    with Process(folder) as server:
        assert server.first_line.startswith("curator is listening on 127.0.0.1:")
        with curator.connect(server.address) as service:
            train(service.open("s"), 2, model=None, losses=True)
        out, err = server.stop()

    assert server.process.returncode == 0, err
    assert "pairs: 200 examples (image, text, number, caption), p" in server.banner
    assert "session  s: 8 of 24 by Joint(" in server.banner
    assert "), drawn by Uniform()\n" in server.banner
    assert f"curator.connect('{server.address}')" in server.banner
    assert out.rstrip().endswith("stopped")
    assert "Traceback" not in err


@pytest.mark.slow
def test_serve_says_which_session_is_another_one_than_before_and_serves_the_rest(
    folder,
):
    config = folder / "server.toml"
    text = config.read_text().split("[sessions.s]")[0]
    text += '[sessions.c]\npool = "pairs"\nbatch_size = 1000\n'
    sessions = (
        text
        + "".join(
            f'[sessions.{name}]\npool = "pairs"\nseed = 3\nbatch_size = {size}\n'
            for name, size in (("a", size), ("b", 8), ("empty", 8))
        )
        for size in (8, 16)
    )
    config.write_text(next(sessions))
    with Process(folder) as server:
        with curator.connect(server.address) as service:
            for name in ("a", "b"):
                train(service.open(name), 1)
        server.stop()

    config.write_text(next(sessions))
    empty = folder / "state" / "sessions" / "empty"
    empty.mkdir()
    (empty / "ledger.sqlite").touch()  # as a full disk leaves it
    with Process(folder) as server:
        with curator.connect(server.address) as service:
            train(service.open("b"), 1)
            with pytest.raises(SessionMismatchError):
                service.open("a")
        _, err = server.stop()

    warned = [line for line in err.splitlines() if "cannot be opened" in line]
    assert len(warned) == 2
    assert "session 'c' cannot be opened" in warned[0]
    assert "super_batch_size: at most the 200 examples" in warned[0]
    assert "session 'a' cannot be opened" in warned[1]
    assert "batch_size: was 8, now 16" in warned[1]


@pytest.mark.slow
def test_a_killed_server_that_comes_back_continues_the_stream(folder):
    """The client rides it out: same object, same iterator, same batches."""
    with Process(folder) as server:
        with curator.connect(server.address, retry_seconds=60.0) as service:
            session = service.open("s")
            model = towers.build(seed=5)
            batches = []
            stream = session.batches()
            for step in range(8):
                if step in (2, 5):
                    server.kill()
                    server = Process(folder, server.address)
                batch = next(stream)
                batches.append(batch)
                worlds.nudge(model, batch.step)
                session.publish(model)
                session.report(batch, loss=np.zeros(8))
        server.kill()

    for file in (folder / "state" / "sessions").rglob("*"):
        if file.is_file():
            file.unlink()
    with Process(folder) as server, curator.connect(server.address) as service:
        whole = train(service.open("s"), 8, model=towers.build(seed=5))
    worlds.assert_same_batches(batches, whole)


@pytest.mark.slow
def test_a_server_that_stays_away_is_an_error_of_ours(folder):
    with (
        Process(folder) as server,
        curator.connect(server.address, retry_seconds=0.2) as service,
    ):
        session = service.open("s")
        batch = next(session.batches())
        server.kill()
        with pytest.raises(UnavailableError, match=r"cannot reach the curator server"):
            session.report(batch)


def fill(path):
    """Writes a file until its disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode()}")
    try:
        config = worlds.config(disk / "state", s=JOINT)
        with served(config) as service:
            session = service.open("s")
            session.publish(towers.build(seed=5))
            filler = disk / "filler"
            fill(filler)
            with pytest.raises(StorageError, match=r"no space left"):
                train(session, 50, model=towers.build(seed=5))
            filler.unlink()
            after = train(session, 3)
        with served(worlds.config(tmp_path / "whole", s=JOINT)) as service:
            session = service.open("s")
            session.publish(towers.build(seed=5))
            whole = train(session, after[0].step + 3)
        assert after[0].step < 50
        if after[0].step == 0:
            worlds.assert_same_batches(after, whole)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_an_unknown_session_keeps_its_class_over_the_wire(tmp_path):
    with served(worlds.config(tmp_path)) as service, pytest.raises(UnknownSessionError):
        service.open("nothing")


@pytest.fixture
def opening(folder):
    """``curator serve`` that is opening its pool; yields how to let it go on, too."""
    gate = folder / "gate"
    os.mkfifo(gate)
    (folder / "waiting.py").write_text(
        "from curator.engine import _registry\n"
        "opened = _registry.open_pool\n"
        "def waiting(*arguments, **named):\n"
        f"    open({str(gate)!r}, 'rb', 0).read(1)\n"
        "    return opened(*arguments, **named)\n"
        "_registry.open_pool = waiting\n"
    )
    address = f"unix:{folder / 'socket'}"
    text = (folder / "server.toml").read_text()
    added = f'extensions = ["waiting"]\nlisten = "{address}"\n'
    text = text.replace("python_path = [", f'{added}python_path = [".", ')
    (folder / "server.toml").write_text(text)
    command = [sys.executable, "-m", "curator.cli.__main__", "serve", "server.toml"]
    with (
        gate.open("r+b", 0) as written,
        subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process,
        grpc.insecure_channel(address) as channel,
    ):
        try:
            grpc.channel_ready_future(channel).result(60)
            yield process, channel, lambda: written.write(b"x")
        finally:
            process.kill()


@pytest.mark.slow
def test_a_server_that_opens_its_pools_says_so(opening, folder):
    process, channel, go_on = opening
    health = health_pb2_grpc.HealthStub(channel)
    answer = health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    stub = curation_pb2_grpc.CurationServiceStub(channel)
    with pytest.raises(grpc.RpcError, match=r"is opening its pools") as caught:
        stub.ListSessions(pb.ListSessionsRequest())
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    address = f"unix:{folder / 'socket'}"
    with pytest.raises(UnavailableError, match=r"is not ready after 0.2 s, as while"):
        curator.connect(address, timeout=0.2)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(curator.connect, address, timeout=60.0)
        go_on()
        with waiting.result() as service:
            assert service.names() == ["s"]
    process.terminate()
    assert process.stdout.read().rstrip().endswith(b"stopped")


def test_a_server_that_goes_while_it_is_waited_for_is_waited_for_again(
    tmp_path, monkeypatch
):
    is_waited_for = threading.Event()
    watch = _readiness._code_of_watch

    def watching(*arguments):
        is_waited_for.set()
        return watch(*arguments)

    monkeypatch.setattr(_readiness, "_code_of_watch", watching)
    address = f"unix:{tmp_path / 'socket'}"
    config = worlds.config(tmp_path, server={"listen": address}, s=UNIFORM)
    with (
        contextlib.closing(Registry(config)) as registry,
        concurrent.futures.ThreadPoolExecutor(1) as thread,
    ):
        first = Server(registry, ready=False)
        waiting = thread.submit(curator.connect, address, timeout=60.0)
        assert is_waited_for.wait(60)
        first.stop(0.0)
        second = Server(registry)
        with waiting.result() as service:
            assert service.names() == ["s"]
        second.stop(0.0)


@pytest.mark.slow
def test_an_address_in_use_is_told_before_pools_are_read(opening, folder):
    text = (folder / "server.toml").read_text()
    (folder / "other.toml").write_text(text.replace('"state"', '"other"'))

    command = [sys.executable, "-m", "curator.cli.__main__", "serve", "other.toml"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    assert "cannot listen on unix:" in done.stderr
    assert "another server does" in done.stderr
