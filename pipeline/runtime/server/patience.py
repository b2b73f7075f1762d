"""How long a result is waited for: until it is there, its client has left, or its time is over.

Most requests are answered before the first look, so all that they pay for is a timer that never fires.
"""

import asyncio

from fastapi import HTTPException, Request

from pipeline.runtime.server.batching import Arrays

LOOK_SECONDS = 0.25
CLIENT_LEFT = 499  # nobody reads this status but the metrics


class Patience:
    """Waits for one result on behalf of one request."""

    def __init__(self, result: "asyncio.Future[Arrays]", request: Request, seconds: float) -> None:
        self._result, self._request, self._seconds = result, request, seconds
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + seconds
        self._refusal: HTTPException | None = None
        self._watching: asyncio.Task[None] | None = None

    async def wait(self) -> Arrays:
        """The result; it is cancelled where nobody waits for it any more.

        Raises:
            HTTPException: the time is over (504), the client left, or the server stopped (503).
        """
        timer = self._loop.call_later(min(LOOK_SECONDS, self._seconds), self._begin_to_watch)
        try:
            return await self._result
        except asyncio.CancelledError:
            # Only a server that waits no longer cancels the request itself.
            raise self._refusal or HTTPException(503, "the server stopped", {"Connection": "close"}) from None
        finally:
            timer.cancel()
            if self._watching is not None:
                self._watching.cancel()

    def _begin_to_watch(self) -> None:
        self._watching = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        while (left := self._end - self._loop.time()) > 0:
            if await self._request.is_disconnected():
                self._give_up(HTTPException(CLIENT_LEFT, "the client left"))
                return
            await asyncio.sleep(min(LOOK_SECONDS, left))
        self._give_up(HTTPException(504, f"no result within {self._seconds} s"))

    def _give_up(self, refusal: HTTPException) -> None:
        if self._result.cancel():
            self._refusal = refusal
