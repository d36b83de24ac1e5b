"""What grows with what: `python -m bench scale` measures edge with ever more certificates, routes and idle connections.

`site` makes what is served, `serving` runs edge on it and reads its processes, `sweeps` has what is measured at each
point, `curves` draws it.
"""
