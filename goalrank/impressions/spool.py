"""Rows sorted into days on disk, so that a file of any size and order is worked through a day at a time."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from goalrank.impressions.reading import DAY, ROWS

_OPEN_FILES = 64


class Spool:
    """Files of ROWS by day (days since 1970) in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[int, list[Path]] = defaultdict(list)
        self._open: dict[int, pa.RecordBatchFileWriter] = {}
        self.rows: dict[int, int] = defaultdict(int)
        folder.mkdir()

    @property
    def days(self) -> list[int]:
        """Days that have rows, oldest first."""
        return sorted(self.rows)

    def add(self, rows: pa.RecordBatch) -> None:
        """Sort the rows into their days."""
        day_R = rows["time"].to_numpy() // DAY
        for day in np.unique(day_R).tolist():
            part = rows.filter(pa.array(day_R == day))
            self._writer(day).write_batch(part)
            self.rows[day] += part.num_rows

    def _writer(self, day: int) -> pa.RecordBatchFileWriter:
        writer = self._open.pop(day, None)
        if writer is None:
            if len(self._open) >= _OPEN_FILES:  # close the one that was not written to for longest
                self._open.pop(next(iter(self._open))).close()
            file = self._folder / f"{day}-{len(self._files[day])}.arrow"
            self._files[day].append(file)
            writer = pa.ipc.new_file(file, ROWS, options=pa.ipc.IpcWriteOptions(compression="zstd"))
        self._open[day] = writer
        return writer

    def close(self) -> None:
        """Nothing more comes."""
        for writer in self._open.values():
            writer.close()
        self._open.clear()

    def read(self, day: int) -> pa.Table:
        """A day's rows in the order of the file; none where it has none."""
        tables = [pa.ipc.open_file(file).read_all() for file in self._files.get(day, ())]
        return pa.concat_tables(tables) if tables else ROWS.empty_table()

    def remove(self, day: int) -> None:
        """Free the disk of a day that is done."""
        for file in self._files.pop(day, ()):
            file.unlink()
