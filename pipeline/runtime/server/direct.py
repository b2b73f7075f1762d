"""A GET whose fields stand in the query, answered before FastAPI's router: images are asked for so, many at a time.

FastAPI goes through routers, dependencies and two stacks of contexts for each request, which takes longer than all of
our own. Its own route of the same path and model stays: it describes this one, and answers other methods.
"""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

Asked = TypeVar("Asked", bound=BaseModel)


class QueryRoute(BaseRoute, Generic[Asked]):
    """Answers GET on `path` by `answer`, given the checked query; errors are raised as FastAPI raises them."""

    def __init__(self, path: str, model: type[Asked], answer: Callable[[Asked, Request], Awaitable[Response]]) -> None:
        self.path, self._model, self._answer = path, model, answer

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the request is for this route."""
        if scope["type"] == "http" and scope["path"] == self.path and scope["method"] == "GET":
            return Match.FULL, {"route": self}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive, send)
        try:
            asked = self._model.model_validate(dict(request.query_params))  # of a name given twice, the last
        except ValidationError as wrong:
            found = wrong.errors(include_url=False)
            raise RequestValidationError([error | {"loc": ("query", *error["loc"])} for error in found]) from None
        response = await self._answer(asked, request)
        await response(scope, receive, send)
