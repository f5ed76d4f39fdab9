"""Large TIFF images by tiles: slides of histology, pyramids or not; never the whole image in memory."""

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from fed_fsad.data.readers import raster
from fed_fsad.data.readers.codestream import check_announced
from fed_fsad.data.readers.files import check_file, needs_extra
from fed_fsad.data.readers.picture import MAX_PARTS, MAX_PIXELS, Grid, Opened, Picture, Pixels, Undecodable, damaged
from fed_fsad.data.settings import Tiles

WHITE, BLACK = 0.86, 0.06
"""A pixel is tissue when its darkest channel lies below WHITE and its brightest above BLACK (ours): glass and the
scanner's border are neither."""
KEPT_BYTES = 1 << 27
"""Of decoded pieces, for the tiles that lie in the same ones."""
ANNOUNCED = (7, 33003, 33005, 34712)
"""TIFF's numbers of JPEG and JPEG 2000, whose pieces say themselves how large they are."""
MOST_PAGES = 1000
SAME_ASPECT = 0.05
Piece = NDArray[Any] | None


class Slide(Opened):
    """A TIFF cut into square tiles. Raises Undecodable when it cannot be."""

    grid: Grid

    def __init__(self, path: Path, tiles: Tiles) -> None:
        super().__init__(path)
        check_file(path, None)
        self._tiles = tiles
        self._lock = threading.Lock()
        self._pieces: OrderedDict[int, Piece] = OrderedDict()
        with damaged("the file is damaged or no TIFF image; replace or remove it"):
            self._tiff = tifffile.TiffFile(path)
            self._page = _checked(_level(self._tiff, tiles.level))
            self._mapped = self._page.asarray(out="memmap") if self._page.is_memmappable else None
        self.grid = Grid((self._page.imagelength, self._page.imagewidth))

    def pictures(self) -> Iterator[tuple[str, Picture]]:
        """The tiles that hold enough tissue, row by row."""
        side, step = self._tiles.side, self._tiles.stride or self._tiles.side
        height, width = self.grid.shape
        rows, columns = range(0, height - side + 1, step), range(0, width - side + 1, step)
        if not rows or not columns:
            raise Undecodable(f"the image is {width} x {height} pixels, less than one tile of {side}; lower tiles.side")
        if len(rows) * len(columns) > MAX_PARTS:
            raise Undecodable(f"it would be cut into {len(rows) * len(columns)} tiles; raise tiles.stride or level")
        for part in (f"tile-{self._tiles.level}-{side}-{y}-{x}" for y in rows for x in columns):
            picture = self.picture(part)
            if tissue(picture.pixels) >= self._tiles.tissue:
                yield part, picture

    def picture(self, part: str) -> Picture:
        """One tile as [side, side, 3] uint8."""
        pixels = self.marks(part)
        if pixels.dtype != np.uint8:
            raise Undecodable("tiles are cut from images of 8 bits a channel; save it with 8 bits")
        pixels = 255 - pixels if self._page.photometric == 0 else pixels
        return Picture(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3])

    def marks(self, part: str) -> Pixels:
        """One tile's stored values, [side, side, C]."""
        side, y, x = self._place(part)
        if self._mapped is not None:
            return np.array(self._mapped[y : y + side, x : x + side]).reshape(side, side, -1)
        out = np.zeros((side, side, self._page.samplesperpixel), self._page.dtype)
        high, wide = _piece_size(self._page)
        across = -(-self._page.imagewidth // wide)
        for row in range(y // high, (y + side - 1) // high + 1):
            for column in range(x // wide, (x + side - 1) // wide + 1):
                self._paste(out, self._piece(row * across + column), row * high - y, column * wide - x)
        return out

    def _place(self, part: str) -> tuple[int, int, int]:
        """Side, top and left of a tile "tile-LEVEL-SIDE-TOP-LEFT" of this level that lies inside the image."""
        found = re.fullmatch(r"tile-(\d+)-(\d+)-(\d+)-(\d+)", part)
        level, side, y, x = map(int, found.groups()) if found else (-1, 0, 0, 0)
        height, width = self.grid.shape
        if level != self._tiles.level or not 0 < side <= min(height - y, width - x):
            raise Undecodable(f"it has no part {part!r} at level {self._tiles.level}; correct the part or tiles.level")
        return side, y, x

    def _piece(self, index: int) -> Piece:
        """A strip or tile of the file, decoded: [h, w, C], or None where the file leaves it empty."""
        with self._lock:
            if index in self._pieces:
                self._pieces.move_to_end(index)
                return self._pieces[index]
            try:
                piece = self._decoded(index)
            except Undecodable:
                raise
            except Exception as error:  # decoders raise any type on damaged bytes
                if "imagecodecs" in str(error):
                    raise needs_extra("TIFF images that are compressed like these", "imagecodecs") from error
                raise Undecodable("the TIFF's pieces are damaged or cut off; replace or remove it") from error
            self._pieces[index] = piece
            while sum(kept.nbytes for kept in self._pieces.values() if kept is not None) > KEPT_BYTES:
                self._pieces.popitem(last=False)
            return piece

    def _decoded(self, index: int) -> Piece:
        offset, size = self._page.dataoffsets[index], self._page.databytecounts[index]
        if size == 0:
            return None
        self._tiff.filehandle.seek(offset)
        data = self._tiff.filehandle.read(size)
        if len(data) < size:
            raise ValueError("cut off")
        check_announced(data, *reversed(_piece_size(self._page)))
        piece = self._page.decode(data, index, jpegtables=self._page.jpegtables)[0]
        return None if piece is None else np.asarray(piece)[0]

    @staticmethod
    def _paste(out: Pixels, piece: Piece, top: int, left: int) -> None:
        """Copy the part of a piece that lies inside `out`; top and left may be negative."""
        if piece is None:
            return
        inside = piece[max(-top, 0) : len(out) - top, max(-left, 0) : len(out) - left]
        y, x = max(top, 0), max(left, 0)
        out[y : y + inside.shape[0], x : x + inside.shape[1]] = inside


def tissue(pixels: Pixels) -> float:
    """The share of a tile [H, W, 3] uint8 that is tissue."""
    dark, bright = pixels.min(axis=2) < WHITE * 255, pixels.max(axis=2) > BLACK * 255
    return float((dark & bright).mean())


def _level(tiff: Any, number: int) -> Any:
    """A level of the pyramid: one that the format declares, or the following tiled pages of the same picture."""
    if len(tiff.pages) > MOST_PAGES:  # asked first: it also ends chains of pages that lead back to themselves
        raise Undecodable(f"the TIFF holds {len(tiff.pages)} pages and is no slide; save one image per file")
    levels = [level.keyframe for level in tiff.series[0].levels]
    if len(levels) == 1:
        ratio = levels[0].imagewidth / levels[0].imagelength
        for page in tiff.pages[1:]:
            alike = abs(page.imagewidth / page.imagelength / ratio - 1) < SAME_ASPECT
            if page.is_tiled and alike and page.imagewidth < levels[-1].imagewidth:
                levels.append(page)
    if number >= len(levels):
        raise Undecodable(f"the TIFF has {len(levels)} levels, counted from 0; lower tiles.level")
    return levels[number]


def _checked(page: Any) -> Any:
    """Raises Undecodable for a page that is no flat picture or not stored in pieces of sensible size."""
    sizes = (page.imagelength, page.imagewidth, *_piece_size(page))
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise Undecodable("the TIFF's sizes are no whole numbers; replace or remove it")
    if page.axes not in ("YX", "YXS") or page.dtype is None or page.dtype.kind not in "ub":
        raise Undecodable("the TIFF is neither grey nor RGB; save it as a plain grey or RGB image")
    if page.samplesperpixel not in (1, 3, 4):
        raise Undecodable(f"the image has {page.samplesperpixel} channels; save it as a grey or RGB image")
    if page.compression not in (*raster.EXACT, *ANNOUNCED):
        raise Undecodable("the TIFF is compressed unusually; save it with LZW, deflate, JPEG or JPEG 2000")
    if page.is_memmappable:
        return page
    high, wide = _piece_size(page)
    if high * wide > MAX_PIXELS:
        raise Undecodable("the TIFF is stored in one piece; save it as a tiled TIFF")
    pieces = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    ends = max((offset + size for offset, size in pieces), default=0)
    if len(pieces) != -(-page.imagelength // high) * -(-page.imagewidth // wide) or ends > page.parent.filehandle.size:
        raise Undecodable("the TIFF is cut off or does not say where its pieces lie; replace or remove it")
    return page


def _piece_size(page: Any) -> tuple[int, int]:
    return (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
