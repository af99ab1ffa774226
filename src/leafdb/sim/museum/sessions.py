"""The room of sessions: a token that is carried about and does not do what it is for."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

GET: Final = "leafdb.node.get_driver"
PUT: Final = "leafdb.node.put_driver"
MEMORY: Final = "leafdb.client.session"
FLOOR: Final = "leafdb.quorum.get_operation"


def _session(name: str, title: str, *edits: tuple[str, str, str], seeds_max: int = 40, nodes: int = 3) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.CLUSTER,
        caught_by=(Invariant.SESSIONS,),
        seeds_max=seeds_max,
        nodes=nodes,
        operations=400,
    )


MUTATIONS: Final = (
    _session(
        "session-floor-ignored",
        "A coordinator answers a session with what r replicas had, whatever it has seen.",
        (
            GET,
            "    floor = open_floor(coordinator, place, request.floor) if request.floor else None\n",
            "    floor = None\n",
        ),
    ),
    _session(
        "session-floor-of-one-answer",
        "Below its floor a read asks for more and is content with whatever comes next.",
        (
            FLOOR,
            "        self.below = not floor.met_by(self.merged, vouched=self.vouched)\n",
            "        self.below = not self.below\n",
        ),
    ),
    _session(
        "observe-forgets",
        "Who observes a token takes over what was given up in it and not what stands in it.",
        (
            MEMORY,
            "            for place, seen in reversed(list(token.entries.items())):\n",
            "            for place, seen in reversed(list(token.entries.items())[:0]):\n",
        ),
    ),
    _session(
        "session-forgets-what-it-read",
        "A session remembers its writes only: its reads go back.",
        (
            MEMORY,
            '        """A read was answered with this context."""\n',
            '        """A read was answered with this context."""\n        return\n',
        ),
    ),
    _session(
        "blind-write-follows-nothing",
        "A session's write is minted wherever it comes, over a record that has nothing of what it wrote before.",
        (
            PUT,
            "    floor = open_floor(coordinator, place, request.floor) if request.floor else None\n",
            "    floor = None\n",
        ),
    ),
)
