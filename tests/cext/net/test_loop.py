"""The loop: signals, periodic callbacks, and asyncio as its guest."""

import asyncio
import contextlib
import os
import signal
import threading
import time

import pytest
from cext.net.guest import AsyncGuest, Watchdog
from cext.net.loop import Loop
from cext.net.readable import Readable


@pytest.fixture
def loop():
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def guest(loop):
    made = AsyncGuest(loop)
    yield made
    made.close()


def run_until(loop, done, seconds=5.0):
    """Runs the loop until done() or the time is up."""
    end = time.monotonic() + seconds
    watch = loop.every(5, lambda: loop.stop() if done() or time.monotonic() > end else None)
    loop.run()
    watch.cancel()
    assert done()


def test_periodic_callback_repeats_until_cancelled(loop):
    calls = []
    p = loop.every(10, lambda: calls.append(time.monotonic()))
    run_until(loop, lambda: len(calls) >= 5)
    p.cancel()
    p.cancel()
    n = len(calls)
    end = time.monotonic() + 0.1
    run_until(loop, lambda: time.monotonic() > end)
    assert len(calls) == n


def test_a_callback_that_raises_does_not_end_the_loop(loop, monkeypatch):
    reported = []
    monkeypatch.setattr("sys.unraisablehook", lambda info: reported.append(info.exc_value))
    calls = []

    def bad():
        calls.append(1)
        raise ValueError("boom")

    p = loop.every(5, bad)
    run_until(loop, lambda: len(calls) >= 3)
    p.cancel()
    assert all(isinstance(e, ValueError) for e in reported)


def test_a_signal_handler_runs_while_the_loop_sleeps(loop):
    got = []
    before = signal.signal(signal.SIGUSR2, lambda *_: (got.append(1), loop.stop()))
    try:
        killer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR2))
        killer.start()
        started = time.monotonic()
        loop.run()
        assert got
        assert time.monotonic() - started < 3
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_an_exception_of_a_signal_handler_leaves_through_run(loop):
    def handler(*_):
        raise SystemExit(3)

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR2)).start()
        with pytest.raises(SystemExit):
            loop.run()
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_call_soon_runs_without_delay(loop):
    seen = []
    loop.call_soon(lambda: (seen.append(1), loop.stop()))
    loop.run()
    assert seen == [1]


def test_guest_runs_sleeps_sockets_and_threads(loop, guest):
    results = []

    async def work():
        await asyncio.sleep(0.02)
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(sock=sockets[0])
        writer.write(b"ping")
        answer = await reader.readexactly(4)
        writer.close()
        return answer, await asyncio.to_thread(lambda: 41 + 1)

    import socket

    sockets = socket.socketpair()
    sockets[0].setblocking(False)
    peer = threading.Thread(target=lambda: (sockets[1].recv(4), sockets[1].sendall(b"pong")))
    peer.start()
    guest.run_coroutine(work(), lambda task: results.append(task.result()))
    run_until(loop, lambda: bool(results))
    peer.join()
    sockets[1].close()
    assert results == [(b"pong", 42)]


def test_guest_does_not_turn_when_it_has_nothing_to_do(loop, guest):
    done = []

    async def quick():
        return 1

    guest.run_coroutine(quick(), lambda t: done.append(t.result()))
    run_until(loop, lambda: bool(done))
    started = time.process_time()
    end = time.monotonic() + 0.3
    run_until(loop, lambda: time.monotonic() > end)
    assert time.process_time() - started < 0.1


def test_guest_task_that_raises_is_the_callers_to_see(loop, guest):
    seen = []

    async def bad():
        raise RuntimeError("no")

    guest.run_coroutine(bad(), lambda t: seen.append(t.exception()))
    run_until(loop, lambda: bool(seen))
    assert isinstance(seen[0], RuntimeError)


def test_a_descriptor_of_python_code(loop):
    read, write = os.pipe2(os.O_NONBLOCK)
    came = []
    watched = Readable(loop, read, lambda: came.append(os.read(read, 1)))
    os.write(write, b"ab")
    run_until(loop, lambda: len(came) == 2)  # level-triggered: told of again until nothing is left
    assert came == [b"a", b"b"]
    os.close(write)
    run_until(loop, lambda: came[-1] == b"")
    watched.close()
    watched.close()
    count = len(came)
    ticks = []
    p = loop.every(1, lambda: ticks.append(1))
    run_until(loop, lambda: len(ticks) > 3)
    p.cancel()
    assert len(came) == count
    os.close(read)
    with pytest.raises(OSError, match="cannot be watched"):
        Readable(loop, read, print)


def test_guest_runs_the_first_step_at_once(loop, guest):
    seen = []

    async def quick():
        seen.append(asyncio.current_task() is not None and asyncio.get_running_loop() is guest.aio)
        return 7

    async def waits():
        seen.append("begun")
        await asyncio.sleep(0.01)
        seen.append("over")

    assert guest.run_coroutine(quick(), lambda t: None).result() == 7
    guest.run_coroutine(waits(), lambda t: None)
    assert seen == [True, "begun"]
    run_until(loop, lambda: seen[-1] == "over")


