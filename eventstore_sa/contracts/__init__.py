"""What storages in memory and in databases have in common: inline projections, rebuilds, and records of projections."""
