"""Frames on disk: the HDF5 schema, its readers and its writer."""

from ampmm.data.hdf5 import FrameWriter, write_whole
from ampmm.data.lock import WriterLock
from ampmm.data.reading import read_columns, read_failures, read_frame_keys, read_frames, read_header
from ampmm.data.schema import FIELDS, FORMAT, SCHEMA_VERSION, Failure, Field, FrameSet, Header, Record, fields_of

__all__ = [
    "FIELDS",
    "FORMAT",
    "SCHEMA_VERSION",
    "Failure",
    "Field",
    "FrameSet",
    "FrameWriter",
    "Header",
    "Record",
    "WriterLock",
    "fields_of",
    "read_columns",
    "read_failures",
    "read_frame_keys",
    "read_frames",
    "read_header",
    "write_whole",
]
