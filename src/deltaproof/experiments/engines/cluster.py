"""The Ray engine: every run a task on some node of a Ray cluster, with no file system shared.

A task carries what its run reads as bytes: the splits (the sealed one with final runs only), a model that lies in a
folder, a checkpoint. It brings back what its run wrote, which the driver puts into the run folder, the record last. The
run itself takes place as on a single machine, in a process of its own under a local engine on the node. Retries are
this engine's, not Ray's, so that a run that memory killed is tried again alone and a lost node is spoken of.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from deltaproof.data.ledger import record_opening
from deltaproof.data.run_folder import read_dataset
from deltaproof.errors import ConfigError, DeltaproofError
from deltaproof.experiments import wording
from deltaproof.experiments.engines import node
from deltaproof.experiments.engines.answers import facts_from, probe_from, record_from, stored
from deltaproof.experiments.engines.engine import OnProgress, Say, Stopped, ignore
from deltaproof.experiments.engines.local import surroundings
from deltaproof.experiments.engines.membership import Membership, first_line, nodes
from deltaproof.experiments.engines.node import Message
from deltaproof.experiments.engines.packing import Packer
from deltaproof.experiments.engines.parcel import Incoming
from deltaproof.experiments.engines.placement import asked_bytes, has_room, room_bytes, roomiest, runs_at_once
from deltaproof.experiments.engines.slots import Slots, plan_slots
from deltaproof.experiments.jobs import Facts, Job, Probe, Question
from deltaproof.records.record import Record
from deltaproof.records.store import Store

MOST_LOSSES = 5
"""Nodes or workers that may be lost under one run before it counts as failed."""
POLL_SECONDS, WAITING_SECONDS = 2.0, 15.0
"""How often a task that says nothing is looked after, and when one that has not begun is spoken of."""


Options = dict[str, Any]
"""What is asked of Ray for a task, by Ray's names."""


class _AskAgain(Exception):  # noqa: N818 - nothing went wrong
    """A task asked for what no node has any more, and can do with less."""


