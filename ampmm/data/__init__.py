"""Frames on disk: the HDF5 schema, its reader and its writer."""

from ampmm.data.hdf5 import FrameWriter, read_frame_keys, read_frames, read_header
from ampmm.data.schema import FIELDS, FORMAT, SCHEMA_VERSION, Field, FrameSet, Header, Record, fields_of

__all__ = [
    "FIELDS",
    "FORMAT",
    "SCHEMA_VERSION",
    "Field",
    "FrameSet",
    "FrameWriter",
    "Header",
    "Record",
    "fields_of",
    "read_frame_keys",
    "read_frames",
    "read_header",
]
