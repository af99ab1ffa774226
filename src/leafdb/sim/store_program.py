"""The random program of the store tiers: what clients and the world do to one store, drawn operation by operation.

Each answer is compared with the model at once: a value is what was written last, an error is one the world has caused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

from leafdb.errors import DiskFull, StorageError
from leafdb.sim.store_bursts import StoreBursts
from leafdb.sim.store_life import StoreLife
from leafdb.sim.store_machine import Machine
from leafdb.sim.store_model import StoreModel, short
from leafdb.sim.store_plan import StorePlan
from leafdb.sim.store_snapshots import StoreSnapshots
from leafdb.sim.store_syncs import StoreSyncs
from leafdb.sim.store_windows import StoreWindows
from leafdb.sim.store_world import StoreWorld
from leafdb.sim.trace import Trace
from leafdb.storage.lsm_tree import Page
from leafdb.testing.violation import Invariant, require
from leafdb.types import Durability, TreeId

FIRST_TREE: Final = 300


class Program:
    """The random program of one seed: `run`, or its three parts."""

    def __init__(self, seed: int, plan: StorePlan, *, keep: bool) -> None:
        self.plan = plan
        self.rng: Random = Random(f"{seed}/program")
        self.trace: Trace = Trace(lambda: self.life.now_s, keep=keep)
        self.life: StoreLife = StoreLife(plan, Random(f"{seed}/world"), self.trace)
        self.model: StoreModel = self.life.model
        self.snapshots: StoreSnapshots = StoreSnapshots(
            self.life, Random(f"{seed}/snapshots"), Random(f"{seed}/snapshot cuts")
        )
        self.life.on_opened = self._opened
        self.bursts: StoreBursts = StoreBursts(self.life, Random(f"{seed}/bursts"), self._create_tree, self._drop_tree)
        self.syncs: StoreSyncs = StoreSyncs(self.life, Random(f"{seed}/syncs"), self._put_periodic)
        self.operations: int = 0
        self._values = 0
        self._trees = tuple(TreeId(FIRST_TREE + number) for number in range(plan.trees))
        self.windows: StoreWindows = StoreWindows(self.life, Random(f"{seed}/windows"), self._trees)
        world = StoreWorld(self.life, self.windows.tell, self.rng, Random(f"{seed}/aimed damage"))
        menu: list[tuple[float, Callable[[], None]]] = [
            (50, self._put),
            (8, self._batch),
            (22, self._get),
            (6, self._scan),
            (3, self._when_safe),
            (0.6, self._flush),
            (0.8, self._create),
            (0.4, self._drop),
            (0.8, self._check),
            (8 if not plan.config.auto_commit else 1, self._flush_batch),
            (100 / plan.crash_every, self._crash),
        ]
        for name, weight, operation in (
            ("clean close", 0.5, self._close),
            ("sync fails", 0.4, partial(world.fault, "sync")),
            ("write fails", 0.4, partial(world.fault, "append")),
            ("read fails", 0.4, partial(world.fault, "read_at")),
            ("disk full", 0.4, world.fill),
            ("damage", 1.0, world.damage),
        ):
            if name in plan.faults:
                menu.append((weight, operation))
        self._weights = [weight for weight, _ in menu]
        self._menu = [operation for _, operation in menu]

    def run(self, operations: int) -> None:
        self.begin()
        while self.operations < operations:
            self.step()
        self.end()

    def begin(self) -> None:
        """Open the store and make its trees."""
        life = self.life
        life.open()
        for tree_id in self._trees:
            self._create_tree(tree_id)
        life.machine.settle()

    def step(self) -> None:
        """One operation, and a new life if that ended this one."""
        life = self.life
        self.operations += 1
        (operation,) = self.rng.choices(self._menu, self._weights)
        operation()
        self.snapshots.turn()
        self.bursts.turn()
        self.syncs.turn()
        self.windows.turn(self._values)
        life.work(self.rng)
        if life.over():
            life.reopen()

    def end(self) -> None:
        """No more faults; look at everything, and close."""
        life = self.life
        life.calm()
        life.check()
        life.close()

    def _opened(self, machine: Machine) -> None:
        self.snapshots.opened(machine)
        self.windows.tell(machine)

    # -- writing

    def _value(self) -> bytes | None:
        """A value nobody wrote before; it begins with its number."""
        rng = self.rng
        if rng.random() < 0.15:
            return None
        self._values += 1
        number = b"%d." % self._values
        size = rng.randrange(self.plan.value_bytes_max)
        return number + (rng.randbytes(size) if rng.random() < 0.5 else bytes(size))

    def _key(self) -> bytes:
        return b"k%03d" % self.rng.randrange(self.plan.keys)

    def _put(self) -> None:
        self._write([(self._tree(), self._key(), self._value())])

    def _put_periodic(self) -> None:
        self._write([(self._tree(), self._key(), self._value())], Durability.PERIODIC)

    def _batch(self) -> None:
        trees = [self._tree() for _ in range(self.rng.randrange(1, 6))]
        if len(set(trees)) > 1:
            self.trace.probe("a batch over trees")
        self._write([(tree_id, self._key(), self._value()) for tree_id in trees])

    def _tree(self) -> TreeId:
        """A tree that is there; TreeId(0) if there is none."""
        usable = sorted(self.model.trees())
        return self.rng.choice(usable) if usable else TreeId(0)

    def _write(self, entries: list[tuple[TreeId, bytes, bytes | None]], durability: Durability | None = None) -> None:
        rng, model, life = self.rng, self.model, self.life
        if durability is None:
            durability = Durability.PERIODIC if rng.random() < self.plan.periodic else Durability.ALWAYS
        polite = rng.random() < 0.95
        if entries[0][0] == 0:
            return
        if polite and not self._admitted():
            return
        lsn = model.write(entries)
        told = ", ".join(f"{key.decode()} of {tree_id} = {short(value)}" for tree_id, key, value in entries)
        self.trace.tell("program", f"write {lsn} {durability.name}: {told}", entries[0][1].decode())
        try:
            found = life.machine.engine.write(entries, durability, life.waiter(lsn, durability))
        except StorageError as error:
            if not life.dead:
                model.unwrite()
                life.expect_failed(error)
            return
        require(found == lsn, Invariant.SELF_CHECK, f"write {lsn} got the number {found}")

    def _admitted(self) -> bool:
        try:
            wait_s = self.life.machine.engine.admit()
        except DiskFull:
            self.trace.probe("writers refused: the disk is full")
            return False
        except StorageError as error:
            self.life.expect_failed(error)
            return False
        if wait_s > 0:
            self.trace.probe("writers slowed")
            self.life.now_s += wait_s
        return wait_s == 0 or self.rng.random() < 0.5

    def _when_safe(self) -> None:
        if self.model.last_lsn:
            lsn = self.rng.randrange(max(1, self.model.last_lsn - 20), self.model.last_lsn + 1)
            durability = self.rng.choice((Durability.ALWAYS, Durability.PERIODIC))
            self.life.machine.engine.when_safe(lsn, durability, self.life.waiter(lsn, durability))

    def _flush_batch(self) -> None:
        self.life.machine.engine.flush_batch()

    def _flush(self) -> None:
        self.life.attempt(lambda: self.life.machine.engine.flush_soon())

    # -- reading

    def _get(self) -> None:
        tree_id, key = self._tree(), self._key()
        if not tree_id:
            return
        life = self.life
        expected = self.model.trees()[tree_id].items.get(key)
        try:
            slot = life.machine.engine.get_now(tree_id, key)
            if slot is None:
                self.trace.probe("a read that waits for the disk")
                life.machine.engine.get_soon(tree_id, key, partial(self._answered, life.birth, tree_id, key, expected))
            else:
                self._answered(life.birth, tree_id, key, expected, slot)
        except StorageError as error:
            life.expect_failed(error, reading=True)

    def _answered(
        self,
        birth: int,
        tree_id: TreeId,
        key: bytes,
        expected: bytes | None,
        answer: tuple[bytes | None, int] | StorageError,
    ) -> None:
        if birth != self.life.birth or self.life.dead:
            return
        if isinstance(answer, StorageError):
            self.life.expect_failed(answer, reading=True)
            return
        value, lsn = answer
        name = key.decode()
        if value != expected:
            message = f"{name} of tree {tree_id} reads {short(value)} where {short(expected)} was written"
            invariant = Invariant.NO_PHANTOMS if expected is None else Invariant.PREFIX_DURABLE
            require(False, invariant, message, name)
        require(
            lsn == 0 or any(change.key == key and change.value == value for change in self.model.log[lsn - 1]),
            Invariant.SELF_CHECK,
            f"{name} of tree {tree_id}: sequence {lsn} is not that of its write",
            name,
        )

    def _scan(self) -> None:
        tree_id, rng = self._tree(), self.rng
        first, second = self._key(), self._key()
        start, stop = (first, second) if first < second else (first, None)
        limit, reverse = rng.choice((1, 3, 10, 1_000)), rng.random() < 0.4
        bytes_max = rng.choice((100, 1 << 20))
        if not tree_id:
            return
        items = self.model.trees()[tree_id].items
        expected = sorted(
            ((key, value) for key, value in items.items() if start <= key and (stop is None or key < stop)),
            reverse=reverse,
        )
        done = partial(self._scanned, self.life.birth, tree_id, expected, reverse)
        self.life.attempt(
            lambda: self.life.machine.engine.scan_soon(
                tree_id, start, stop, limit=limit, bytes_max=bytes_max, reverse=reverse, done=done
            )
        )

    def _scanned(
        self, birth: int, tree_id: TreeId, expected: list[tuple[bytes, bytes]], reverse: bool, page: Page | StorageError
    ) -> None:
        if birth != self.life.birth or self.life.dead:
            return
        if isinstance(page, StorageError):
            self.life.expect_failed(page, reading=True)
            return
        if reverse:
            self.trace.probe("a scan in reverse")
        end = page.next_key
        if end is not None:
            self.trace.probe("a page that ends before its range")
            expected = [item for item in expected if (item[0] >= end if reverse else item[0] < end)]
        if page.items != expected:
            found, wanted = dict(page.items), dict(expected)
            differing = [key for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)]
            name = differing[0].decode() if differing else "the order"
            message = f"a scan of tree {tree_id} is wrong at {name}: {len(found)} items where {len(wanted)} are due"
            require(
                False, Invariant.NO_PHANTOMS if len(found) > len(wanted) else Invariant.PREFIX_DURABLE, message, name
            )

    # -- trees

    def _create(self) -> None:
        absent = [tree_id for tree_id in self._trees if not self.model.usable(tree_id)]
        if absent:
            self._create_tree(self.rng.choice(absent))
            self._close_perhaps()

    def _create_tree(self, tree_id: TreeId) -> None:
        life = self.life
        before = bool(self.model.lives.get(tree_id))
        tree = self.model.create(tree_id)
        self.trace.tell("program", f"create tree {tree_id}")
        try:
            life.machine.engine.create_tree(tree_id, life.noting(tree, created=True))
        except StorageError as error:
            if not life.dead:
                self.model.lives[tree_id].remove(tree)
                if not self.model.lives[tree_id]:
                    del self.model.lives[tree_id]
                if "was dropped and its records" in error.message:
                    self.trace.probe("a tree refused: its number is in the log")
                else:
                    life.expect_failed(error)
            return
        if before:
            self.trace.probe("a tree made again")

    def _drop(self) -> None:
        tree_id = self._tree()
        if tree_id and self._drop_tree(tree_id):
            self._close_perhaps()

    def _drop_tree(self, tree_id: TreeId) -> bool:
        """False: the store refuses."""
        life = self.life
        self.trace.tell("program", f"drop tree {tree_id}")
        tree = self.model.drop(tree_id)
        try:
            life.machine.engine.drop_tree(tree_id, life.noting(tree, gone=True))
        except StorageError as error:
            if not life.dead:
                tree.dropped = False
                life.expect_failed(error)
            return False
        self.trace.probe("a tree dropped")
        return True

    def _close_perhaps(self) -> None:
        """Close right behind a change of the trees, while it is on its way to the manifest."""
        if self.rng.random() < 0.3 and "clean close" in self.plan.faults:
            self._close()

    # -- the world

    def _check(self) -> None:
        self.life.check()

    def _crash(self) -> None:
        self.life.plan_death(self.rng.choice((1, 1, 2, 4, 8, 16, 40)))

    def _close(self) -> None:
        self.life.close()
