"""Business transactions: publishes that wait for the commit of a session, and entities that record events.

Users meet this through `store.within(session)`, and through the mixin `RecordsEvents`.
"""

from eventstore_sa.persistence.events.conditions import exists_row
from eventstore_sa.session.business_transaction import SessionStorage, StagedPublish
from eventstore_sa.session.outcome import CommitCallback
from eventstore_sa.session.recording import RecordsEvents

__all__ = ["CommitCallback", "RecordsEvents", "SessionStorage", "StagedPublish", "exists_row"]
