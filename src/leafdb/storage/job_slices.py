"""Any job as slices that end in its result or in a StorageError: the one entry for the worker and for inline runs."""

from __future__ import annotations

import errno
from collections.abc import Generator

from leafdb.errors import DiskFull, StorageError, StoreFailed
from leafdb.storage.compaction import compaction_slices
from leafdb.storage.flush import flush_slices
from leafdb.storage.jobs import CompactionJob, FlushJob, Job, JobResult, SalvageJob
from leafdb.storage.salvage import salvage_slices
from leafdb.vfs.base import FileSystem


def job_slices(fs: FileSystem, job: Job) -> Generator[None, None, JobResult]:
    """Run `job` in steps of a few milliseconds."""
    try:
        match job:
            case FlushJob():
                return (yield from flush_slices(fs, job))
            case CompactionJob():
                return (yield from compaction_slices(fs, job))
            case SalvageJob():
                return (yield from salvage_slices(fs, job))
    except OSError as error:
        raise world_error(error) from error


def world_error(error: OSError) -> StorageError:
    """What a failed call to the file system means for a job: no room, which passes, or a store not to be outlived."""
    path = str(error.filename or "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no room for the tables of a job: {error}", path=path)
    return StoreFailed(f"a job met {error}", path=path)
