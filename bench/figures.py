"""What the scripts `*-figures` share: `NAME [--short] [FOLDER [PART...]]`, a plan that says how long it takes, and an end."""
import os, signal, sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release")
# A rehearsal: all that is measured is measured, briefly; the figures say little.
SHORT = "--short" in sys.argv
_words = [word for word in sys.argv[1:] if not word.startswith("--")]
FOLDER = _words[0] if _words else None


def parts(minutes):
    """The parts to run, of these (name: minutes, and minutes of --short); says the plan, and ends what takes far longer."""
    unknown = [word for word in sys.argv[1:] if word.startswith("--") and word != "--short"]
    unknown += [word for word in _words[1:] if word not in minutes]
    if unknown:
        sys.exit(f"{' '.join(unknown)}: the parts are {', '.join(minutes)}, the only option is --short")
    chosen = _words[1:] or list(minutes)
    each = {part: minutes[part][SHORT] for part in chosen}
    said = ", ".join(f"{part} ({time:.1f})" for part, time in each.items())
    whole = sum(each.values())
    print(f"{os.path.basename(sys.argv[0])}: {said}: about {whole:.1f} minutes{', --short' if SHORT else ''}", file=sys.stderr, flush=True)

    def late(*_):
        sys.exit(f"ended after {3 * whole + 1:.0f} minutes: three times as long as planned")

    signal.signal(signal.SIGALRM, late)
    # Ended from outside, it ends what it started all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.alarm(int(180 * whole + 60))
    return chosen


def save(name, lines, add=False):
    """Writes lines into a file of the folder, if one was given."""
    if FOLDER:
        os.makedirs(FOLDER, exist_ok=True)
        with open(os.path.join(FOLDER, name), "a" if add else "w") as file:
            file.write("\n".join(lines) + "\n")
