"""Business transactions: publishes that wait for the commit of a session, and entities that record events.

Users meet this through `store.within(session)`, and through the mixin `RecordsEvents`.
"""

from eventstore_sa.persistence.events.conditions import exists_row
from eventstore_sa.session.after_commit import CommitCallback
from eventstore_sa.session.hosted import SessionStorage
from eventstore_sa.session.recording import RecordsEvents
from eventstore_sa.session.staged import StagedPublish

__all__ = ["CommitCallback", "RecordsEvents", "SessionStorage", "StagedPublish", "exists_row"]