def test_a_task_starts_another_within_the_guest(loop, guest):
    done = []

    async def inner():
        await asyncio.sleep(0)
        return "inner"

    async def outer():
        task = guest.run_coroutine(inner(), lambda t: done.append(t.result()))
        return await task

    guest.run_coroutine(outer(), lambda t: done.append("outer"))
    run_until(loop, lambda: len(done) == 2)
    assert done == ["inner", "outer"]


@pytest.mark.parametrize("fault", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("first", [0, 0.01])
def test_guest_survives_what_asyncio_lets_through(loop, guest, fault, first):
    done = []

    async def leave():
        if first:
            await asyncio.sleep(first)
        raise fault

    guest.run_coroutine(leave(), lambda t: done.append(t.exception()))
    run_until(loop, lambda: bool(done))
    assert isinstance(done[0], fault)


class TooLateError(Exception):
    pass


@pytest.fixture
def watched(loop):
    dog = Watchdog(100, TooLateError)
    made = AsyncGuest(loop, dog)
    yield made
    made.close()
    dog.close()


@pytest.mark.parametrize("first", [0, 0.01])
def test_watchdog_interrupts_python_that_does_not_end(loop, watched, first):
    done = []

    async def spin():
        if first:
            await asyncio.sleep(first)
        while True:
            pass

    started = time.monotonic()
    watched.run_coroutine(spin(), lambda t: done.append(t.exception()))
    run_until(loop, lambda: bool(done))
    assert isinstance(done[0], TooLateError)
    assert 0.05 < time.monotonic() - started < 5


def test_watchdog_leaves_calls_alone_that_end(loop, watched):
    done = []

    async def work():
        for _ in range(8):
            end = time.monotonic() + 0.02
            while time.monotonic() < end:
                pass
            await asyncio.sleep(0)
        return "done"

    watched.run_coroutine(work(), lambda t: done.append(t.result()))
    run_until(loop, lambda: bool(done))
    assert done == ["done"]


def test_watchdog_interrupts_again_who_goes_on(loop, watched):
    done = []

    async def stubborn():
        for _ in range(3):
            try:
                while True:
                    pass
            except TooLateError:
                continue
        return "over"

    watched.run_coroutine(stubborn(), lambda t: done.append(t.result()))
    run_until(loop, lambda: done == ["over"])


def test_watchdog_lets_asyncio_finish_what_it_is_at(loop, watched):
    """An exception there would lose the step of a task: whose, is chance."""
    seen, done = [], []
    inside = {"__name__": "asyncio.somewhere", "time": time, "seen": seen}
    exec(       # as code of another module
        "def busy():\n"
        "    end = time.monotonic() + 0.2\n"
        "    while time.monotonic() < end: pass\n"
        "    seen.append('whole')\n",
        inside,
    )

    async def hook():
        await asyncio.sleep(0)
        inside["busy"]()
        while True:
            pass

    watched.run_coroutine(hook(), lambda t: done.append(t.exception()))
    run_until(loop, lambda: bool(done))
    assert seen == ["whole"]
    assert isinstance(done[0], TooLateError)


def test_watchdog_does_not_wait_for_ever_for_asyncio(loop, watched):
    done = []
    inside = {"__name__": "asyncio.somewhere"}
    exec("def busy():\n    while True: pass\n", inside)

    async def hook():
        inside["busy"]()

    watched.run_coroutine(hook(), lambda t: done.append(t.exception()))
    run_until(loop, lambda: bool(done))
    assert isinstance(done[0], TooLateError)


def test_closing_does_not_wait_for_tasks_that_will_not_end(loop):
    made = AsyncGuest(loop)

    async def stays():
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async def leaves():
        try:
            await asyncio.sleep(60)
        finally:
            raise SystemExit

    for coroutine in (stays(), leaves()):
        made.run_coroutine(coroutine, lambda t: None)
    started = time.monotonic()
    made.close()
    assert time.monotonic() - started < 20
    assert made.aio.is_closed()


def test_another_thread_wakes_the_loop(loop):
    called = []
    far = loop.every(60_000, lambda: None)

    def call():
        called.append(threading.current_thread())
        loop.stop()

    threading.Timer(0.05, loop.call_soon_from_thread, [call]).start()
    begin = time.monotonic()
    loop.run()
    far.cancel()
    assert called == [threading.current_thread()]
    assert time.monotonic() - begin < 10


def test_a_watchdogs_limit_changes(loop):
    dog = Watchdog(60_000, TimeoutError)
    try:
        dog.limit_ms = 50
        assert dog.limit_ms == 50
    finally:
        dog.close()
