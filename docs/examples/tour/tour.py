"""client_hello, get_config, response and connection_state; the other examples have director and get_certificate."""

from edge.policy import Config, Refuse

TLS_1_3 = 0x0304
OLD_CLIENTS = Config(alpn=["http/1.1"], tickets=False)


class Policy:
    def client_hello(self, hello):
        if not hello.server_name:
            return Refuse("unrecognized_name", "scanners go by addresses")
        return None

    def get_config(self, hello):
        return None if TLS_1_3 in hello.supported_versions else OLD_CLIENTS

    def response(self, request, response):
        response.headers.pop("Server")
        response.headers["Strict-Transport-Security"] = "max-age=86400"
        response.headers["X-TLS-Version"] = str(request.tls.version)

    def connection_state(self, connection, old, new):
        print(f"{connection.client} port {connection.client_port}: {old or 'nothing'} -> {new}", flush=True)
