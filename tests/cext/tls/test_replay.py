"""The register of early data: each binder once, among processes that race, and for long enough."""

import multiprocessing
import os
import time

import pytest
from cext.tls.replay import CallableRegister, ReplayRegister, SharedRegister

FORK = multiprocessing.get_context("fork")


def test_once():
    register = SharedRegister()
    binders = [os.urandom(32) for _ in range(1000)]
    assert all(register.enter(b) for b in binders)
    assert not any(register.enter(b) for b in binders)


def test_every_length_and_bit_counts():
    register = SharedRegister()
    binder = bytes(48)
    assert register.enter(binder)
    assert register.enter(bytes(32))
    for bit in range(len(binder) * 8):
        changed = bytearray(binder)
        changed[bit // 8] ^= 1 << bit % 8
        assert register.enter(bytes(changed))


def test_the_base_calls_nothing_fresh():
    assert not ReplayRegister().enter(os.urandom(32))


def test_registers_differ():
    assert SharedRegister().identity != SharedRegister().identity != bytes(8)


def test_an_entry_is_kept_and_then_forgotten():
    register = SharedRegister(keeps=150)
    assert register.enter(b"binder" * 6)
    began = time.monotonic()
    while time.monotonic() - began < 0.15:
        assert not register.enter(b"binder" * 6)
        time.sleep(0.01)
    time.sleep(0.1)
    assert register.enter(b"binder" * 6)


def test_a_full_set_is_not_fresh_until_there_is_room():
    register = SharedRegister(keeps=200, capacity=16)
    taken = [b for b in (os.urandom(32) for _ in range(100)) if register.enter(b)]
    assert len(taken) == 16
    assert not any(register.enter(b) for b in taken)
    time.sleep(0.3)
    assert register.enter(os.urandom(32))


def race(register, binders, pipe):
    pipe.recv()
    pipe.send([i for i, b in enumerate(binders) if register.enter(b)])


@pytest.mark.parametrize("keeps", [20_000, 40])
def test_processes_that_race(keeps):
    """Four of them enter the same binders at once, while old entries expire in the second case: none is fresh twice."""
    register = SharedRegister(keeps, capacity=4096 if keeps == 40 else 1 << 17)
    binders = [os.urandom(32) for _ in range(20_000)]
    pipes, processes = [], []
    for _ in range(4):
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=race, args=(register, binders, theirs))
        process.start()
        pipes.append(ours)
        processes.append(process)
    for pipe in pipes:
        pipe.send("go")
    fresh = [i for pipe in pipes for i in pipe.recv()]
    for process in processes:
        process.join()
    if keeps == 20_000:
        assert len(fresh) == len(set(fresh)), "taken twice"
        assert len(fresh) > 19_990, "nearly all are taken by someone"
    else:
        assert fresh    # here a slow process may come after an entry's time; nothing must break


def test_a_child_sees_what_its_parent_entered():
    register = SharedRegister()
    register.enter(b"b" * 32)
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=lambda: theirs.send((register.enter(b"b" * 32), register.enter(b"c" * 32))))
    process.start()
    assert ours.recv() == (False, True)
    process.join()
    assert not register.enter(b"c" * 32)


def hammer(register, pipe):
    pipe.send("begun")
    while True:
        register.enter(os.urandom(32))


def test_a_process_that_is_killed_leaves_nothing_behind():
    """In the middle of what it does: entering goes on for all others, and what was entered stays."""
    register = SharedRegister(capacity=1 << 20)
    known = [os.urandom(32) for _ in range(100)]
    assert all(register.enter(b) for b in known)
    for _ in range(20):
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=hammer, args=(register, theirs))
        process.start()
        ours.recv()
        process.kill()
        process.join()
    assert not any(register.enter(b) for b in known)
    assert all(register.enter(os.urandom(32)) for _ in range(1000))


def test_room_for_what_it_was_made_for():
    """Four words for each entry: hardly one finds its set full."""
    register = SharedRegister(20_000, 4 * 50_000)
    assert register.capacity >= 200_000
    assert sum(not register.enter(os.urandom(32)) for _ in range(50_000)) <= 2


def test_a_name_that_lasts():
    register = SharedRegister(20_000, 1024, b"the name")
    assert register.identity == b"the name"
    for wrong in (b"short", b"much too long"):
        with pytest.raises(ValueError):
            SharedRegister(20_000, 1024, wrong)


@pytest.mark.parametrize("arguments", [(0, 100), (-5, 100), (100, 3), (100, 1 << 40)])
def test_what_is_no_register(arguments):
    with pytest.raises(ValueError):
        SharedRegister(*arguments)


def test_a_record_elsewhere():
    seen = []
    register = CallableRegister(lambda binder: seen.append(binder) or len(seen) == 1, b"the name", 20000)
    assert register.identity == b"the name"
    assert register.keeps == 20000
    assert [register.enter(b"binder") for _ in range(2)] == [True, False]
    assert seen == [b"binder"] * 2

    def fails(binder):
        raise OSError("away")

    assert not CallableRegister(fails, b"the name", 20000).enter(b"binder")
    for ask, identity, keeps in ((None, b"the name", 1), (7, b"the name", 1), (fails, b"short", 1),
                                 (fails, b"the name", 0)):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            CallableRegister(ask, identity, keeps)


def test_a_process_that_was_there_before_joins():
    register = SharedRegister(keeps=5000, capacity=64, since=7)
    entered = [os.urandom(32) for _ in range(8)]
    assert all(register.enter(binder) for binder in entered)
    joined = SharedRegister.of(register.fd, register.state())
    assert joined.identity == register.identity
    assert (joined.keeps, joined.capacity, joined.since) == (register.keeps, register.capacity, 7)
    assert joined.state() == register.state()
    assert not any(joined.enter(binder) for binder in entered)
    binder = os.urandom(32)
    assert joined.enter(binder)
    assert not register.enter(binder)
    assert joined.fd == -1
    with pytest.raises(ValueError, match="no register"):
        SharedRegister.of(register.fd, (*register.state()[:3], b"short", bytes(8)))
    with pytest.raises((OSError, ValueError)):
        SharedRegister.of(os.memfd_create("empty"), register.state())


def test_a_register_gives_its_descriptor_back():
    register = SharedRegister(capacity=64)
    fd = register.fd
    del register
    with pytest.raises(OSError):
        os.fstat(fd)
