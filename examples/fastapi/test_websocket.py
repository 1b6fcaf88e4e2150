"""The middleware refuses WebSockets, too."""

import unittest

from starlette.types import Message

from app import app


class WebSocketTest(unittest.IsolatedAsyncioTestCase):
    async def test_refuses_a_websocket_without_a_pass(self) -> None:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "websocket.connect"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/by-pass/seats", "root_path": "", "headers": []}
        await app(scope, receive, send)
        self.assertEqual(sent, [{"type": "websocket.close", "code": 1008}])
