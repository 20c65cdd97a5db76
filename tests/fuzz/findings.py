"""What a fuzzer found: each kind with its number and its shortest example."""

from dataclasses import dataclass

from tests.fuzz.exchange import Exchange


@dataclass(slots=True)
class Finding:
    """The findings of one kind."""

    count: int
    exchange: Exchange | None
    detail: str

    @property
    def length(self) -> int:
        """The number of bytes of the example."""
        return len(self.exchange.script.sent) if self.exchange else 0

    def __str__(self) -> str:
        if self.exchange is None:
            return f"{self.count} times: {self.detail}"
        script = self.exchange.script
        sent = "\n".join(f"    {segment.wait_seconds:g} s: {segment.data!r}" for segment in script.segments)
        if len(sent) > 3_000:
            sent = f"{sent[:1_500]}\n    …\n{sent[-1_500:]}"
        return (
            f"{self.count} times, as in script {script.index} (then {script.ending}): {self.detail}\n{sent}\n"
            f"  answered {self.exchange.received[:600]!r}"
        )


class Findings:
    """All findings, by kind."""

    def __init__(self) -> None:
        self.by_kind: dict[str, Finding] = {}

    def add(self, kind: str, exchange: Exchange | None, detail: str, *, count: int = 1) -> None:
        """Count a finding, and keep it if it is the shortest of its kind."""
        found = self.by_kind.get(kind)
        new = Finding(count=count, exchange=exchange, detail=detail)
        if found is not None:
            new.count += found.count
            if found.exchange is not None and (exchange is None or found.length <= new.length):
                found.count = new.count
                return
        self.by_kind[kind] = new

    def __bool__(self) -> bool:
        return bool(self.by_kind)

    def __str__(self) -> str:
        return "\n\n".join(f"{kind}: {found}" for kind, found in sorted(self.by_kind.items()))
