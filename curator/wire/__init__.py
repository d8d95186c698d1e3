"""The wire: the only package that knows protobuf messages, for both ends of it."""

from curator.wire._convert import (
    PROTOCOL_VERSION,
    columns_from_proto,
    columns_to_proto,
    floats_from_proto,
    floats_to_proto,
    ids_from_proto,
    ids_to_proto,
    info_from_proto,
    info_to_proto,
    spec_from_proto,
    spec_to_proto,
)
from curator.wire._errors import ERROR_KEY, error_from_rpc, status_of
from curator.wire._features import features_from_wire, features_to_wire
from curator.wire._ipc import (
    CHUNK_BYTES,
    Reassembly,
    Response,
    batch_messages,
    chunks_of,
    deserialize_response,
    rows_from_bytes,
    rows_to_parts,
    serialize_response,
)

__all__ = [
    "CHUNK_BYTES",
    "ERROR_KEY",
    "PROTOCOL_VERSION",
    "Reassembly",
    "Response",
    "batch_messages",
    "chunks_of",
    "columns_from_proto",
    "columns_to_proto",
    "deserialize_response",
    "error_from_rpc",
    "features_from_wire",
    "features_to_wire",
    "floats_from_proto",
    "floats_to_proto",
    "ids_from_proto",
    "ids_to_proto",
    "info_from_proto",
    "info_to_proto",
    "rows_from_bytes",
    "rows_to_parts",
    "serialize_response",
    "spec_from_proto",
    "spec_to_proto",
    "status_of",
]
