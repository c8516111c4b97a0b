"""The nodes that trained a sweep, where there were several."""

from collections import Counter

from sweeps.findings.results import Results
from sweeps.text import node_words, quantity


def node_lines(results: Results) -> list[str]:
    """What happened to each node, and how many attempts at trials ran there, if that is known; empty where
    there was one node."""
    events: dict[str, list[str]] = {}  # by the node, which is a host and its address
    for _, row in results.sweep.nodes:
        events.setdefault(row["host"], []).append(node_words(row))
    ran = Counter(attempt.host for attempt in results.attempts if attempt.host)
    hosts = Counter(_host(node) for node in events)
    events |= {host: [] for host in ran if host not in hosts}
    if len(events) < 2:
        return []
    return [
        f"`{node}`: {'; '.join([*dict.fromkeys(happened), *_ran(ran, hosts, _host(node))])}"
        for node, happened in events.items()
    ]


def _host(node: str) -> str:
    return node.partition(" (")[0]


def _ran(ran: Counter[str], hosts: Counter[str], host: str) -> list[str]:
    """How many attempts ran on a host, if any did and it has one node."""
    return [f"{quantity(ran[host], 'attempt')} at trials"] if ran[host] and hosts[host] < 2 else []
