"""What ``curator serve`` does to its process before it serves."""

import os
import platform
import subprocess
import sys

import pytest

COUNT_HEAPS = """
import ctypes, os, threading
from curator.cli.serve import _limit_arenas

_limit_arenas()
barrier = threading.Barrier(16)

def allocate():
    libc.malloc(5000)
    barrier.wait()

libc = ctypes.CDLL(None)
threads = [threading.Thread(target=allocate) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fdopen.restype = ctypes.c_void_p
stdout = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stdout)
libc.fflush(stdout)
"""


def num_heaps(**environment):
    own = {k: v for k, v in os.environ.items() if k != "MALLOC_ARENA_MAX"}
    done = subprocess.run(
        [sys.executable, "-c", COUNT_HEAPS],
        env={**own, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps are glibc's")
def test_threads_of_a_server_share_two_heaps_unless_the_environment_says_how_many():
    assert 1 <= num_heaps() <= 2
    assert num_heaps(MALLOC_ARENA_MAX="5") == 5