class RayEngine:
    """Runs jobs on the nodes of a Ray cluster; may be called from several threads."""

    def __init__(self, address: str | None, say: Say, memory: int | None = None) -> None:
        self._cluster, self._say, self._memory = Membership(address or "auto"), say, memory
        self._told = surroundings()
        if self._told.script is not None:
            raise ConfigError(
                f"a method must be registered in a module that nodes can import, got one in the script "
                f"`{self._told.script}`; put the class into a module that is installed on every node"
            )
        self._n_threads, self._gpu_share, self._peak_bytes = 1, 0.0, 0
        self._packer, self._counting = Packer(self._told.modules), threading.Lock()
        self._running: set[Any] = set()
        self._is_stopped = False
        self.open_slots(1)

    def start(self) -> None:
        """Connect to the cluster.

        Raises:
            MissingExtraError: ray is not installed. DeltaproofError: no cluster answers at the address.
        """
        self._cluster.join()

    def slots(self, device: str, n_workers: int | None) -> Slots:
        """As many runs as the cluster's processors, or accelerators, hold; threads as on the smallest node alone.

        Where the plan wants more runs than there are accelerators, they share them by equal fractions.
        """
        able = [found for found in nodes() if found.get("CPU", 0) >= 1]
        if not able:
            raise ConfigError("a cluster must have a node with a CPU, this one has none; see `ray status`")
        if device != "cpu":
            n_gpus = int(sum(found.get("GPU", 0) for found in able))
            if n_gpus == 0:
                raise ConfigError(f"the cluster must have accelerators for `{device}`, it has none; use `--device cpu`")
            each = math.ceil((n_workers or n_gpus) / n_gpus)
            self._gpu_share = 1 / each
            return Slots(min(n_workers or n_gpus, each * n_gpus), 1)
        on_each = None if n_workers is None else math.ceil(n_workers / len(able))
        self._n_threads = plan_slots(device, on_each, int(min(found["CPU"] for found in able))).n_threads
        room = max(1, sum(int(found["CPU"]) // self._n_threads for found in able))
        return Slots(min(n_workers or room, room), self._n_threads)

    def memory_bytes(self) -> float:
        return max((room_bytes(found, self._memory) for found in self._able()), default=0.0)

    def workers_in_memory(self, peak_memory_bytes: int, most: int) -> int:
        """Each node's memory counts by itself; tasks ask for that much memory from now on."""
        self._peak_bytes, able = peak_memory_bytes, self._able()
        asked = max(1, asked_bytes(able, peak_memory_bytes, self._memory))
        room = sum(
            min(runs_at_once(found, peak_memory_bytes, self._memory), int(found.get("memory", 0.0) // asked))
            for found in able
        )
        return max(1, min(most, room))

    def _able(self) -> list[dict[str, float]]:
        """The nodes on which a run can take place; memory that others have is of no use."""
        return [found for found in nodes() if has_room(found, {"CPU": self._n_threads, "GPU": self._gpu_share})]

    def open_slots(self, n_workers: int) -> None:
        self._slots = threading.Semaphore(n_workers)

    def look(self, question: Question) -> Facts:
        if question.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(
                f"on a cluster the device must be `auto`, `cpu` or `cuda`, got `{question.device}`; nodes choose which"
            )
        return facts_from(question, *self._attempt("look", question))

    def probe(self, job: Job) -> Probe:
        for is_alone in (False, True):
            kind, value = self._attempt("probe", job, is_alone=is_alone)
            if kind != "killed":
                return probe_from(job, kind, value)
        return Probe(out_of_memory=True)

    def run(self, job: Job, on_progress: OnProgress = ignore) -> Record:
        """The job's record, with all that the run wrote in the job's folder. A run that memory kills is tried once
        more, on a node that it has for itself; one whose node is lost is run again elsewhere."""
        for is_alone in (False, True):
            kind, value = self._attempt("run", job, on_progress, is_alone)
            if kind != "killed":
                return record_from(job, kind, value)
        reason = "the run was killed twice, the second time alone on its node: memory ran out"
        return stored(job, Record(job.spec, "out_of_memory", error=reason))

    def stop(self) -> None:
        import ray

        with self._counting:
            self._is_stopped = True
            for task in self._running if not self._cluster.is_lost else ():
                ray.cancel(task, force=True)

    def close(self) -> None:
        """Have the nodes delete their folders of this experiment, and leave the cluster if we joined it."""
        try:
            import ray
        except ImportError:
            return
        if self._cluster.is_lost or not ray.is_initialized():
            return
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        tasks = [
            ray.remote(node.clear)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(found["NodeID"], soft=False))
            .remote(name)
            for found in ray.nodes()
            if found["Alive"]
            for name in self._packer.experiments()
        ]
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=5)
        self._cluster.leave()

    def _attempt(
        self, errand: str, request: Job | Question, on_progress: OnProgress = ignore, is_alone: bool = False
    ) -> tuple[str, Any]:
        """What became of an errand, on another node where its node is lost; the kinds are those of the local engine."""
        import ray.exceptions as failures

        lost = (
            failures.WorkerCrashedError, failures.NodeDiedError, failures.LocalRayletDiedError,
            failures.ObjectLostError,
        )  # fmt: skip
        what = request.spec.contestant if isinstance(request, Job) else request.model
        n_lost = 0
        with self._slots:
            while n_lost < MOST_LOSSES:
                try:
                    return self._once(errand, request, on_progress, is_alone)
                except failures.OutOfMemoryError:
                    return "killed", None
                except failures.TaskCancelledError:
                    raise Stopped from None
                except _AskAgain:
                    continue
                except lost as error:
                    if self._is_stopped:
                        raise Stopped from None
                    self._cluster.check()
                    n_lost += 1
                    found = f"{what}: its node or worker was lost ({type(error).__name__})"
                    self._say(f"{found}: again elsewhere" if n_lost < MOST_LOSSES else f"{found} {n_lost} times")
                except failures.RayTaskError as error:
                    raise DeltaproofError(
                        f"every node must be able to run deltaproof, one could not: {first_line(error.cause)}; "
                        f"install deltaproof in the Python of every node"
                    ) from None
        return "error", f"the node or worker that ran it was lost {MOST_LOSSES} times"

    def _once(self, errand: str, request: Job | Question, on_progress: OnProgress, is_alone: bool) -> tuple[str, Any]:
        import ray

        parcel = self._packer.parcel(request)
        with self._counting:
            if self._is_stopped:
                raise Stopped
            options = self._options(request, is_alone)
            task = ray.remote(node.work).options(**options).remote(errand, request, parcel)
            self._running.add(task)
        incoming = Incoming(request.folder)
        try:
            for kind, *values in self._messages(task, options, lambda: self._options(request, is_alone)):
                if kind == "progress":
                    for said in values[0]:
                        on_progress(*said)
                elif kind == "piece":
                    incoming.take((values[0], values[1]))
                else:
                    self._settle(request, incoming, was_opened=values[2])
                    return values[0], values[1]
        finally:
            incoming.drop()
            with self._counting:
                self._running.discard(task)
        if self._is_stopped:
            raise Stopped
        return "error", "the task ended and left no word"

    def _messages(self, task: Any, options: Options, options_now: Callable[[], Options]) -> Iterator[Message]:
        """What a task says, as it comes; raises Ray's errors.

        Raises:
            _AskAgain: no node has what the task asks for, and less would do by now.
            DeltaproofError: the cluster is lost.
        """
        import ray

        has_begun, is_told, began = False, False, time.monotonic()
        while not self._is_stopped:
            ready, _ = ray.wait([task], timeout=POLL_SECONDS)
            self._cluster.check()
            if ready:
                try:
                    reference = next(task)
                except StopIteration:
                    return
                has_begun = True
                yield ray.get(reference)
            elif not has_begun and time.monotonic() - began > WAITING_SECONDS:
                is_told = self._tell_of_wait(task, options, options_now, is_told)

    def _tell_of_wait(self, task: Any, options: Options, options_now: Callable[[], Options], is_told: bool) -> bool:
        """Say once that no node can take a task, where that is so; returns whether it was said."""
        import ray

        def fits(wanted: Options) -> bool:
            asked = {"CPU": wanted["num_cpus"], "GPU": wanted["num_gpus"], "memory": wanted["memory"]}
            return any(has_room(found, asked) for found in nodes())

        if fits(options):
            return is_told  # nodes are busy, with other runs or with somebody else's
        if fits(options_now()):
            ray.cancel(task, force=True)
            raise _AskAgain
        if is_told:
            return True
        gpus = f", {options['num_gpus']:g} GPU" if options["num_gpus"] else ""
        self._say(
            f"{options['name']}: no node of the cluster has what it asks for ({options['num_cpus']} CPU{gpus}, "
            f"{wording.size(options['memory'])} of memory); it waits for one to join, see `ray status`"
        )
        return True

    @staticmethod
    def _settle(request: Job | Question, incoming: Incoming, was_opened: bool) -> None:
        """Put what came into the run folder, and enter an opening of the test split in this machine's ledger."""
        if not isinstance(request, Job):
            return
        if was_opened:
            record_opening(read_dataset(request.folder / "data", ()).test.fingerprint, request.spec.key)
        with Store(request.folder).lock(request.spec.key):
            incoming.settle()

    def _options(self, request: Job | Question, is_alone: bool) -> Options:
        """What a task asks of its node, as the cluster is now."""
        n_bytes = 0
        if isinstance(request, Question):
            name, n_cpus = f"look at {request.model}", 1
            n_gpus = float(request.device != "cpu" and any(found.get("GPU", 0) >= 1 for found in nodes()))
        else:
            name, n_cpus, able = request.spec.contestant, self._n_threads, self._able()
            n_gpus = 0.0 if request.device == "cpu" else self._gpu_share
            if self._peak_bytes and able:
                n_bytes = asked_bytes(able, self._peak_bytes, self._memory)
            if is_alone:
                n_cpus = max(n_cpus, int(roomiest(able).get("CPU", 1)))
                n_gpus = math.ceil(n_gpus)
        return {
            "name": name,
            "num_cpus": n_cpus,
            "num_gpus": n_gpus,
            "memory": n_bytes,
            "max_retries": 0,
            "num_returns": "streaming",
            "scheduling_strategy": "SPREAD",
        }
