"""The systems that are tested. One more line here, and every shared test holds for one more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """An inventory of the project, and what its hosts start from."""

    name: str
    image: str = "debian13"
    # A bare host is a fresh cloud server, where a missing install step cannot hide.
    bare: bool = True
    # Variables that the user has to give; they get canaries for values.
    given: tuple[str, ...] = ()
    # Whether every tag of site.yml is run alone; for the others, one tag on one host will do.
    every_tag: bool = False

    @property
    def project(self) -> str:
        """Its name among the lab's projects."""
        return f"st-{self.name.replace('/', '-')}"

    @property
    def family(self) -> str:
        """The team, whose environments share their particular tests."""
        return self.name.split("/", maxsplit=1)[0]


BACKBLAZE = ("vault_backblaze_key_id", "vault_backblaze_key")

SYSTEMS = [
    Entry("prod"),
    Entry("dhanman/prod", given=BACKBLAZE, every_tag=True),
    Entry("dhanman/qa", given=BACKBLAZE, image="debian12"),
    Entry("dhanman/scale", given=BACKBLAZE),
]
