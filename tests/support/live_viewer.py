"""The viewer's server on a real socket, in a thread."""

import http.client
import json
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn

from tutelage.viewer import server
from tutelage.viewer.shelf import Shelf


class Live:
    """A server of real sockets in a thread."""

    def __init__(self, folders: list[Path], cache: Path, token: str = "", **options: Any) -> None:
        self.shelf = Shelf(folders, cache=cache, **options)
        self.socket = server.bound("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        app = server.application(self.shelf, token=token)
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
        self.server = uvicorn.Server(config)
        self.shelf.start()
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def ask(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, body

    def json(self, path: str) -> Any:
        status, _, body = self.ask(f"/api/{path}")
        assert status == 200, body
        return json.loads(body)

    def close(self) -> None:
        self.shelf.stop()
        self.server.should_exit = True
        self.thread.join(timeout=30)
