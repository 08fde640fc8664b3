"""The connection."""
import atexit
import json
import logging
import weakref
from typing import Any, Dict, Iterable, Optional, Union

from . import _busway
from .admin import Admin
from .consumer import Consumer
from .exceptions import BuswayError
from .producer import Producer
from .queue import Queue
from .types import Timeout, choose

logger = logging.getLogger("busway")
_LEVELS = {3: logging.ERROR, 4: logging.WARNING, 6: logging.INFO, 7: logging.DEBUG}
_TRANSPORTS = {"auto": 0, "direct": 1, "ipc": 2}
_AT_EXIT_SECONDS = 5.0

_open: "weakref.WeakSet[Bus]" = weakref.WeakSet()


def _log(level: int, message: str) -> None:
    logger.log(_LEVELS.get(level, logging.INFO), "%s", message)


def _close_all() -> None:
    """At exit: what is still open is closed while the interpreter is whole. Errors are logged: nobody is left to catch them."""
    for bus in list(_open):
        try:
            bus._close(_AT_EXIT_SECONDS)
        except (BuswayError, BufferError) as e:
            logger.warning("closing %s at exit: %s", bus, e)
    _busway._set_log(None)


_busway._set_log(_log)
atexit.register(_close_all)


class Bus(_busway.Bus):
    """A connection to a Busway. Any thread may use it. From busway.connect(); a context manager, which closes what belongs to it, too.

    After os.fork() everything opened before raises ForkedError in the child; a bus opened there works. Nothing of it can be pickled: send the
    URL. What is open when the program ends is closed then, producers are flushed for up to five seconds."""

    url: Optional[str]

    def __new__(cls, url: Optional[str] = None, *, transport: str = "auto", connect_timeout_ms: int = 5000, request_timeout_ms: int = 30000,
                client_id: Optional[str] = None, daemon_path: Optional[str] = None) -> "Bus":
        self = super().__new__(cls, url, choose("transport", transport, _TRANSPORTS), connect_timeout_ms, request_timeout_ms, client_id,
                               daemon_path)
        assert isinstance(self, Bus)
        self.url = url
        _open.add(self)
        return self

    def producer(self, **options: Any) -> Producer:
        """A Producer; options: see there."""
        return Producer(self, **options)

    def consumer(self, topics: Union[str, Iterable[str]] = (), **options: Any) -> Consumer:
        """A Consumer of these topics; options: see there."""
        return Consumer(self, topics, **options)

    def queue(self, group: str, topics: Union[str, Iterable[str]], **options: Any) -> Queue:
        """A worker of a queue group; options: see Queue."""
        return Queue(self, group, topics, **options)

    def admin(self) -> Admin:
        """Topics, offsets, groups, transactions, queues, quotas, status."""
        return Admin(self)

    def stats(self) -> Dict[str, Any]:
        """What this bus does: transport and why not direct per topic, counters of records, bytes, waits and system calls."""
        result: Dict[str, Any] = json.loads(self._stats())
        return result

    def close(self, timeout: Timeout = None) -> None:
        """Close it and whatever of it is open; producers are flushed for at most `timeout` seconds. BufferError while views of a batch live."""
        self._close(timeout)

    def __enter__(self) -> "Bus":
        return self

    def __exit__(self, *exc: object) -> None:
        self._close(None)

    def __repr__(self) -> str:
        return f"<busway.Bus {self.url or '(default)'}{', closed' if self.closed else ''}>"


def connect(url: Optional[str] = None, *, transport: str = "auto", connect_timeout_ms: int = 5000, request_timeout_ms: int = 30000,
            client_id: Optional[str] = None, daemon_path: Optional[str] = None) -> Bus:
    """Connect to a bus.

    url: "dir:/path" (a bus in a folder; nothing has to be started), "dir:/path?mode=ro", "ipc:///run/x/bus.sock"; None: $BUSWAY_URL, else
    the host's daemon, else a folder of the user's.
    transport: "auto"; "direct": or an error that says why not; "ipc": everything through the daemon's socket.
    connect_timeout_ms: also the wait for an embedded daemon; request_timeout_ms: bound of each administrative request.
    client_id: shown by `busway status`; daemon_path: buswayd for dir: URLs.

    Errors: InvalidArgumentError (URL), NoCoordinatorError (nobody answers), NotPermittedError, UNSUPPORTED_VERSION, NEWER_FORMAT, IO."""
    return Bus(url, transport=transport, connect_timeout_ms=connect_timeout_ms, request_timeout_ms=request_timeout_ms, client_id=client_id,
               daemon_path=daemon_path)
