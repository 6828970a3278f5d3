"""
An administrator in a hurry, and a model of the names that the pool should know: each with its size and a stamp that tells
contents apart. When the server is killed, the pool has to be as before the last command or as after it, never between.
"""

import copy
import random
import threading
import traceback

from agent import Gone, Refused, control
from stamps import stamp

SIZES = [1 << 20, 3 << 20, (1 << 20) + 512, 1 << 30]
KINDS = ["create", "snapshot", "clone", "fork", "rollback", "rename", "rename_snapshot", "resize", "rm", "stamp"]


class Entry:
    """A volume or snapshot: `owner` is the volume that a snapshot was taken of, whatever its name is now."""

    def __init__(self, uid, size, content, owner=None):
        self.uid = uid
        self.size = size
        self.content = content
        self.owner = owner


class Administrator:
    def __init__(self, socket, control, seed):
        self.socket = socket
        self.control = control
        self.random = random.Random(seed)
        self.before = {}
        self.after = {}
        self.serial = 0
        self.done = {}
        self.problems = []
        self.thread = None

    def start(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while True:
                self.step()
        except Gone:
            pass  # Killed, as it should be.
        except Exception:
            self.problems.append(traceback.format_exc())

    def step(self):
        names = [name for name in self.before if "@" not in name]
        snapshots = [name for name in self.before if "@" in name]
        kinds = ["create"]
        if names:
            kinds += ["snapshot", "snapshot", "clone", "rename", "resize", "stamp", "stamp", "rm"]
        if snapshots:
            kinds += ["fork", "rollback", "rename_snapshot", "rm"]
        kind = "rm" if len(self.before) > 24 else self.random.choice(kinds)
        self.serial += 1
        # The model first: what the pool should be once the command is done.
        self.after = copy.deepcopy(self.before)
        try:
            getattr(self, kind)(names, snapshots)
        except Refused:
            # Refused is refused whole. Whether it should be is for other tests.
            self.after = self.before
            self.count("refused")
            return
        self.before = self.after
        self.count(kind)

    def count(self, kind):
        self.done[kind] = self.done.get(kind, 0) + 1

    def new_name(self):
        """Often one that was used before."""
        return f"v{self.random.randrange(12)}"

    def create(self, _names, _snapshots):
        name, size = self.new_name(), self.random.choice(SIZES)
        if name not in self.after:
            self.after[name] = Entry(self.serial, size, "")
        control(self.control, verb="create", name=name, size_bytes=size)

    def snapshot(self, names, _snapshots):
        chosen = self.random.sample(names, min(len(names), self.random.choice((1, 1, 3))))
        taken = [f"{name}@s{self.random.randrange(4)}" for name in chosen]
        for name, snapshot in zip(chosen, taken):
            of = self.after[name]
            self.after[snapshot] = Entry(self.serial, of.size, of.content, of.uid)
        control(self.control, verb="snapshot", names=taken)

    def clone(self, names, _snapshots):
        self.clone_of(self.random.choice(names))

    def fork(self, _names, snapshots):
        source = self.random.choice(snapshots)
        of = self.after[source]
        count = self.random.choice((1, 3))
        for number in range(1, count + 1):
            self.after[f"f{self.serial}-{number}"] = Entry(f"{self.serial}.{number}", of.size, of.content)
        control(self.control, verb="fork", source=source, count=count, name=f"f{self.serial}-%d")

    def clone_of(self, source):
        name = self.new_name()
        of = self.after[source]
        self.after[name] = Entry(self.serial, of.size, of.content)
        control(self.control, verb="clone", source=source, name=name)

    def rollback(self, _names, snapshots):
        snapshot = self.random.choice(snapshots)
        of = self.after[snapshot]
        volume = self.after.get(snapshot.split("@")[0])
        if volume is not None:
            kept = next(name for name in self.kept_names(snapshot) if name not in self.after)
            self.after[kept] = Entry(self.serial, volume.size, volume.content, volume.uid)
            volume.size, volume.content = of.size, of.content
        control(self.control, verb="rollback", snapshot=snapshot, force=True)

    def kept_names(self, snapshot):
        return (f"{snapshot.split('@')[0]}@before-rollback-{number}" for number in range(1, 1000))

    def rename(self, names, _snapshots):
        old, new = self.random.choice(names), self.new_name()
        volume = self.after.pop(old)
        moved = [name for name, entry in self.after.items() if entry.owner == volume.uid]
        for name in moved:
            self.after[f"{new}@{name.split('@')[1]}"] = self.after.pop(name)
        self.after[new] = volume
        control(self.control, verb="rename", **{"from": old, "to": new})

    def rename_snapshot(self, _names, snapshots):
        old = self.random.choice(snapshots)
        new = f"{old.split('@')[0]}@s{self.random.randrange(8)}"
        self.after[new] = self.after.pop(old)
        control(self.control, verb="rename", **{"from": old, "to": new})

    def resize(self, names, _snapshots):
        name, size = self.random.choice(names), self.random.choice(SIZES)
        self.after[name].size = size
        control(self.control, verb="resize", name=name, size_bytes=size, force=True)

    def rm(self, names, snapshots):
        everything = names + snapshots
        doomed = self.random.sample(everything, min(len(everything), self.random.choice((1, 2, 8))))
        for name in doomed:
            del self.after[name]
        control(self.control, verb="rm", names=doomed, dry_run=False, force=True)

    def stamp(self, names, _snapshots):
        name = self.random.choice(names)
        self.after[name].content = f"stamp {self.serial}"
        stamp(self.socket, name, self.after[name].content)


administrator = None


def names_begin(**options):
    global administrator
    administrator = Administrator(**options)


def names_start():
    administrator.start()


def names_never_done():
    """The kinds of command of which none has succeeded yet; none once something has gone wrong."""
    if administrator.problems or not administrator.thread.is_alive():
        return []
    return [kind for kind in KINDS if kind not in administrator.done]


def names_stop():
    """After the server is gone: the two states of which one has to be there."""
    administrator.thread.join(60)
    states = [
        {name: {"size": entry.size, "content": entry.content} for name, entry in state.items()}
        for state in (administrator.before, administrator.after)
    ]
    return {"states": states, "problems": administrator.problems}


def names_go_on_from(which):
    """Goes on from the state that was found."""
    administrator.before = [administrator.before, administrator.after][which]


commands = {
    "names_begin": names_begin,
    "names_start": names_start,
    "names_stop": names_stop,
    "names_never_done": names_never_done,
    "names_go_on_from": names_go_on_from,
}
