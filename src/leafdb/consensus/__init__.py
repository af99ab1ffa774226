"""leafdb.consensus: one value, agreed upon by a majority, changed in order (CASPaxos, single decree).

ballot           numbers of rounds, never used twice
messages         what proposers and acceptors say to each other
acceptor         promises and accepts, durably
proposer         reads, changes, writes back; knows when it does not know
control_set      whose votes count, also while that changes, and why it cannot split
desired_control  whom it ought to hold, and the next step there
effects          what both ask of their driver, and how a proposal ends

The machines hold one register each and know nothing of what its value means: cluster metadata today, any key later.
"""
