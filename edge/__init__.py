"""The control plane: everything that decides. It configures and runs the data plane in `cext`.

config    TOML to frozen settings: every key, default and explanation
schema    the means for it: kinds of values, tables, precise errors, the reference page
certs     certificate chains and keys, checked and made ready for the engine
plane     settings to data-plane objects: the one place that touches `cext`
handoff   connections handed over, for any program: the message, a receiver, a sender
sockets   listening sockets that outlive the workers
master    gunicorn's arbiter with a fixed slot of sockets for each worker
upgrade   another version takes the running one's place (inheritance: what it is left)
systemd   what the service manager is told, and hands over
worker    one process: builds the data plane and runs it
tls       connections for programs of their own: the engine over blocking sockets
demo      what `edge run` serves without a configuration
"""

__version__ = "0.1.0"
