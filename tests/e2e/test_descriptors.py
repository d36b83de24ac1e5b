"""Running out of file descriptors where nothing is idle: accepting pauses, says so once, and goes on when there are
some again. (What is idle gives way before: see test_pressure.)"""

import resource
import socket
import time

from tests.e2e.client import Client
from tests.e2e.processes import open_files, wait_until


def test_emfile(make_edge, backend):
    edge = make_edge({"b": [backend.server]})
    [worker] = edge.workers()
    enough = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    clients = [Client(edge) for _ in range(40)]
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (open_files(worker), enough[1]))
    # More wait in the queue: connected as far as TCP goes, but not accepted.
    waiting = [socket.create_connection(("127.0.0.1", edge.port), 5) for _ in range(20)]
    for s in waiting:
        s.sendall(b"\x16\x03\x01")
    message = edge.wait_error("accept: Too many open files")
    assert "pauses" in message
    time.sleep(1.0)  # several pauses long
    said = [m for level, m in edge.errors() if "Too many open files" in m and m.startswith("accept")]
    assert len(said) == 1
    ticks = cpu_ticks(worker)
    time.sleep(0.5)
    assert cpu_ticks(worker) - ticks < 20  # it does not spin
    # Those that are in: no descriptor is left for a backend's connection. An answer comes all the same.
    response = clients[0].get("/ok")
    assert response.status == 503
    for client in clients[1:20]:
        client.close()
    assert clients[0].get("/ok").status == 200
    for s in waiting:
        s.close()
    for client in clients[20:] + clients[:1]:
        client.close()

    def recovered() -> bool:
        try:
            with Client(edge, seconds=1) as client:
                return client.get("/ok").status == 200
        except OSError:
            return False

    wait_until(recovered, 20, "accepting again")
    assert edge.workers() == [worker]
    # A second spell is told again. (Want that comes back within a second is the same one.)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, enough)
    time.sleep(1.2)
    clients = [Client(edge) for _ in range(20)]
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (open_files(worker), enough[1]))
    waiting = [socket.create_connection(("127.0.0.1", edge.port), 5) for _ in range(3)]  # idle upstreams make room
    for s in waiting:
        s.sendall(b"\x16")
    wait_until(lambda: sum("accept: Too many" in m for _, m in edge.errors()) == 2, 20, "the second message")
    for s in (*clients, *waiting):
        s.close()


def cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
