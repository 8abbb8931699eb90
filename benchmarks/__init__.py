"""Speed beside the raw driver and beside other event stores: `make bench`, or `python -m benchmarks [names]`.

A workload is done by several sides, which take turns in one run on one server. Only ratios within a round mean something
elsewhere; absolute figures belong to the machine of the run.

`harness` measures, `databases` has what is measured on, `contenders` are the event stores that are compared, `workloads` is
what they do, `report` and `plots` show the outcome. `data` fills a store with millions of events.
"""
