"""Prints measurements as Markdown: the comparison, our own speed, and where the numbers come from."""

from collections.abc import Sequence
from typing import Any

from _rows import Row

Numbers = dict[str, Any]
# Largest relative difference of the first loss between sides that do the same work, by our precision.
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 2e-2}
HEADER = (
    "| work | method | precision | against | their tokens/s | ours | ratio (of each turn) "
    "| their GiB | ours | share of memory |"
)
SPEED_HEADER = (
    "| work | method | precision | ms a step | GFLOP/s | matrix product | share | evaluation ms | step / evaluation |"
)


def print_tables(rows: Sequence[Row], found: Sequence[Numbers], device: str) -> None:
    print(f"\n{HEADER}\n|{'---|' * HEADER.count(' |')}")
    pairs = [(row, measured(row, "peer", found, device), measured(row, "ours", found, device)) for row in rows]
    for row, peer, ours in pairs:
        print(comparison(row, peer, ours))
    print(f"\n{SPEED_HEADER}\n|{'---|' * SPEED_HEADER.count(' |')}")
    shown = set()
    for row, _, ours in pairs:
        if row.ours not in shown and "share_of_matrix_product" in ours[0]:
            print(speed(row, ours))
            shown.add(row.ours)
    print()
    for row, peer, ours in pairs:
        print(f"- {row.name}: {outcome(row, peer, ours)}")
        print(f"  `{row.command('peer', device)}`, `{row.command('ours', device)}`")
    print(f"\n{origin([numbers for _, peer, ours in pairs for numbers in (*peer, *ours)])}")


def measured(row: Row, side: str, found: Sequence[Numbers], device: str) -> list[Numbers]:
    """Returns the measurements of this row and side, in the order of the turns."""
    wanted = {"row": row.name, "side": side, "command": row.command(side, device)}
    return sorted((n for n in found if wanted.items() <= n.items()), key=lambda n: n["turn"])


def mean(measurements: Sequence[Numbers], name: str) -> float:
    return sum(float(numbers[name]) for numbers in measurements) / len(measurements)


def comparison(row: Row, peer: Sequence[Numbers], ours: Sequence[Numbers]) -> str:
    theirs, own = (mean(side, "tokens_per_second") for side in (peer, ours))
    turns = [b["tokens_per_second"] / a["tokens_per_second"] for a, b in zip(peer, ours, strict=True)]
    each = ", ".join(f"{ratio:.2f}" for ratio in turns)
    memory = [max(numbers["peak_memory_mib"] for numbers in side) / 1024 for side in (peer, ours)]
    cells = [row.task, row.method, row.precision, row.form, f"{theirs:,.0f}", f"{own:,.0f}"]
    cells += [f"{own / theirs:.2f} ({each})", f"{memory[0]:.2f}", f"{memory[1]:.2f}", f"{memory[1] / memory[0]:.0%}"]
    return f"| {' | '.join(cells)} |"


def speed(row: Row, ours: Sequence[Numbers]) -> str:
    flops, machine = (mean(ours, name) / 1e9 for name in ("flops_per_second", "matrix_product_flops_per_second"))
    step, evaluation = mean(ours, "ms_per_step"), mean(ours, "evaluation_ms_per_step")
    cells = [row.task, row.method, row.precision, f"{step:,.0f}", f"{flops:,.0f}", f"{machine:,.0f}"]
    cells += [f"{flops / machine:.0%}", f"{evaluation:,.0f}", f"{step / evaluation:.2f}"]
    return f"| {' | '.join(cells)} |"


def outcome(row: Row, peer: Sequence[Numbers], ours: Sequence[Numbers]) -> str:
    """Says whether both sides did the same work."""
    if "texts" in ours[0]:
        pairs = list(zip(peer[0]["texts"], ours[0]["texts"], strict=True))
        differing = sum(theirs != own for theirs, own in pairs)
        return f"{differing} of {len(pairs)} texts differ, {sum(len(own) for _, own in pairs):,} tokens"
    theirs, own = peer[0]["first_loss"], ours[0]["first_loss"]
    same = abs(theirs - own) <= LOSS_TOLERANCE[row.precision] * abs(theirs)
    return f"first loss {theirs:.5f} and {own:.5f}" + ("" if same else ": NOT THE SAME WORK")


def origin(everything: Sequence[Numbers]) -> str:
    """Names devices, dates, libraries and commits of all measurements."""
    places = [numbers["environment"] for numbers in everything]
    devices = {f"{place['device']}, {place['threads']} threads" for place in places}
    libraries = {f"{name} {place['libraries'][name]}" for place in places for name in ("torch", "transformers")}
    libraries |= {f"peft {numbers['peft']}" for numbers in everything if "peft" in numbers}
    commits = {place.get("commit", "unknown")[:8] for place in places}
    dates = {numbers["date"] for numbers in everything}
    return "; ".join(", ".join(sorted(kind)) for kind in (devices, dates, libraries, commits))
