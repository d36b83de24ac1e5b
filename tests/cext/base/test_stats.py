"""Counters in shared memory: what is counted where, that it adds up, and that nothing is lost or goes backwards when a
process goes."""

import math
import mmap
import os
import random
import resource
import threading
import time

import pytest
from cext.base.stats import GAUGES, SERIES_GAUGES, StatsTable, Tally, Unreadable, bounds


def histogram_of(microseconds):
    table = StatsTable(rows=1, series=4)
    tally = Tally(table)
    for us in microseconds:
        tally.handshake(1, 1, False, us)
    return table.read()


def test_buckets_are_four_to_an_octave_from_16_us_to_134_s():
    limits = bounds()
    assert limits[:6] == (16, 20, 24, 28, 32, 40)
    assert limits[-1] == 2**27 == 134217728
    assert all(limits[i + 4] == 2 * limits[i] for i in range(len(limits) - 4))
    assert list(limits) == sorted(set(limits))


@pytest.mark.parametrize("us", [0, 1, 15, 16, 17, 20, 21, 31, 32, 33, 1000, 2**27 - 1, 2**27, 2**27 + 1, 2**40, 2**63])
def test_a_value_falls_into_the_first_bucket_whose_bound_is_not_below_it(us):
    counts, total = histogram_of([us]).histogram("full_handshake")
    limits = [*bounds(), math.inf]
    assert counts.index(1) == next(i for i, limit in enumerate(limits) if us <= limit)
    assert sum(counts) == 1
    assert total == us


def test_random_values_fall_where_they_belong():
    chance = random.Random(7)
    values = [int(2 ** chance.uniform(0, 32)) for _ in range(5000)]
    counts, total = histogram_of(values).histogram("full_handshake")
    limits = [*bounds(), math.inf]
    wanted = [0] * len(limits)
    for value in values:
        wanted[next(i for i, limit in enumerate(limits) if value <= limit)] += 1
    assert counts == wanted
    assert total == sum(values)


def test_quantiles_are_interpolated_within_a_bucket():
    values = list(range(1000, 101000, 10))
    found = histogram_of(values).quantiles("full_handshake", (0.0, 0.5, 0.9, 0.99, 1.0))
    for share, us in zip((0.5, 0.9, 0.99), found[1:4], strict=True):
        exact = values[int(share * len(values))]
        assert abs(us - exact) < 0.1 * exact, (share, us, exact)
    assert found == sorted(found)
    assert histogram_of([]).quantiles("full_handshake", (0.5,)) == [None]
    assert histogram_of([2**40]).quantiles("full_handshake", (0.5,)) == [2.0**27]


def test_rows_add_up_and_one_row_can_be_read_alone():
    table = StatsTable(rows=4, series=100)
    for row, n in ((1, 3), (2, 5)):
        table.open(row)
        table.join(row)
        Tally(table).connection(entered=n, left=1)
        Tally(table).request(70 + row, 204, 1000)
        Tally(table).request(70, 500, 2000)
    sums = table.read()
    assert sums.counters()["connections"] == 8
    assert sums.counters()["connections_open"] == 6
    assert sums.array("entered")[0] == 8
    assert sums.indices() == [70, 71, 72]
    assert sums.of(70)["status"] == [0, 0, 0, 0, 0, 2]
    assert sums.of(72)["status"] == [0, 0, 1, 0, 0, 0]
    assert sum(sums.histogram("total", 70)[0]) == 2
    assert table.read([2]).counters()["connections"] == 5
    assert table.read([2]).indices() == [70, 72]
    assert table.read([3]).counters()["connections"] == 0


def test_what_has_gone_stays_counted_without_its_gauges():
    table = StatsTable(rows=3, series=10)
    table.open(1)
    table.join(1)
    tally = Tally(table)
    tally.connection(entered=7, left=2)
    tally.request(3, 200, 5000, running=4)
    tally.turn(int(time.monotonic()), 900000)
    tally.alert(40, sent=True)
    before = table.read()
    assert before.counters()["connections_open"] == 5
    assert before.longest(60) == 900000
    table.fold(1)
    after = table.read()
    for name, value in after.counters().items():
        assert value == (0 if name in GAUGES else before.counters()[name]), name
    assert after.array("in_state") == [0] * 8
    assert after.array("entered")[0] == 7
    assert after.array("alerts_sent")[40] == 1
    assert after.longest(60) == 0
    for name, value in after.of(3).items():
        assert value == (0 if name in SERIES_GAUGES else before.of(3)[name]), name
    assert after.histogram("total", 3) == before.histogram("total", 3)
    assert table.read([1]).counters() == StatsTable(rows=1, series=1).read().counters()
    # The row is somebody else's now.
    Tally(table).connection()
    table.fold(1)
    assert table.read().counters()["connections"] == 8


