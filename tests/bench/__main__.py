"""One figure of the shipper: `python -m tests.bench backfill|replay EVENTS`."""

from __future__ import annotations

import sys

from tests.bench.contenders import SHIPPER_NO_GEOIP, SHIPPER_ON, Task
from tests.bench.rig import Rig

if __name__ == "__main__":
    kind, count = sys.argv[1], int(sys.argv[2])
    with Rig() as rig:
        for contender in (SHIPPER_ON, SHIPPER_NO_GEOIP):
            cost = rig.measure(contender, Task(kind, kind, count))
            print(
                f"{contender.name} {kind} {count}: {cost.wall:.2f} s, {count / cost.wall:,.0f}/s, "
                f"{cost.cpu / count * 1e6:.1f} µs/event, {cost.rss / 2**20:.0f} MiB, {len(cost.asked)} requests"
            )
