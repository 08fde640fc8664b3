"""Serialisers ready made: plain callables, for value_serializer=, value_deserializer= and their key's. null (None) stays null."""
import json
from importlib import import_module
from typing import Any, Optional


def json_serializer(value: Any) -> bytes:
    """Compact UTF-8 JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def json_deserializer(data: Optional[bytes]) -> Any:
    return None if data is None else json.loads(data)


def string_serializer(value: str) -> bytes:
    """UTF-8."""
    return value.encode()


def string_deserializer(data: Optional[bytes]) -> Optional[str]:
    return None if data is None else data.decode()


def msgpack_serializer(value: Any) -> bytes:
    """Needs the package msgpack (python3-msgpack)."""
    packed: bytes = import_module("msgpack").packb(value, use_bin_type=True)
    return packed


def msgpack_deserializer(data: Optional[bytes]) -> Any:
    if data is None:
        return None
    return import_module("msgpack").unpackb(data, raw=False)
