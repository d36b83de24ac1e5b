"""The metrics by name: of what type, by which labels, and what they mean. docs/metrics.md has the same table, which
`python -m edge.observe.metric_names` writes."""

import dataclasses
from collections.abc import Iterator
from typing import Final, Literal

Type = Literal["counter", "gauge", "histogram"]
C: Final[Type] = "counter"
G: Final[Type] = "gauge"
H: Final[Type] = "histogram"


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """A metric. A counter shows as `name`_total, a histogram as `name`_bucket, `name`_sum and `name`_count."""

    name: str
    type: Type
    labels: tuple[str, ...]
    meaning: str

    @property
    def shown(self) -> str:
        return f"{self.name}_total" if self.type == C else self.name

    @property
    def samples(self) -> tuple[str, ...]:
        """The names of its samples."""
        if self.type == H:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.shown,)


GROUPS: Final[dict[str, tuple[Name, ...]]] = {
    "Connections": (
        Name("edge_connections", G, ("state",), "Clients' connections now, by state: `new` (no request yet), `active`, "
             "`idle`, `hijacked` (a WebSocket, or another tunnel of HTTP/1.1)."),
        Name("edge_connections_accepted", C, (), "Connections that came and were taken."),
        Name("edge_connection_states_entered", C, ("state",), "How often connections have come to a state, `closed` "
             "among them."),
        Name("edge_connections_over_limit", C, (), "Connections over `limits.connections` or `limits.per_address`: "
             "closed, or answered 503 or 429. Above 0: the limit is too low, or somebody tries."),
        Name("edge_idle_connections_closed", C, ("side",), "Idle connections that gave way to others, of the `client` "
             "or `upstream` side: descriptors, `limits.connections` or `memory_limit` ran short."),
        Name("edge_accept_pauses", C, (), "How often accepting had to pause, because no descriptor was left. Above 0: "
             "raise the limit of open files."),
        Name("edge_proxy_headers_refused", C, (), "Connections without the PROXY header that was due, or with a faulty "
             "one."),
        Name("edge_handoffs", C, ("outcome",), "Connections `given` to other processes and `received` from them; "
             "those that could not be given (`failed`), and messages that were none (`refused`)."),
        Name("edge_tunnels", G, (), "WebSockets and other tunnels now."),
        Name("edge_tunnels_opened", C, (), "Requests that became a tunnel."),
    ),
    "TLS": (
        Name("edge_handshakes", C, ("version", "cipher_suite", "group", "resumed"), "Handshakes that were completed. "
             "`group` is `-` where there was no key exchange (TLS 1.2, resumed)."),
        Name("edge_handshake_failures", C, (), "Handshakes that were not completed, whoever's fault: scanners and old "
             "clients always cause some; a jump after a change of certificates is yours."),
        Name("edge_handshake_seconds", H, ("resumed",), "From the accepted connection to the client's Finished: round "
             "trips included, so mostly the client's distance."),
        Name("edge_handshakes_waiting", G, (), "Handshakes that wait now: for a hook, for a remote key's signature, or "
             "for the fleet's register of early data."),
        Name("edge_handshakes_dropped", C, (), "Handshakes that a hook ended without a word."),
        Name("edge_signer_failures", C, (), "Handshakes that ended because there was no signature. Above 0: the key "
             "server, or the token, is in trouble."),
        Name("edge_alerts", C, ("direction", "alert"), "Fatal alerts `sent` to clients and `received` from them. Much "
             "`unknown_ca` or `certificate_expired` received: they do not like the certificate."),
        Name("edge_early_data", C, ("outcome",), "Connections that offered 0-RTT data: `accepted`, or why it was not "
             "taken. `replayed`: somebody sent it twice; `register_full`: raise the register's room."),
        Name("edge_early_requests", C, ("outcome",), "Requests in 0-RTT data: `forwarded` before the handshake was "
             "confirmed, `confirmed` first, `answered_425`, or `retried` after a 425 of the upstream."),
        Name("edge_register_up", G, (), "Workers that the fleet's register of early data answers. Below the number of "
             "workers: those take no early data ([fleet.md](fleet.md#the-register))."),
        Name("edge_register_asked", C, (), "Connections whose early data the fleet's register was asked about."),
        Name("edge_register_answers", C, ("outcome",), "Its answers: `taken`, `replayed` (on another host), or none "
             "before the deadline (`late`)."),
        Name("edge_register_seconds", H, (), "From the question to the answer, for as long as there was one."),
        Name("edge_ticket_key_age_seconds", G, ("state",), "Since when the ticket key that `seals` does so, and the "
             "oldest that still `opens`. Above `tls.tickets.rotate` for `seals`: keys do not turn."),
        Name("edge_ticket_keys", G, ("state",), "Ticket keys: one that `seals`, `next` ones, and those that "
             "only `opens` what they have sealed."),
        Name("edge_fleet_connected", G, (), "1 while the fleet's Redis answers the process that keeps ticket keys, "
             "else 0: then the last known go on. Nothing without a fleet that shares them."),
        Name("edge_fleet_contact_age_seconds", G, (), "Since when it has not answered; before the first time nothing."),
        Name("edge_fleet_polls", C, ("outcome",), "How often it was asked for ticket keys: `answered` or `failed`."),
        Name("edge_fleet_clock_offset_seconds", G, (), "By which its clock is ahead of this host's. Ticket keys go by "
             "it; other things do not: keep clocks in step."),
        Name("edge_certificate_expiry_time_seconds", G, ("path", "kind"), "When a certificate expires (seconds since "
             "1970)."),
        Name("edge_ocsp_expiry_time_seconds", G, ("path", "kind"), "When the OCSP response that is stapled expires; "
             "nothing without one."),
    ),
    "Requests": (
        Name("edge_requests", C, ("status",), "Requests that are over, of all routes and of none, by the class of the "
             "status that the client got; `none`: it got none."),
        Name("edge_request_seconds", H, (), "From a request's head to the last byte of its response, tunnels left "
             "out."),
        Name("edge_request_first_byte_seconds", H, (), "From a request's head to that of its response: what the "
             "upstream takes."),
        Name("edge_requests_forwarded", C, (), "Requests that an upstream was asked for."),
        Name("edge_client_aborts", C, (), "Requests whose client went before the response was whole."),
        Name("edge_timeouts", C, (), "Limits of time that were reached, of whatever kind; the access log says which."),
        Name("edge_requests_over_limit", C, (), "Requests answered 413, 429, 431 or 503 for what `limits` says."),
        Name("edge_requests_cut", C, (), "Requests that a hook or a fault of edge's ended without an answer."),
        Name("edge_hook_failures", C, (), "Hooks that raised, or took too long. Above 0: see the error log."),
        Name("edge_upstream_failures", C, (), "Requests that failed for the upstream's fault."),
        Name("edge_spans", C, ("outcome",), "Spans of traces: `sent` to the exporter, or `dropped` for want of room."),
        Name("edge_log_lines_dropped", C, (), "Lines of the access log that workers had no room for."),
        Name("edge_log_lines_lost", C, ("log",), "Lines that had come to the process which writes the logs, and could "
             "not be written: `access`, `error` or `keys`. The error log says why."),
    ),
    "Routes": (
        Name("edge_route_requests", C, ("route", "status"), "Requests that are over, by class of status. Route "
             "`none`: no route was for them; `other`: there was no room to count them apart."),
        Name("edge_route_seconds", H, ("route",), "As `edge_request_seconds`."),
        Name("edge_route_first_byte_seconds", H, ("route",), "As `edge_request_first_byte_seconds`."),
        Name("edge_route_received_bytes", C, ("route",), "HTTP that clients sent, as the access log's `bytes_in`."),
        Name("edge_route_sent_bytes", C, ("route",), "HTTP that clients got, as the access log's `bytes_out`."),
        Name("edge_route_running", G, ("route",), "Requests for which an upstream is asked now."),
        Name("edge_route_failures", C, ("route",), "Requests that failed for the upstream's fault."),
        Name("edge_route_retries", C, ("route",), "Requests that were sent once more, to another connection."),
    ),
    "Upstreams": (
        Name("edge_upstream_requests", C, ("upstream", "status"), "Requests that are over, by class of status."),
        Name("edge_upstream_seconds", H, ("upstream",), "As `edge_request_seconds`."),
        Name("edge_upstream_first_byte_seconds", H, ("upstream",), "As `edge_request_first_byte_seconds`: the first "
             "place to look when clients wait."),
        Name("edge_upstream_running", G, ("upstream",), "Requests that wait for it, or are being answered, now."),
        Name("edge_upstream_request_failures", C, ("upstream",), "Requests that failed for its fault."),
        Name("edge_upstream_retries", C, ("upstream",), "Requests that were sent once more, to another connection."),
        Name("edge_server_requests", C, ("upstream", "server", "status"), "Requests that this server was asked for "
             "last."),
        Name("edge_server_first_byte_seconds", H, ("upstream", "server"), "As `edge_request_first_byte_seconds`: tells "
             "a slow server from its siblings."),
        Name("edge_server_failures", C, ("upstream", "server"), "How often it was at fault: no connection, no answer "
             "in time, none that was whole. Another server may have answered the request."),
        Name("edge_server_retries", C, ("upstream", "server"), "Requests that were sent once more after it had closed "
             "their connection, or refused them."),
        Name("edge_server_connects", C, ("upstream", "server"), "Connections that were begun."),
        Name("edge_server_reuses", C, ("upstream", "server"), "Requests on a connection that had answered others. Few "
             "of them: the server's keep-alive is shorter than `pool.idle`, or `pool.max_idle` too small."),
        Name("edge_server_connections", G, ("upstream", "server", "state"), "Connections now: `idle` in the pool "
             "(HTTP/1.1), or `used`."),
    ),
    "Processes": (
        Name("edge_info", G, ("version",), "1."),
        Name("edge_start_time_seconds", G, (), "When the master started (seconds since 1970). Counters begin at 0 "
             "there, and after `edge upgrade`."),
        Name("edge_generation", G, (), "The number of the configuration that is served."),
        Name("edge_reloads", C, ("outcome",), "Reloads that were `accepted` or `rejected`."),
        Name("edge_last_reload_accepted", G, (), "1 when the last reload was accepted, else 0: what is served is not "
             "what stands in the file. Without a reload, nothing."),
        Name("edge_last_reload_time_seconds", G, (), "When that was (seconds since 1970)."),
        Name("edge_workers", G, ("state",), "Workers that are `booting`, `serving` or `draining`."),
        Name("edge_worker_restarts", C, ("slot",), "Workers that had to be replaced because they died, by their place. "
             "Above 0: see the error log."),
        Name("edge_loop_turn_seconds", H, (), "Turns of workers' loops: what comes in the meantime waits for so long. "
             "The sum's rate is how busy workers are: 1 for each that has nothing left."),
        Name("edge_loop_late_seconds", H, (), "How late the kernel woke idle workers: high where the machine has too "
             "much to do, or too few CPUs."),
        Name("edge_loop_longest_turn_seconds", G, (), "The longest turn of the last minute. Above 0.1: a hook that "
             "computes, or a machine that is short of CPU."),
        Name("edge_descriptors", G, (), "Descriptors that workers watch, sockets mostly."),
        Name("edge_descriptors_limit", G, (), "How many workers may have open, together."),
        Name("edge_process_resident_bytes", G, ("process",), "Memory of the `master`, of all `worker` processes, and "
             "of the companions, pages that are shared counted in each."),
        Name("edge_process_proportional_bytes", G, ("process",), "The same with shared pages divided by who shares "
             "them. Nothing where the kernel does not tell it to the observer's user."),
        Name("edge_metrics_seconds", G, (), "How long it took to write this answer."),
    ),
}

NAMES: Final = {name.name: name for group in GROUPS.values() for name in group}


def reference() -> Iterator[str]:
    """Lines of Markdown."""
    for title, names in GROUPS.items():
        yield from ("", f"### {title}", "", "| metric | type | labels | meaning |", "|---|---|---|---|")
        for name in names:
            labels = ", ".join(f"`{label}`" for label in name.labels)
            yield f"| `{name.shown}` | {name.type} | {labels} | {name.meaning} |"


if __name__ == "__main__":
    print("\n".join(reference()))
