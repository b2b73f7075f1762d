"""Routes whose body is a few fields: FastAPI parses it on the event loop, where a long one would hold up all others."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from pipeline.runtime.server.bodies import SMALL_JSON, check_body_size


class FieldsRoute(APIRoute):
    """A route that refuses a long body of fields before it is parsed; what reads its body itself is as it was."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        answer = super().get_route_handler()
        if self.body_field is None:
            return answer

        async def answer_short(request: Request) -> Response:
            check_body_size(await request.body(), SMALL_JSON)
            return await answer(request)

        return answer_short
