"""Settings of TCP itself: probes of connections on which nothing moves, and how long data may go unacknowledged."""

from typing import Final

from edge.schema import Duration, Integer, Milliseconds, Section, knob, table

DEFAULT_KEEPALIVE: Final = {"idle": "2m", "interval": "15s", "count": 4}


@table
class Keepalive:
    idle: Milliseconds = knob(Duration("1s", "9h"), "Without a packet for this long, probes begin.", default="2m")
    interval: Milliseconds = knob(Duration("1s", "9h"), "Between two probes.", default="15s")
    count: int = knob(Integer(1, 127), "Unanswered probes that end a connection.", default=4)


@table
class Tcp:
    keepalive: Keepalive | None = knob(
        Section(Keepalive, none=True),
        'Probes (`SO_KEEPALIVE`) that find out that the other end has gone without a word; or `"none"`. Whole seconds.',
        default=DEFAULT_KEEPALIVE,
    )
    user_timeout: Milliseconds = knob(
        Duration("1s", "7d", none=True),
        "`TCP_USER_TIMEOUT`: how long what was sent may go unacknowledged, or the other end take nothing, before the "
        'kernel gives the connection up. `"none"`: as long as it retransmits, about 15 minutes. It takes the place of '
        "`keepalive.count`, and holds for routes with `write_idle` of \"none\", too.",
        default="none",
    )


def options(tcp: Tcp) -> dict[str, int]:
    """By the data plane's names: seconds for probes, milliseconds for the rest; 0 for none."""
    probes = tcp.keepalive
    return {
        "keepalive_idle": probes.idle // 1000 if probes else 0,
        "keepalive_interval": probes.interval // 1000 if probes else 0,
        "keepalive_count": probes.count if probes else 0,
        "user_timeout": tcp.user_timeout,
    }
