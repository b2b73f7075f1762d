"""What the server allows: every limit, with the value that it has unless it is told otherwise."""

from dataclasses import dataclass

from pipeline.errors import UserError

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Settings:
    """Limits of one server; all are counted in this process alone."""

    max_images: int = 1024
    """Images, latents or rows of one request; more is answered with 422."""
    max_pixel_bytes: int = 64 * 2**20
    """Bytes of the pixels of one request's images, a byte for each channel; more is answered with 422."""
    max_body_bytes: int = 16 * 2**20
    """Bytes of one request's body; more is answered with 413, and so is JSON of more than `max_images` can need."""
    max_bodies_bytes: int = 64 * 2**20
    """Bytes of all bodies that are held at a time; one over 64 KiB that finds no room is answered with 503."""
    max_head_bytes: int = 64 * 2**10
    """Bytes of a request's line and headers; more is answered with 431."""
    max_pixels: int = 16 * 2**20
    """Pixels of an uploaded picture once decoded; more is answered with 422."""
    max_queue: int = 16_384
    """Rows that may wait for one graph; a request that finds no room is answered with 503."""
    max_per_client: int = 256
    """Requests of one address at a time; more are answered with 429."""
    max_connections: int = 512
    """Open connections; requests on more are answered with 503. Most systems let a process open 1,024 files."""
    request_seconds: float = 30
    """From a whole request to its result; later is answered with 504."""
    body_seconds: float = 10
    """Until a request's body is here; later is answered with 408."""
    header_seconds: float = 10
    """Until a connection's next request begins to be served; later it is closed."""
    send_seconds: float = 30
    """How long a client may leave a response unread; then the connection is cut."""
    drain_seconds: float = 30
    """How long a stopping server waits for the requests that it has accepted."""
    token: str | None = None
    """If given, requests need the header `Authorization: Bearer TOKEN`."""
    allowed_hosts: tuple[str, ...] | None = LOOPBACK_NAMES
    """Names that a request's Host header may have; None allows any."""

    def __post_init__(self) -> None:
        """Refuse limits that no request could meet.

        Raises:
            UserError: a limit is not above 0, or the token is empty or could not be sent in a header.
        """
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not value > 0:
                raise UserError(f"{name} is {value!r}; expected a number > 0")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise UserError("VAE_TOKEN is empty or holds more than printable ASCII; expected a secret of your own")
