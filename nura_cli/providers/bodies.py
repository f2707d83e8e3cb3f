"""The bodies of answers, read with a bound: an answer that is too large, or unpacks without end, fills no memory.

The vendors' SDKs read the body of an answer whole, and the HTTP client unpacks each piece of a compressed one whole, however
much comes of it. Nothing compressed is asked for; what a gateway packs all the same is unpacked here piece by piece.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2

MOST_ANSWER_BYTES = 16 * 1024 * 1024
"""What an answer that is no download may have, unpacked: a page of a list has less than one."""
_PIECE_BYTES = 1 << 18
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_UNPACKED = frozenset(("gzip", "x-gzip", "deflate"))
_UNKNOWN = frozenset(("br", "zstd", "compress", "x-compress"))
"""Encodings that are not unpacked here. Whatever else a server names (``utf-8``, ``aws-chunked``, nothing) packs nothing."""


class Client(httpx2.Client):
    """An HTTP client whose answers are bounded: all but what is streamed with success, which whoever reads it bounds."""

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """Send a request, as ever. Raises ReadError: more came than an answer may have, or what came cannot be unpacked."""
        response = super().send(request, stream=True, **options)
        named = response.headers.pop("content-encoding", "").lower().split(",")
        encodings = [name for name in map(str.strip, named) if name in _UNPACKED or name in _UNKNOWN]
        if encodings:
            response.headers.pop("content-length", None)  # it is that of the packed body
        most = None if stream and response.is_success else MOST_ANSWER_BYTES
        response.stream = _Body(response.stream, encodings, most)
        if not stream:
            try:
                response.read()
            except BaseException:
                response.close()
                raise
        return response


class _Body(httpx2.SyncByteStream):
    """A body, unpacked, that breaks off where more than ``most`` bytes come."""

    def __init__(self, body: Any, encodings: Sequence[str], most: int | None) -> None:
        self._body = body
        self._encodings = encodings
        self._most = most

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._pieces():
            size += len(piece)
            if self._most is not None and size > self._most:
                raise httpx2.ReadError(f"the answer has more than {self._most >> 20} MiB")
            yield piece

    def _pieces(self) -> Iterator[bytes]:
        body = self._body
        for encoding in reversed(self._encodings):  # as they were applied
            if encoding in _UNKNOWN:
                raise httpx2.ReadError(f"the answer is encoded ({encoding}), and that was not asked for")
            body = _unpacked(body)
        try:
            yield from body
        except zlib.error as error:
            said = ", ".join(self._encodings)
            raise httpx2.ReadError(f"the answer says that it is {said}, and is not: {error}") from error

    def close(self) -> None:
        """Close the connection below."""
        self._body.close()


def _unpacked(body: Any) -> Iterator[bytes]:
    """Yield what gzip or zlib packed, in bounded pieces; members that follow each other are one body."""
    member = zlib.decompressobj(_GZIP_OR_ZLIB)
    begun = False
    for packed in body:
        while packed:
            if member.eof:
                member = zlib.decompressobj(_GZIP_OR_ZLIB)
            begun = True
            yield member.decompress(packed, _PIECE_BYTES)
            packed = member.unused_data if member.eof else member.unconsumed_tail
    if begun and not member.eof:
        while piece := member.decompress(b"", _PIECE_BYTES):
            yield piece
        if not member.eof:
            raise httpx2.ReadError("the packed answer is cut short")
