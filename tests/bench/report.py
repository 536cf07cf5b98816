"""What the rounds have measured, as medians and as a table."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Figures = Mapping[str, float]

_LINES = {
    "start_to_ready": ("process start to Ready of a hook that waits", "s"),
    "one_alone": ("one alone, create to Ready", "s"),
    "create_all": ("create: all Ready", "s"),
    "create_p50": ("create: p50 to Ready", "s"),
    "create_p99": ("create: p99 to Ready", "s"),
    "create_cpu": ("create: CPU", "s"),
    "create_api_server_cpu": ("create: CPU of the API server until then", "s"),
    "memory": ("peak memory after that", "MB"),
    "edit_all": ("edit: all Ready", "s"),
    "edit_p99": ("edit: p99 to Ready", "s"),
    "edit_cpu": ("edit: CPU", "s"),
    "edit_api_server_cpu": ("edit: CPU of the API server until then", "s"),
    "restart_quiet": ("restart in sync: quiet after", "s"),
    "restart_cpu": ("restart in sync: CPU", "s"),
    "restart_memory": ("restart in sync: peak memory", "MB"),
    "resync_cpu": ("resync of all: CPU", "s"),
    "resync_calls": ("resync of all: calls of AS", ""),
    "delete_all": ("delete: all gone", "s"),
    "delete_p99": ("delete: p99 to gone", "s"),
    "delete_cpu": ("delete: CPU", "s"),
    "delete_api_server_cpu": ("delete: CPU of the API server until then", "s"),
}


def find_medians(rounds: Sequence[Mapping[str, Figures]]) -> dict[str, dict[str, float]]:
    """Return of each figure the operator's and the floor's median and minimum, and the median of the rounds' ratios."""
    found: dict[str, dict[str, float]] = {}
    for name in _LINES:
        values = {who: [each[who][name] for each in rounds if name in each[who]] for who in rounds[0]}
        line = found[name] = {}
        for who, of_who in values.items():
            if of_who:
                line |= {who: statistics.median(of_who), f"{who}_min": min(of_who)}
        if len(values["floor"]) == len(rounds) and min(values["floor"]) > 0:
            pairs = zip(values["operator"], values["floor"], strict=True)
            line["ratio"] = statistics.median(operator / floor for operator, floor in pairs)
    return found


def print_table(measured: Mapping[str, Any]) -> None:
    """Print the medians (and minima) of each number of resources."""
    print(measured["machine"])
    for size in measured["sizes"]:
        rounds = len(size["rounds"])
        print(f"\n{size['resources']} at once, AS latency {measured['as_latency_ms']:g} ms, median (min) of {rounds}")
        print(f"{'':<46}{'operator':>18}{'floor':>18}{'ratio':>8}")
        for name, line in size["medians"].items():
            label, unit = _LINES[name]
            cells = [_cell(line, who, unit) for who in ("operator", "floor")]
            ratio = f"{line['ratio']:.2f}" if "ratio" in line else ""
            print(f"{label:<46}{cells[0]:>18}{cells[1]:>18}{ratio:>8}")


def _cell(line: Mapping[str, float], who: str, unit: str) -> str:
    if who not in line:
        return "-"
    digits = 3 if unit == "s" and line[who] < 1 else 2 if unit == "s" else 0
    return f"{line[who]:.{digits}f} ({line[f'{who}_min']:.{digits}f}) {unit:<2}"
