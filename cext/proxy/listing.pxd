"""What a worker's connections are, for who looks on: a few at a time, so that a hundred thousand hold nobody up."""

from cext.proxy.context cimport Context

cdef list connections(Context ctx, int place, object filters, int *next_place)
# Some of the clients' connections from descriptor `place` on, as (descriptor, dict) of what may be told: see
# DataPlane.connections. `next_place`: where to go on; 0: that was the last of them.

cdef list servers(Context ctx, object routers)
# What this worker has open to each server of the upstreams of these Routers: see DataPlane.upstreams.
