"""What tools/bench measures and shows. Only the standard library is needed, and matplotlib for the plots.

Suites measure and return plain dictionaries (that is what ``bench.json`` holds, with every single run in it); tables,
goals and plots are made from these dictionaries alone, so that a result can be shown again without measuring.
"""
