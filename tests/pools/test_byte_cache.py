import threading

import pytest

from curator.pools._byte_cache import ByteCache


class Loads:
    """A loader of values that are their keys, ten bytes each, that keeps count."""

    def __init__(self):
        self.calls = []

    def __call__(self, keys):
        self.calls.append(list(keys))
        return [(key, 10) for key in keys]


def test_what_is_kept_is_not_loaded_again():
    cache, load = ByteCache(100), Loads()

    assert cache.get(["a", "b"], load) == ["a", "b"]
    assert cache.get(["c", "b", "a"], load) == ["c", "b", "a"]
    assert load.calls == [["a", "b"], ["c"]]


def test_what_was_used_last_is_kept():
    cache, load = ByteCache(30), Loads()
    cache.get(["a"], load)
    cache.get(["b", "c"], load)
    cache.get(["a"], load)
    cache.get(["d"], load)  # for which b has to go

    cache.get(["a", "c", "d"], load)
    cache.get(["b"], load)

    assert load.calls == [["a"], ["b", "c"], ["d"], ["b"]]


def test_more_than_fits_is_returned_and_not_kept():
    cache, load = ByteCache(5), Loads()

    assert cache.get(["a"], load) == ["a"]
    assert cache.get(["a"], load) == ["a"]
    assert load.calls == [["a"], ["a"]]


def test_two_threads_that_want_the_same_load_it_once():
    cache, load = ByteCache(100), Loads()
    loading, release = threading.Event(), threading.Event()

    def slow(keys):
        loading.set()
        release.wait()
        return load(keys)

    got = []
    first = threading.Thread(target=lambda: got.append(cache.get(["a", "b"], slow)))
    first.start()
    loading.wait()
    second = threading.Thread(target=lambda: got.append(cache.get(["b", "c"], load)))
    second.start()
    while load.calls != [["c"]]:  # the second has loaded its own, and waits for b
        second.join(0.001)
    release.set()
    first.join()
    second.join()

    assert sorted(got) == [["a", "b"], ["b", "c"]]
    assert load.calls == [["c"], ["a", "b"]]


def test_failure_is_raised_by_everybody_who_waits_and_then_forgotten():
    cache, load = ByteCache(100), Loads()
    loading, release = threading.Event(), threading.Event()
    caught = []

    def failing(keys):
        loading.set()
        release.wait()
        msg = "unreadable"
        raise ValueError(msg)

    def get(load):
        try:
            cache.get(["a"], load)
        except ValueError as exc:
            caught.append(str(exc))

    first = threading.Thread(target=get, args=[failing])
    first.start()
    loading.wait()
    waiter = threading.Thread(target=get, args=[load])
    waiter.start()
    release.set()
    first.join()
    waiter.join()

    # The waiter either waited for the failure, or came late and loaded it itself.
    assert caught in (["unreadable"], ["unreadable"] * 2)
    assert cache.get(["a"], load) == ["a"]


def test_failure_reaches_the_caller():
    def failing(keys):
        msg = "unreadable"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="unreadable"):
        ByteCache(100).get(["a"], failing)
