"""What is measured of the project, and how its figures come into README and docs: `python -m benchmarks list`.

A benchmark is a module with one `record.Benchmark`, listed in every.py. What it measures stands in docs/data, one JSON
file each (data.py); what pages show of it stands between the comments of pages.py; pictures have the look of style.py.
Importing a benchmark imports no torch: to fill the pages takes seconds, and needs no model.
"""
