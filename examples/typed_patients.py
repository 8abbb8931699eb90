"""Typed events of a clinic: pydantic models, a version that has changed, encrypted fields, and a rule across streams.

    python typed_patients.py

Needs the extras `pydantic` and `encryption`. A patient is registered by code from last year and read by the code of today;
names of patients are encrypted in the database; a doctor's day has so many appointments, whoever makes them.
"""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any, TypeAlias

from pydantic import BaseModel, field_validator

from eventstore_sa import EventQuery, EventStore, EventTypes, NewEvent, Projector, event
from eventstore_sa.errors import PayloadKeyError
from eventstore_sa.types import Encryption

LAST_YEAR, TODAY = bytes(32), bytes(range(32))
PER_DAY = 2


class Insurance(BaseModel):
    """Who pays; a string in the first version."""

    company: str
    number: str | None = None


def split_insurance(payload: dict[str, Any]) -> dict[str, Any]:
    """Bring a payload of version 1 up to date: it had the company alone."""
    return {**payload, "insurance": {"company": payload["insurance"]}}


@event(
    "patient-registered",
    version=2,
    upcast={1: split_insurance},
    encrypted=["name"],
    stream=lambda registered: ("patients", registered.patient),
)
class PatientRegistered(BaseModel):
    """A patient came for the first time."""

    patient: str
    name: str
    born: date
    insurance: Insurance

    @field_validator("born")
    @classmethod
    def not_in_the_future(cls, born: date) -> date:
        """Refuse a typing error before it becomes history."""
        if born > date(2026, 12, 31):
            raise ValueError("is in the future")
        return born


@event(
    "appointment-made",
    stream=lambda made: ("appointments", f"{made.doctor}-{made.day}-{made.patient}"),
    tags=lambda made: [f"day:{made.doctor}-{made.day}"],
)
class AppointmentMade(BaseModel):
    """A patient is to see a doctor."""

    patient: str
    doctor: str
    day: date


ClinicEvent: TypeAlias = PatientRegistered | AppointmentMade


def types_with(keys: dict[str, bytes]) -> EventTypes[ClinicEvent]:
    """Return the types, with the keys that the process knows; the first one encrypts."""
    return EventTypes(PatientRegistered, AppointmentMade, pipeline=[Encryption(lambda: keys)])


class Appointments(Projector[Any, list[str], None]):
    """The patients who see a doctor on a day."""

    def initial_state_factory(self) -> list[str]:
        return []

    def initial_metadata_factory(self) -> None:
        return None

    def made(self, patients: list[str], appointment: AppointmentMade) -> list[str]:
        return [*patients, appointment.patient]


async def make_appointment(store: EventStore[ClinicEvent], wanted: AppointmentMade) -> list[str]:
    """Make an appointment if the doctor has time that day; return who comes."""

    def decide(patients: list[str]) -> list[AppointmentMade]:
        return [wanted] if len(patients) < PER_DAY and wanted.patient not in patients else []

    day = EventQuery.tagged(f"day:{wanted.doctor}-{wanted.day}")
    return (await store.update_decision(day, Appointments(), decide=decide)).state


async def main() -> None:
    """Show it, on a database that is forgotten at the end."""
    async with EventStore("sqlite+aiosqlite://", types=types_with({"2025": LAST_YEAR})) as before:
        await before.create_schema()
        old = NewEvent(
            name="patient-registered",
            payload={"patient": "p1", "name": "Ada", "born": "1985-12-10", "insurance": "Acme"},
            version=1,
        )
        # What the code of last year stored: a store without types publishes old versions as they are.
        await EventStore(before.adapter).stream(category="patients", stream="p1").publish(events=[old])

        store = EventStore(before.adapter, types=types_with({"2026": TODAY, "2025": LAST_YEAR}))
        grace = PatientRegistered(
            patient="p2", name="Grace", born=date(1976, 12, 9), insurance=Insurance(company="Acme", number="17")
        )
        await store.publish(events=[grace])
        async for stored in store.category(category="patients"):
            print(stored.name, stored.version, stored.payload)

        raw = (await EventStore(before.adapter).stream(category="patients", stream="p2").read())[0].payload
        print("stored name:", "encrypted" if raw["name"] != "Grace" else "in the open", "- born:", raw["born"])
        try:
            await before.stream(category="patients", stream="p2").read()
        except PayloadKeyError as error:
            print("without the key of 2026:", type(error).__name__, "at position", error.position)

        for patient in ("p1", "p2", "p3"):
            wanted = AppointmentMade(patient=patient, doctor="d1", day=date(2026, 3, 2))
            print(patient, "wants to come; there come", await make_appointment(store, wanted))


if __name__ == "__main__":
    asyncio.run(main())
