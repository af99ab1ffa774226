"""The lives of one store: opened, worked with, killed, opened again, on one disk after another.

A crash is planned for a call to come. From the call on the process is dead (`Hands`); the program notices after the
operation and `reopen` takes over: a kill leaves the disk as it is, a power cut leaves what the platter has. Reopening
may itself be cut short, again and again, and a disk that still fails may refuse it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from leafdb.errors import StorageError, StoreFailed
from leafdb.sim.store_disk import Hands, Rubbish
from leafdb.sim.store_machine import Machine
from leafdb.sim.store_model import Life, StoreModel, difference
from leafdb.sim.store_plan import DEATHS, StorePlan
from leafdb.sim.store_rest import check_files
from leafdb.sim.trace import Trace
from leafdb.storage.committer import Waiter
from leafdb.storage.wal import segment_numbers, segment_path
from leafdb.storage.wal_format import HEADER_BYTES
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import Durability, TreeId
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import MemoryFileSystem

OPENINGS_MAX: Final = 12
GRACE: Final = 3
"""Operations for which a failed store is still asked."""

Found = tuple[int, list[TreeId]]
"""What a recovery found: how many writes, which trees."""


class StoreLife:
    """See the module."""

    def __init__(self, plan: StorePlan, rng: Random, trace: Trace) -> None:
        self.plan = plan
        self.rng = rng
        self.trace = trace
        self.model: StoreModel = StoreModel()
        self.rubbish: Rubbish = Rubbish()
        self.disk: MemoryFileSystem = MemoryFileSystem()
        self.now_s: float = 100.0
        self.on_opened: Callable[[Machine], None] = lambda machine: None
        """Told of each opening, before the model goes back to what was found."""
        self.on_call: Callable[[str, str], None] | None = None
        """Told of each call that changes something on the disk, from the next opening on."""
        self.birth: int = 0
        """Counts the processes: an answer to an earlier one means nothing."""
        self.machine: Machine
        self.hands: Hands = Hands(self.disk, trace, self.rubbish)
        self._closing = self._closed = False
        self._death = "kill"
        self._grace = 0
        self._required = 0
        self._all_durable = True
        self._clean: bool | None = None
        """Whether the next opening must call the last end clean; None: it may."""

    @property
    def dead(self) -> bool:
        return self.hands.dead

    def over(self) -> bool:
        """The process is dead or closed, or its store has failed and had its time to say so."""
        if self._closed or self.dead:
            return True
        if self.machine.failures:
            self._grace -= 1
        return self._grace < 0

    # -- what the program is told

    def waiter(self, lsn: int, durability: Durability) -> Waiter:
        """What a write of that number is answered with."""
        birth = self.birth

        def answered(error: StorageError | None) -> None:
            if birth != self.birth or self.dead:
                return
            if error is None:
                self.model.acknowledged(lsn, durability)
            else:
                self.expect_failed(error)

        return answered

    def noting(self, tree: Life, *, created: bool = False, gone: bool = False) -> Callable[[], None]:
        """What the store calls when a tree's creation or drop is durable."""
        birth = self.birth

        def durable() -> None:
            if birth == self.birth and not self.dead:
                tree.created = tree.created or created
                tree.gone = tree.gone or gone

        return durable

    def attempt(self, call: Callable[[], object]) -> None:
        """Call the store; a failure must be one that the world has caused."""
        try:
            call()
        except StorageError as error:
            self.expect_failed(error)

    def expect_failed(self, error: StorageError, *, reading: bool = False) -> None:
        """An error is right when the process ends or is dead, or the world has failed it."""
        if self.dead or self._closed or self._closing:
            return
        blamed = self.hands.world_errors > 0 and (isinstance(error, StoreFailed) or reading)
        require(blamed, Invariant.SELF_CHECK, f"{type(error).__name__} for nothing: {error}")

    # -- time and work

    def work(self, rng: Random) -> None:
        """After each operation: some of what waits to be done, and some time."""
        machine = self.machine
        if self._closed or rng.random() >= self.plan.diligence:
            return
        choice = rng.random()
        if choice < 0.5:
            machine.log_executor.run_pending(rng.choice((1, 3, None)))
        elif choice < 0.7:
            machine.read_executor.run_pending(rng.choice((1, None)))
        elif choice < 0.9:
            for _ in range(rng.choice((4, 12, 40))):
                machine.jobs.step()
        elif choice < 0.93:
            machine.settle()
        else:
            self.now_s += rng.choice((0.001, 0.02, 0.1, 1.0))
            machine.engine.on_time(self.now_s)
        if machine.failures:
            self.expect_failed(machine.failures[0])
        if self.disk.faults:
            self.disk.faults = [fault for fault in self.disk.faults if fault.seen < fault.at]

    def calm(self) -> None:
        """No more faults; a store that runs."""
        self._lift_faults()
        self.hands.strike_at = None
        if self.dead or self._closed or self.machine.failures:
            self.reopen()

    def _lift_faults(self) -> None:
        self.disk.faults.clear()
        self.disk.quota_bytes = None

    # -- looking

    def check(self) -> None:
        """Let the store come to rest and look at everything."""
        if self.dead or self._closed or self.machine.failures or self.disk.faults:
            return
        machine = self.machine
        machine.settle()
        if self.dead or machine.failures:
            return
        machine.engine.check()
        self._check_nothing_lost()
        for tree_id, life in self.model.trees().items():
            try:
                found = machine.contents(tree_id)
            except StorageError as error:
                self.expect_failed(error, reading=True)
                continue
            key, message = difference(life.items, found)
            require(not key, Invariant.PREFIX_DURABLE, f"tree {tree_id}, {message}", key)
        if not self.hands.world_errors:
            check_files(self.disk, self.plan, machine.engine.stats(), self.trace)

    def _check_nothing_lost(self) -> None:
        """Nothing was damaged here: a disk that did not answer once is no reason to give anything up."""
        lost = self.machine.engine.lost
        require(not lost, Invariant.PREFIX_DURABLE, f"given up as damaged, and it is not: {lost}")

    # -- ends

    def plan_death(self, calls: int, death: str = "") -> None:
        """The process dies at a call to come, of any cause if none is named, where the plan knows of such an end."""
        if self.hands.strike_at is None and not self.dead and self.plan.deaths:
            self._death = death or self.rng.choice(self.plan.deaths)
            self.hands.strike_at = self.hands.calls + calls

    def close(self) -> None:
        """An orderly end, which a planned death may still cut short."""
        if self._closed or self.dead:
            return
        if not self.machine.failures and self.rng.random() < 0.3:
            self.machine.settle()
        failed_before = bool(self.machine.failures)
        self._closing = True
        self.machine.engine.close()
        self._closing = False
        if self.hands.dead:
            self._clean = None
            return
        self._closed = True
        self._clean = not self.machine.failures
        self.trace.tell("store", "closed" if self._clean else "closed after its failure")
        if self._clean:
            self.model.all_durable()
            return
        self.expect_failed(self.machine.failures[0])
        if not failed_before:
            self._clean = None  # the mark is made last, of what is synced: it is right if only its name did not sync

    def reopen(self) -> None:
        """The next life, whatever ended this one."""
        if not self.dead and not self._closed:
            self.trace.probe("a store that failed")
            self._death = self.rng.choice(self.plan.deaths or DEATHS)
            if self.rng.random() < 0.3:
                self.close()
        self._die()
        self.open()

    def _die(self) -> None:
        """What the end leaves on the disk."""
        closed = self._closed
        if not closed:
            self.trace.fault(self._death, f"after {self.hands.last}, call {self.hands.calls}")
        self.count()
        self.hands.dead = True
        self.machine.jobs.close()
        power_cut = self.rng.random() < 0.5 if closed else self._death == "power cut"
        self._required = self.model.synced if power_cut else self.model.written
        self._all_durable = power_cut
        self._next_disk(power_cut=power_cut, keep=0.0 if closed else None)

    def count(self) -> None:
        """Into the probes what this process has done."""
        trace, stats = self.trace, self.machine.engine.stats()
        trace.probe("a flush", stats.flushes)
        trace.probe("a compaction", stats.compactions)
        trace.probe("a table dropped whole", stats.dropped_tables)
        trace.probe("windows merged", stats.windows_merged)
        trace.probe("a job that failed and was given again", stats.failed_jobs)
        trace.probe("a new manifest in mid-life", self.hands.created["MANIFEST"] - 1)
        trace.probe("values in files of their own", stats.value_files)
        trace.probe("values partly dead", stats.value_dead_bytes > 0)
        trace.probe("a value file gone", self.hands.unlinked["values"])

    def _next_disk(self, *, power_cut: bool, keep: float | None = None) -> None:
        """The disk as the next process finds it; what it was about to do wrong it still does."""
        faults, quota = self.disk.faults, self.disk.quota_bytes
        if power_cut:
            before, self.disk = self.disk, self.disk.power_cut(self.rng, keep=keep)
            self.disk.quota_bytes = None
            if "stale blocks" in self.plan.faults:
                before.faults = []
                self._stale_blocks(before)
        self.disk.faults = [fault for fault in faults if fault.seen < fault.at]
        self.disk.quota_bytes = quota
        self.disk.locks.clear()

    def _stale_blocks(self, before: MemoryFileSystem) -> None:
        """Where a write was lost and the file had grown, the disk may show what lay there before."""
        numbers = segment_numbers(self.disk)
        if not numbers or not self.rubbish.pieces or self.rng.random() < 0.3:
            return
        path = segment_path(numbers[-1])
        if not before.exists(path):  # the cut took back its removal
            return
        lost = len(read_file(before, path)) - len(read_file(self.disk, path))
        file = self.disk.open_append(path)
        if lost > 0 and file.size() >= HEADER_BYTES:
            # Often so that it begins with a frame, where one began.
            piece = self.rng.choice(self.rubbish.pieces)
            file.append(piece[HEADER_BYTES if self.rng.random() < 0.7 else 0 :][:lost])
            file.sync()
            self.trace.probe("stale blocks in the tail")
        file.close()

    # -- openings

    def open(self) -> None:
        """Open what is on the disk, dying in it perhaps, and compare it with the model."""
        expected: Found | None = None
        for attempt in range(OPENINGS_MAX):
            if attempt > OPENINGS_MAX // 2:  # whatever still fails, the world lets go in the end
                self._lift_faults()
            self.birth += 1
            self._closed = False
            self.disk.cold = self.rng.random() < self.plan.cold
            if expected is None and not self.disk.faults and self.disk.quota_bytes is None and self.rng.random() < 0.15:
                expected = self._rehearse()
            self.hands = hands = Hands(self.disk, self.trace, self.rubbish)
            self.disk.on_call = self.on_call
            if "crash while recovering" in self.plan.faults and attempt < 4 and self.rng.random() < 0.3:
                hands.strike_at = self.rng.randrange(1, 30)
            error: StorageError | None = None
            try:
                self.machine = Machine(hands, self.plan.config, lambda: self.now_s)
            except StorageError as problem:
                error = problem
            if error is None and not hands.dead:
                hands.strike_at = None
                self._opened(expected)
                return
            if self._not_opened(error):
                expected = None
        violated(Invariant.LIVENESS, f"the store did not open in {OPENINGS_MAX} attempts")

    def _rehearse(self) -> Found:
        """What a recovery of a copy finds."""
        hands = Hands(self.disk.power_cut(self.rng, keep=1.0), Trace(lambda: self.now_s), Rubbish())
        try:
            machine = Machine(hands, self.plan.config, lambda: self.now_s)
        except StorageError as error:
            violated(Invariant.PREFIX_DURABLE, f"the store does not open: {type(error).__name__}: {error}")
        found = machine.engine.stats().last_sequence, machine.engine.trees()
        machine.engine.abandon()
        return found

    def _not_opened(self, error: StorageError | None) -> bool:
        """An opening that failed, or died. Answers whether the next one may find less."""
        if self.dead:
            self.trace.probe("a crash in recovery")
            self.trace.tell("store", f"died while opening, after {self.hands.last}, call {self.hands.calls}")
        elif self.hands.world_errors:
            self.trace.probe("a disk failing in recovery")
            self.trace.tell("store", f"not opened: {error}")
        else:
            violated(Invariant.PREFIX_DURABLE, f"the store does not open: {type(error).__name__}: {error}")
        if self._clean:
            self._clean = None
        self.hands.dead = True
        power_cut = "power cut" in self.plan.faults and self.rng.random() < 0.5
        less = power_cut and not self._all_durable
        if less:
            self._required, self._all_durable = self.model.synced, True
        self._next_disk(power_cut=power_cut)
        return less

    def _opened(self, expected: Found | None) -> None:
        """Compare what is there with what may be."""
        machine, model, trace = self.machine, self.model, self.trace
        report = machine.engine.recovery
        lsn = machine.engine.stats().last_sequence
        when = f"opening {self.birth}"
        trace.tell("store", f"{when}: {lsn} writes of {model.last_lsn}, {self._required} required; {report}")
        require(lsn <= model.last_lsn, Invariant.NO_PHANTOMS, f"{when}: {lsn} writes found of {model.last_lsn}")
        if lsn < self._required:
            key = model.log[lsn][0].key.decode()
            violated(Invariant.PREFIX_DURABLE, f"{when}: {lsn} writes are left of {self._required} acknowledged", key)
        if expected is not None:
            found = lsn, machine.engine.trees()
            require(
                found == expected, Invariant.CRASH_IDEMPOTENT, f"{when}: {found} found, {expected} by another recovery"
            )
        if self._clean is not None:
            word = "clean" if report.clean else "not clean"
            require(report.clean == self._clean, Invariant.PREFIX_DURABLE, f"{when}: the last end is called {word}")
        self._probe_opening(lsn)
        self.on_opened(machine)
        self._clean = False
        self._grace = GRACE
        model.rewind(lsn)
        faults, self.disk.faults = self.disk.faults, []
        machine.engine.check()
        model.find_lives({tree_id: machine.contents(tree_id) for tree_id in machine.engine.trees()}, when)
        self.disk.faults = faults

    def _probe_opening(self, lsn: int) -> None:
        trace, report, hands = self.trace, self.machine.engine.recovery, self.hands
        trace.probe("a torn tail", report.torn_bytes > 0)
        trace.probe("records replayed", report.replayed_records > 0)
        trace.probe("a clean reopening", report.clean and not report.created)
        trace.probe("writes lost that nobody was promised", lsn < self.model.last_lsn)
        trace.probe("periodic writes lost to a power cut", lsn < self.model.written)
        trace.probe("a recovery that flushes", hands.created["tables"] > 0)
        trace.probe("orphan tables swept", hands.unlinked["tables"] > 0)