def test_no_count_goes_backwards_for_who_reads_while_rows_are_folded():
    """A process counts, goes and is folded, over and over, while another one reads."""
    table = StatsTable(rows=2, series=2000)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            last = (0, 0, 0)
            until = time.monotonic() + 30
            while last[2] < 300 and time.monotonic() < until:
                sums = table.read()
                seen = (
                    sums.counters()["connections"],
                    sum(sums.of(i)["requests"] for i in sums.indices()),
                    sum(sums.histogram("total", 1500)[0]) if 1500 in sums.indices() else 0,
                )
                assert all(new >= old for new, old in zip(seen, last, strict=True)), (seen, last)
                last = seen
            assert last[2] >= 300
            code = 0
        except AssertionError as e:
            os.write(2, f"{e}\n".encode())
        finally:
            os._exit(code)
    while True:
        table.open(1)
        table.join(1)
        tally = Tally(table)
        for i in range(200):
            tally.connection()
            tally.request(1500 + i, 200, 1000)
        table.fold(1)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
    assert status == 0


def test_a_reader_does_not_wait_for_ever_for_who_stopped_while_folding():
    table = StatsTable(rows=2, series=10)
    memoryview(table.memory)[0] = 1                                # `folds` is odd
    began = time.monotonic()
    with pytest.raises(Unreadable):
        table.read()
    assert time.monotonic() - began < 10
    done = threading.Timer(0.05, memoryview(table.memory).__setitem__, (0, 2))
    done.start()
    assert table.read().counters()["connections"] == 0
    done.join()


def resident():
    """Bytes of shared memory that this process has touched."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssShmem:"))


def test_memory_that_nobody_counts_in_is_not_there():
    before = resident()
    table = StatsTable()
    assert len(table.memory) > 1 << 30
    for row in range(1, 9):
        table.open(row)
        table.join(row)
        Tally(table).request(5000, 200, 1)
    for _ in range(3):
        table.read()
    assert resident() - before < 8 * 40960
    for row in range(1, 9):
        table.fold(row)
    assert resident() - before < 3 * 40960, "a folded row gives its pages back"
    assert table.read().of(5000)["requests"] == 8


def test_an_index_beyond_the_table_shares_the_first_series():
    table = StatsTable(rows=1, series=3)
    for index in (2, 3, 4, 2**32 - 1):
        Tally(table).request(index, 200, 1)
    assert {i: table.read().of(i)["requests"] for i in table.read().indices()} == {0: 3, 2: 1}


def test_the_difference_of_two_looks_has_the_gauges_of_the_later():
    table = StatsTable(rows=1, series=10)
    tally = Tally(table)
    tally.connection(entered=5)
    tally.request(1, 200, 1000, running=1)
    tally.handshake(1, 1, True, 50)
    earlier = table.read()
    tally.connection(entered=2, left=4)
    tally.request(1, 404, 3000, running=2)
    tally.request(2, 200, 1000)
    rest = table.read().minus(earlier)
    assert rest.counters()["connections"] == 2
    assert rest.counters()["connections_open"] == 3
    assert rest.handshakes() == []
    assert rest.of(1)["requests"] == 1
    assert rest.of(1)["status"] == [0, 0, 0, 0, 1, 0]
    assert rest.of(1)["running"] == 3
    assert rest.of(2)["requests"] == 1
    assert rest.histogram("total", 1)[1] == 3000
    assert earlier.counters()["connections"] == 5


def test_handshakes_and_loops():
    table = StatsTable(rows=1, series=1)
    tally = Tally(table)
    for _ in range(3):
        tally.handshake(1, 5, False, 100)
    tally.handshake(2, 0, True, 100)
    now = int(time.monotonic())
    tally.turn(now, 500)
    tally.turn(now - 30, 90000)
    sums = table.read()
    assert sums.handshakes() == [(1, 5, False, 3), (2, 0, True, 1)]
    assert sums.histogram("turn")[1] == 90500
    assert (sums.longest(10), sums.longest(60)) == (500, 90000)


def test_what_cannot_be():
    for rows, series in ((0, 1), (1, 0)):
        with pytest.raises(ValueError):
            StatsTable(rows=rows, series=series)
    table = StatsTable(rows=2, series=1)
    for call in (table.join, table.open, table.fold):
        for row in (-1, 2):
            with pytest.raises(ValueError):
                call(row)
    with pytest.raises(ValueError):
        table.fold(0)
    with pytest.raises(KeyError):
        table.read().histogram("nothing")
    with pytest.raises(KeyError):
        table.read().of(0)


def test_a_table_that_finds_no_room_says_so():
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            StatsTable(rows=256, series=8192)
        except OSError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert mmap.PAGESIZE == 4096
