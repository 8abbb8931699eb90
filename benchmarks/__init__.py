"""Speed and memory beside the raw drivers, held against floors: `make bench`, or `python -m benchmarks [names]`.

`harness` measures and judges, `databases` has what is measured on, the other modules hold the contests. Every figure is
a median, every ratio comes from rounds of one run in which both sides took turns: only ratios mean something elsewhere.
"""
