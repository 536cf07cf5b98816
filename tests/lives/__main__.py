"""Play simulated lives: `python -m tests.lives SEED` replays one, `python -m tests.lives FIRST LAST` plays many.

Of a life that ends badly it shows the fewest steps that do, and what happens in them. The exit status is then 1.
"""

import argparse
import gc
import time

from .scenario import make_life, shrink
from .world import play


def replay(seed: int) -> bool:
    """Show how a life ends, and return whether that is well."""
    life = make_life(seed)
    wrongs = play(life, seed)
    if not wrongs:
        print(f"Life {seed} ends well.")
        return True
    print(f"Life {seed} ends badly:", *wrongs, sep="\n  ")
    steps = shrink(life, lambda fewer: bool(play(fewer, seed)))
    print(f"{len(steps)} of its {len(life)} steps are enough:", *steps, sep="\n  ")
    print("What happens then:")
    print("It ends badly:", *play(steps, seed, print), sep="\n  ")
    return False


def main() -> bool:
    """Play what the command line asks for, and return whether all ends well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=int, metavar="SEED")
    parser.add_argument("last", type=int, nargs="?", help="play all seeds from the first to this one")
    arguments = parser.parse_args()
    if arguments.last is None:
        return replay(arguments.first)
    gc.set_threshold(100_000)  # each life's loop and tasks refer to each other
    began = time.process_time()
    seeds = range(arguments.first, arguments.last + 1)
    bad = [seed for seed in seeds if play(make_life(seed), seed)]
    print(f"{len(bad)} of {len(seeds)} lives end badly; {time.process_time() - began:.1f} s of CPU.", *bad[:20])
    return not bad or replay(bad[0])


if __name__ == "__main__":
    raise SystemExit(not main())
