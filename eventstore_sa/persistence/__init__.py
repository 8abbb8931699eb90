"""Everything that speaks SQL, by subject: transactions, events, projections, snapshots, and the schema below them."""
