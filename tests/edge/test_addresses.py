"""Which worker counts where, and that what a dead one held is taken back."""

from cext.proxy.address_table import Visitor

from edge.addresses import Addresses


def test_columns_are_assigned_and_taken_back():
    addresses = Addresses()
    assert [addresses.assign(worker) for worker in ("a", "b", "c")] == [0, 1, 2]
    table = addresses.join(1)
    Visitor(table, "192.0.2.1").enter()
    addresses.join(2)
    Visitor(table, "192.0.2.1").enter()
    addresses.keep(["a", "b", "c"])
    assert table.counts("192.0.2.1") == (2, 0)
    addresses.keep(["a", "c"])
    assert table.counts("192.0.2.1") == (1, 0)
    assert addresses.assign("d") == 1
    addresses.keep([])
    assert table.counts("192.0.2.1") == (0, 0)
    assert addresses.assign("e") == 0


def test_a_worker_without_a_column_counts_for_itself():
    addresses = Addresses()
    columns = [addresses.assign(n) for n in range(300)]
    assert columns[-1] is None
    shared, own = addresses.join(columns[0]), addresses.join(None)
    assert own is not shared
    Visitor(own, "192.0.2.1").enter()
    assert shared.counts("192.0.2.1") == (0, 0)
    assert own.counts("192.0.2.1") == (1, 0)
