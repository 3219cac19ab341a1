"""What differs between two records of a case, and which of it is known."""

import itertools, re
from typing import NamedTuple


class Difference(NamedTuple):
    """One fact of one step that is not alike. `what` is "outcome", or what was watched: a path or "descriptor"."""

    case: str
    step: str
    what: str
    reference: object
    mount: object

    def __str__(self):
        what = "" if self.what == "outcome" else f" [{self.what}]"
        return (
            f"{self.case}: {self.step}{what}\n    reference {brief(self.reference)}\n    mount     {brief(self.mount)}"
        )


class Known(NamedTuple):
    """A difference whose reason is known. In all but the reason * is any text; a tuple stands for several entries."""

    case: str | tuple[str, ...]
    step: str | tuple[str, ...]
    what: str | tuple[str, ...]
    reference: str | tuple[str, ...]
    mount: str | tuple[str, ...]
    reason: str

    def __str__(self):
        return f"{self.case}: {self.step} [{self.what}]"

    def each(self):
        """An entry for every one of what its tuples have to choose from."""
        choices = (field if isinstance(field, tuple) else (field,) for field in self)
        return [Known(*fields) for fields in itertools.product(*choices)]

    def is_of(self, case):
        return matches(case, self.case)

    def matches(self, difference):
        return all(
            matches(text, pattern)
            for text, pattern in (
                (difference.case, self.case),
                (difference.step, self.step),
                (difference.what, self.what),
                (brief(difference.reference), self.reference),
                (brief(difference.mount), self.mount),
            )
        )


def matches(text, pattern):
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), text, re.DOTALL) is not None


def brief(value, limit=300):
    text = str(value)
    return text if len(text) <= limit else text[:limit] + "..."


def compare_records(name, reference, mount):
    """The differences, step by step; steps that only one of them has, when the case went another way there."""
    found = []
    for i in range(max(len(reference), len(mount))):
        ours = reference[i] if i < len(reference) else ["(no more steps)", None]
        theirs = mount[i] if i < len(mount) else ["(no more steps)", None]
        if ours[0] != theirs[0]:
            found.append(Difference(name, "the steps", "outcome", reference[i:], mount[i:]))
            break
        if ours[1] != theirs[1]:
            found.append(Difference(name, ours[0], "outcome", ours[1], theirs[1]))
        changes, other_changes = (x[2] if len(x) > 2 else {} for x in (ours, theirs))
        for what in {**changes, **other_changes}:
            if changes.get(what) != other_changes.get(what):
                found.append(Difference(name, ours[0], what, changes.get(what), other_changes.get(what)))
    return found
