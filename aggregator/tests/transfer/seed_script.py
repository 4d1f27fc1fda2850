"""Loads and continues nodes_status.csv and scan_count.txt as the script that wrote them first did.

Written for the test beside it. Usage: seed_script.py DIRECTORY FOUND…: one more scan, in which the
nodes FOUND are found and all others are not.
"""

import csv
import datetime
import math
import pathlib
import sys

directory, found = pathlib.Path(sys.argv[1]), sys.argv[2:]
table, counter = directory / "nodes_status.csv", directory / "scan_count.txt"

scans = int(counter.read_text().strip())
with table.open(newline="") as lines:
    nodes = list(csv.DictReader(lines))
for node in nodes:
    # A stamp without an offset: the script compares it with a clock that has none either.
    seen = datetime.datetime.fromisoformat(node["last_seen"])
    assert seen.tzinfo is None, node
    count, share = int(node["total_online_scans"]), float(node["uptime"])
    assert node["is_online"] in ("True", "False"), node
    assert math.isclose(share, count / scans * 100, abs_tol=1e-12), node
    assert repr(share) == node["uptime"], node
    node.update(last_seen=seen, total_online_scans=count)

scans += 1
now = datetime.datetime(2026, 2, 1, 12, 34, 56)
for node in nodes:
    node["is_online"] = node["issuer_id"] in found
    if node["is_online"]:
        node["last_seen"] = now
    node["total_online_scans"] += 1 if node["is_online"] else -1

counter.write_text(str(scans))
with table.open("w", newline="") as out:
    writer = csv.writer(out)
    writer.writerow(["issuer_id", "is_online", "last_seen", "total_online_scans", "uptime"])
    for node in nodes:
        count = node["total_online_scans"]
        row = [node["issuer_id"], node["is_online"], node["last_seen"], count]
        writer.writerow([*row, count / scans * 100])
