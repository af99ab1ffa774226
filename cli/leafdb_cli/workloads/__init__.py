"""Load for a cluster: what is asked (mixes, distributions), how (the loop), and what came of it (histogram, figures).

Used by `leafdb bench run` and by bench/run.py.
"""
