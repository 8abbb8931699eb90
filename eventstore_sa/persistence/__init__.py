"""Everything that speaks SQL: what exists in the database, how it is done there, and in which order."""
