"""What a redirected hit costs beside a disk hit of the same size: ``python -m tests.e2e.bench_redirects``.

Not a test: it prints figures, which mean something as ratios of one run only.  Wants ``wrk`` and Ceph.  Two proxies
take turns, one that keeps content on disk and sends it, one that redirects to a bucket; each round gives requests per
second, and the proxy's own CPU time (proc(5), stat) per 1000 requests.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from tests.e2e.processes import Workshop, run, wait_until
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.s3_house import make_house
from tests.e2e.scripts import Content, Served, blob, start_scripted

SIZES = (2_500, 100_000, 1_048_576, 8 * 1_048_576)
TICKS_S = 1 / os.sysconf("SC_CLK_TCK")

# Counts the different addresses and the requests of the one thread that wrk has.
COUNTING = """
local seen = {}
addresses, answers = 0, 0
function response(status, headers, body)
  answers = answers + 1
  local where = headers["Location"]
  if where and not seen[where] then seen[where] = true; addresses = addresses + 1 end
end
local threads = {}
function setup(thread) table.insert(threads, thread) end
function done(summary, latency, requests)
  for _, thread in ipairs(threads) do
    print(string.format("addresses=%d answers=%d", thread:get("addresses"), thread:get("answers")))
  end
end
"""


@frozen
class Round:
    """What one proxy did in one round."""

    requests_per_s: float
    cpu_per_1000_s: float


def cpu_s(pid: int) -> float:
    """Return how much CPU time a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICKS_S


def hit(proxy: Proxy, target: str, connections: int, duration_s: int) -> Round:
    """Ask for one thing again and again."""
    before_s = cpu_s(proxy.pid)
    printed = wrk(proxy, target, connections, duration_s)
    used_s = cpu_s(proxy.pid) - before_s
    found = re.search(r"(\d+) requests in ([\d.]+)(m?)s", printed)
    assert found and "Non-2xx or 3xx" not in printed and "Socket errors" not in printed, printed
    requests = int(found[1])
    return Round(requests / duration_s, used_s / requests * 1000)


def wrk(proxy: Proxy, target: str, connections: int, duration_s: int, *more: object) -> str:
    """Run wrk with one thread and return what it prints."""
    words = ["wrk", "-t1", f"-c{connections}", f"-d{duration_s}s", *more, f"http://127.0.0.1:{proxy.port}{target}"]
    return run(words, duration_s + 30)


def median(rounds: Sequence[Round]) -> Round:
    """Return the middle of each figure."""
    return Round(
        statistics.median(each.requests_per_s for each in rounds),
        statistics.median(each.cpu_per_1000_s for each in rounds),
    )


def compare(disk: Proxy, s3: Proxy, served: Served, connections: int, duration_s: int, rounds: int) -> str:
    """Let both take turns and return one line."""
    target = f"{served.target}?ns=docker.io"
    pairs = [[hit(each, target, connections, duration_s) for each in (disk, s3)] for _ in range(rounds)]
    on_disk, sent = (median(each) for each in zip(*pairs, strict=True))
    speed, cost = sent.requests_per_s / on_disk.requests_per_s, sent.cpu_per_1000_s / on_disk.cpu_per_1000_s
    return (
        f"{served.content.size_bytes:>9} {connections:>4}"
        f" {on_disk.requests_per_s:>9.0f} {sent.requests_per_s:>11.0f} {speed:>6.2f}"
        f" {on_disk.cpu_per_1000_s:>16.3f} {sent.cpu_per_1000_s:>20.3f} {cost:>6.2f}"
    )


def signatures(shop: Workshop, proxy: Proxy, served: Served, minutes: int) -> str:
    """Count the addresses that clients are given for one content in whole minutes of the clock."""
    script = shop.path / "counting.lua"
    script.write_text(COUNTING)
    time.sleep(60 - time.time() % 60)
    printed = wrk(proxy, f"{served.target}?ns=docker.io", 16, minutes * 60 - 2, "-s", script)
    found = re.search(r"addresses=(\d+) answers=(\d+)", printed)
    assert found, printed
    return f"{found[1]} addresses for one digest in {found[2]} redirects within {minutes} minute(s) of the clock"


def main() -> None:
    """Start both proxies, fill them, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--minutes", type=int, default=1, help="in which signatures are counted; 0 is not at all")
    options = parser.parse_args()
    shop, house = Workshop(), make_house()
    try:
        targets = [blob("library/thing", Content(size_bytes=size, seed=size)) for size in SIZES]
        upstream = start_scripted(shop, *targets)
        disk, s3 = start_proxy(shop, upstream.url), house.start_proxy(shop, upstream.url)
        for served in targets:
            for proxy in (disk, s3):
                assert proxy.ask("GET", f"{served.target}?ns=docker.io")[2] == served.content.data()
        house.wait_for_content(*(served.content.digest for served in targets))
        house.wait_for_uploads(s3)
        for served in targets:
            wait_until(lambda at=served.target: s3.ask("GET", f"{at}?ns=docker.io")[0] == 307, 10, "redirected")  # type: ignore[misc]
        print("    bytes    c    disk/s  redirect/s  ratio  disk CPU s/1000  redirect CPU s/1000  ratio")
        for connections in options.connections:
            for served in targets:
                print(compare(disk, s3, served, connections, options.seconds, options.rounds), flush=True)
        if options.minutes:
            print(signatures(shop, s3, targets[1], options.minutes))
    finally:
        shop.close()
        house.close()


if __name__ == "__main__":
    main()
