"""Zip archives, which torch and NumPy write: checked before anything in them is believed."""

import io
import zipfile
from collections.abc import Collection
from typing import BinaryIO

LARGEST = 2**28  # bytes that any packed file may unpack to
RATIO = 64  # times its size, that a larger one may
LOCAL_HEADER = 30  # bytes before a member's name


def open_archive(opened: BinaryIO, methods: Collection[int] = (zipfile.ZIP_STORED,)) -> zipfile.ZipFile:
    """Open a zip archive whose directory is sound. Nothing is unpacked.

    Reading a member then checks its CRC-32, which torch itself does not.

    Args:
        opened: the file.
        methods: how members may be compressed, as `zipfile` numbers it.

    Raises:
        zipfile.BadZipFile: no archive, a member is compressed otherwise or encrypted, two have one name,
            overlap, or do not lie in the file, or together they unpack to more than the larger of
            256 MiB and 64 times the file's size.
    """
    archive = zipfile.ZipFile(opened)
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    size = opened.seek(0, io.SEEK_END)
    if len(archive.namelist()) > len(set(archive.namelist())):
        raise zipfile.BadZipFile("two members have one name")
    end = 0
    for member in members:
        if member.compress_type not in methods or member.flag_bits & 1:
            raise zipfile.BadZipFile("a member is encrypted, or compressed in another way")
        if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
            raise zipfile.BadZipFile("a member has two sizes")
        if member.header_offset < end:
            raise zipfile.BadZipFile("members overlap")
        end = member.header_offset + LOCAL_HEADER + member.compress_size
    if end > size:
        raise zipfile.BadZipFile("a member ends after the file")
    if sum(member.file_size for member in members) > most_unpacked(size):
        raise zipfile.BadZipFile("it unpacks to far more than its size")
    return archive


def most_unpacked(size: int) -> int:
    """Return how many bytes a packed file of this size may unpack to: 256 MiB, or 64 times its size."""
    return max(LARGEST, RATIO * size)
