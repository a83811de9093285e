"""The jobs that a worker has, as the daemon knows them: what may be said of each, and by when it must be.

What comes from the worker is believed as far as it fits what was asked of it. A job has one input, so many tokens and so many
pieces ahead: whatever is beyond that, or late, is no sound worker's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

from ...protocol.errors import Code, EngineError, RemoteProtocolError
from .answers import Answer, OpenJob
from .areas import Areas
from .messages import Cancel, Cancelled, Credit, EngineJob, EnginePiece, Failed
from .startup import error_untrusted


class Jobs:
    """The open jobs of the worker that now runs."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: dict[bytes, OpenJob] = {}
        self._beats = 0
        """Steps without a piece that the open jobs may still need, all together."""

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, job_id: bytes) -> bool:
        return job_id in self._open

    @property
    def bundles(self) -> frozenset[bytes]:
        """Of which there is a job."""
        return frozenset(job.bundle for job in self._open.values())

    @property
    def working(self) -> frozenset[bytes]:
        """Bundles of jobs about which the worker has to say something."""
        return frozenset(job.bundle for job in self._open.values() if job.awaits_word)

    @property
    def due(self) -> float:
        """When a job is overdue of which the worker has not said what it has to, in trio's time."""
        return min((job.due for job in self._open.values()), default=inf)

    def open(self, job: EngineJob, areas: Areas, tell: Callable[[EngineJob | Credit], None]) -> Answer:
        """The worker is told of the job."""
        area = min(set(range(self.most)) - {each.area for each in self._open.values()})

        def grant(pieces: int) -> None:
            if self._open.get(job.id) is opened:
                tell(Credit(job.id, pieces))

        opened = self._open[job.id] = OpenJob(job, area, grant)
        self._beats += opened.beats
        area_bytes = areas.put(area, job.sealed, answer=False)
        tell(replace(job, sealed=b"" if area_bytes else job.sealed, area=area, area_bytes=area_bytes))
        return opened.answer

    def cancel(self, job_id: bytes, tell: Callable[[Cancel], None]) -> None:
        """The worker is told, once, if the job is open."""
        if (job := self._open.get(job_id)) and not job.cancelled:
            job.cancel()
            tell(Cancel(job_id))

    def take_untrusted(self, message: EnginePiece | Failed | Cancelled, areas: Areas) -> None:
        """The word has reached its job. Raises `RemoteProtocolError` if it does not fit that job's state, or there is none."""
        job = self._open.get(message.id)
        if job is None:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, f"{type(message).__name__} came of a job that is not open.")
        if isinstance(message, EnginePiece):
            job.add_untrusted(_whole_untrusted(message, areas, job.area))
            if not message.end:
                return
        elif isinstance(message, Failed):
            job.fail(error_untrusted(message))
        elif not job.cancelled:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A job was given up that nobody had cancelled.")
        self._close(message.id)

    def beat_untrusted(self) -> None:
        """A step gave no piece. Raises `RemoteProtocolError` if no open job can have taken it.

        Each such step takes some job further by a token, or an input, at least. By which job, is not said.
        """
        if not self.working:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A step was done, and no open job waits for one.")
        if not self._beats:
            raise RemoteProtocolError(
                Code.TOO_MANY_STEPS,
                "It took more steps that gave no piece than its jobs can need: one for each of their tokens and inputs.",
            )
        self._beats -= 1

    def postpone(self, seconds: float) -> None:
        """Nothing could be done for them so long."""
        for job in self._open.values():
            job.postpone(seconds)

    def fail(self, error: EngineError, bundle: bytes | None = None) -> None:
        """All jobs, or all of one bundle, have ended with this error."""
        for job_id, job in list(self._open.items()):
            if bundle in (None, job.bundle):
                self._close(job_id).fail(error)

    def _close(self, job_id: bytes) -> OpenJob:
        closed = self._open.pop(job_id)
        self._beats = min(self._beats, sum(job.beats for job in self._open.values()))
        return closed


def _whole_untrusted(piece: EnginePiece, areas: Areas, area: int) -> EnginePiece:
    """The piece with what it left in shared memory. Raises `RemoteProtocolError` if there is nothing sealed in it."""
    if bool(piece.sealed) == bool(piece.area_bytes):
        raise RemoteProtocolError(Code.BAD_RECORD, "A piece lies in its message or in memory, and in one of them only.")
    if not piece.area_bytes:
        return piece
    return replace(piece, sealed=areas.take_untrusted(area, piece.area_bytes, answer=True), area_bytes=0)
