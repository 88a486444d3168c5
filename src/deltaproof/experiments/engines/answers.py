"""What an engine makes of what became of an errand: a result, a user's error, or a record that says what went wrong."""

from typing import Any

from deltaproof.errors import DeltaproofError
from deltaproof.experiments.jobs import Facts, Job, Probe, Question
from deltaproof.records.record import Record
from deltaproof.records.store import Store


def facts_from(question: Question, kind: str, value: Any) -> Facts:
    """Of a look; raises the user's errors."""
    if kind == "result":
        return value  # type: ignore[no-any-return]
    if kind == "user_error":
        raise value
    if kind == "killed":
        raise DeltaproofError(
            f"`{question.model}` must fit into memory, the system killed the process that loaded it; "
            f"take a smaller model"
        )
    raise DeltaproofError(f"`{question.model}` must load, got an error:\n{value}")


def probe_from(job: Job, kind: str, value: Any) -> Probe:
    """Of a probe that was not killed; raises the user's errors."""
    if kind == "result":
        return value  # type: ignore[no-any-return]
    if kind == "user_error":
        raise value
    raise DeltaproofError(f"`{job.spec.contestant}` must be able to take a step, got an error:\n{value}")


def record_from(job: Job, kind: str, value: Any) -> Record:
    """Of a run that was not killed; raises the user's errors."""
    if kind == "result":
        return value  # type: ignore[no-any-return]
    if kind == "user_error":
        raise value
    return stored(job, Record(job.spec, "failed", error=value))


def stored(job: Job, record: Record) -> Record:
    """Write a record in place of a worker that could not; what another process has written since stands."""
    store = Store(job.folder)
    with store.lock(job.spec.key):
        found = store.find(job.spec.key)
        if found is not None and found.status == "done":
            return found
        store.write(record)
        return record
